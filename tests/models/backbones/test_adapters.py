"""Backbones of timm and transformers: the real ones where they import, else a timm made for this.

The stand-in knows `create_model` and `list_models` as timm 1.0 has them.
"""

import dataclasses
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from leandetr.errors import MissingExtra, NetworkUnavailable, RecipeError
from leandetr.models.backbones import (
    Backbone,
    BackboneConfig,
    HubConfig,
    TimmConfig,
    load_pretrained,
)
from leandetr.models.backbones.adapters import choose
from leandetr.recipes.assemble import create_model, recipe
from leandetr.recipes.codec import dump_yaml, load_yaml, override
from leandetr.types import Images

NANO = ("dim=32", "queries.count=12", "top=12")


def images(*sizes):
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    pixels = torch.zeros(len(sizes), 3, height, width)
    padding = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for row, (h, w) in enumerate(sizes):
        pixels[row, :, :h, :w] = torch.randn(3, h, w)
        padding[row, :h, :w] = False
    return Images(pixels, padding)


class Pyramid(nn.Module):
    """What timm returns for `features_only=True`: a list of maps and what is known of them."""

    def __init__(self, reductions, out_indices=None, last=False, fixed=False, any_size=False):
        super().__init__()
        self.info = [{"reduction": r, "num_chs": 4 * i + 4} for i, r in enumerate(reductions)]
        self.wanted = tuple(range(len(reductions))) if out_indices is None else out_indices
        self.feature_info = SimpleNamespace(
            info=self.info,
            channels=lambda: [self.info[i]["num_chs"] for i in self.wanted],
            reduction=lambda: [self.info[i]["reduction"] for i in self.wanted],
        )
        self.output_fmt = "NHWC" if last else "NCHW"
        self.pretrained_cfg = {"fixed_input_size": fixed}
        self.strict = fixed and not any_size
        widths = [3, *(entry["num_chs"] for entry in self.info)]
        steps = [b // a for a, b in zip([1, *reductions], reductions, strict=False)]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, max(step, 1), max(step, 1))
            for before, after, step in zip(widths, widths[1:], steps, strict=False)
        )[: max(self.wanted) + 1]
        self.token = nn.Parameter(torch.zeros(1))  # part of the model, not of its maps

    def forward(self, pixels):
        assert not self.strict, "Input height doesn't match model"
        if self.pretrained_cfg["fixed_input_size"]:
            assert pixels.shape[2] % 32 == pixels.shape[3] % 32 == 0, "not divisible"
        maps = []
        for index, stage in enumerate(self.stages):
            pixels = stage(pixels)
            if index in self.wanted:
                maps.append(pixels.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else pixels)
        return maps


ZOO = {
    "pyramid": {"reductions": (2, 4, 8, 16, 32)},
    "swinlike": {"reductions": (4, 8, 16, 32), "last": True, "fixed": True},
    "vitlike": {"reductions": (16, 16, 16)},
    "mixerlike": {"reductions": (8, 16, 32), "fixed": True},
}


@pytest.fixture
def timm(monkeypatch):
    """A module timm with the models of ZOO; `made` are the arguments of each call."""
    module = ModuleType("timm")
    module.made = []

    def create_model(name, *, features_only, pretrained, dynamic_img_size=False, **options):
        if name == "mixerlike" and dynamic_img_size:
            raise TypeError("Mixer got an unexpected keyword argument 'dynamic_img_size'")
        module.made.append({"name": name, "pretrained": pretrained})
        if name.split(".")[0] not in ZOO:
            raise RuntimeError(f"Unknown model ({name})")
        if pretrained and name == "vitlike":
            raise FileNotFoundError("cannot reach the hub\nand a long story")
        made = Pyramid(**ZOO[name.split(".")[0]], any_size=dynamic_img_size, **options)
        if pretrained:
            nn.init.constant_(made.stages[0].weight, 0.25)
        return made

    module.create_model = create_model
    module.list_models = lambda: list(ZOO)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.fixture
def resnet(tmp_path):
    """A folder with the configuration and weights of a small ResNet of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic"
    )
    folder = tmp_path / "resnet"
    transformers.ResNetModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def swin(tmp_path):
    """A folder with the configuration of a small Swin of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=3, image_size=32
    )
    config.save_pretrained(tmp_path / "swin")
    return tmp_path / "swin"


def check(config, channels, strides):
    """The promises of every backbone."""
    assert isinstance(config, BackboneConfig)
    backbone = config.build()
    assert isinstance(backbone, Backbone)
    assert backbone.channels == channels
    batch = images((64, 96), (33, 50))
    found = backbone(batch)
    assert [level.shape for level in found.maps] == [
        (2, width, 64 // stride, 96 // stride)
        for width, stride in zip(channels, strides, strict=True)
    ]
    for level, padding in zip(found.maps, found.padding, strict=True):
        assert padding.shape == (2, *level.shape[2:])
        assert padding[1, -1, -1]
        assert not padding[0].any()
    sum(level.square().mean() for level in found.maps).backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())
    return backbone


@pytest.mark.parametrize("outputs", [(1, 2, 3), (0, 2), (3,)])
def test_a_timm_model_gives_maps_at_the_strides_of_outputs(timm, outputs):
    channels = tuple((8, 12, 16, 20)[index] for index in outputs)
    backbone = check(
        TimmConfig("pyramid", outputs=outputs), channels, [4 << index for index in outputs]
    )
    silent = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert silent == ["model.token"]


def test_a_timm_model_of_patches_takes_any_size_and_puts_channels_second(timm):
    backbone = check(TimmConfig("swinlike"), (8, 12, 16), (8, 16, 32))
    batch = images((41, 70))
    found = backbone(batch).maps
    assert [level.shape[2:] for level in found] == [(6, 9), (3, 5), (2, 3)]
    whole = torch.zeros(1, 3, 64, 96)
    whole[:, :, :41, :70] = batch.pixels
    expected = backbone.model(whole)[0].permute(0, 3, 1, 2)[:, :, :6, :9]
    torch.testing.assert_close(found[0], expected)


def test_a_timm_model_of_one_size_is_refused(timm):
    with pytest.raises(RecipeError, match=r"'mixerlike' .it takes images of one size only.; choo"):
        TimmConfig("mixerlike").build()


def test_a_timm_model_with_one_stride_gives_one_map(timm):
    check(TimmConfig("vitlike", outputs=(2,)), (12,), (16,))
    with pytest.raises(RecipeError) as caught:
        TimmConfig("vitlike").build()
    assert str(caught.value) == (
        "timm:vitlike gives maps at strides [16], expected [8, 16, 32]; type backbone.outputs=[2]"
    )


def test_unknown_timm_models_suggest(timm):
    with pytest.raises(RecipeError, match=r"'pyramids' .Unknown model .*did you mean pyramid"):
        TimmConfig("pyramids").build()


@pytest.mark.parametrize("weights", ["pretrained", "imagenet"])
def test_weights_of_timm_are_loaded_when_asked_for(timm, weights):
    config = TimmConfig("pyramid.tag", weights=weights)
    backbone = config.build()
    assert not any(made["pretrained"] for made in timm.made)
    assert load_pretrained(backbone, config) == "timm's weights of pyramid.tag"
    assert (backbone.model.stages[0].weight == 0.25).all()


def test_weights_of_timm_that_cannot_be_had_are_told(timm):
    config = TimmConfig("vitlike", outputs=(2,), weights="pretrained")
    with pytest.raises(NetworkUnavailable, match=r"timm:vitlike .cannot reach the hub.; check"):
        load_pretrained(config.build(), config)


def test_a_detector_with_a_timm_backbone_trains_saves_and_comes_back(timm, tmp_path):
    from leandetr.checkpoints.store import load, save

    model = create_model("dino-nano", num_classes=2, overrides=["backbone=timm:pyramid", *NANO])
    assert model.recipe.model.backbone == TimmConfig("pyramid")
    model(images((64, 64))).answer.logits.sum().backward()
    assert model.backbone.model.stages[2].weight.grad.abs().sum() > 0
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert torch.equal(again.backbone.model.stages[0].weight, model.backbone.model.stages[0].weight)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("backbone=timm:convnext_tiny", TimmConfig("convnext_tiny")),
        ("backbone=timm:resnet50.a1_in1k", TimmConfig("resnet50.a1_in1k")),
        (
            "backbone={type: timm, name: convnext_tiny, outputs: [0, 1]}",
            TimmConfig("convnext_tiny", outputs=(0, 1)),
        ),
        ("backbone={type: 'hf:a/b', weights: pretrained}", HubConfig("a/b", weights="pretrained")),
        ("backbone=hf:microsoft/resnet-18", HubConfig("microsoft/resnet-18")),
        ("backbone=hf:./folder", HubConfig("./folder")),
    ],
)
def test_the_words_stand_in_recipes_and_come_back(change, expected):
    changed = override(recipe("dino-nano"), [change])
    assert changed.model.backbone == expected
    assert load_yaml(dump_yaml(changed)) == changed
    assert override(changed, ["backbone.outputs=[2]"]).model.backbone == dataclasses.replace(
        expected, outputs=(2,)
    )


def test_a_word_keeps_the_outputs_and_the_wish_for_weights():
    changed = override(recipe("dino-r50"), ["backbone=timm:resnet18"]).model.backbone
    assert changed == TimmConfig("resnet18", weights=recipe("dino-r50").model.backbone.weights)


def test_a_transformers_model_gives_maps_at_the_strides_of_outputs(resnet):
    check(HubConfig(str(resnet)), (12, 16, 20), (8, 16, 32))
    backbone = check(HubConfig(str(resnet), outputs=(0, 2)), (8, 16), (4, 16))
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith("model.encoder.stages.3.") for name in frozen)


def test_a_transformers_swin_takes_any_size(swin):
    check(HubConfig(str(swin)), (16, 32, 64), (8, 16, 32))


def test_weights_of_transformers_are_loaded_when_asked_for(resnet):
    from transformers import ResNetModel

    config = HubConfig(str(resnet), weights="pretrained")
    backbone = config.build()
    assert (
        load_pretrained(backbone, config) == f"weights of {resnet}, as published for transformers"
    )
    truth = ResNetModel.from_pretrained(resnet).eval()
    batch = images((64, 96))
    expected = truth(batch.pixels, output_hidden_states=True).hidden_states[2:]
    for found, level in zip(backbone.eval()(batch).maps, expected, strict=True):
        torch.testing.assert_close(found, level)


def test_a_detector_with_a_transformers_backbone(resnet):
    changes = [f"backbone=hf:{resnet}", *NANO]
    model = create_model("dino-nano", num_classes=2, overrides=changes)
    assert model(images((64, 96))).answer.boxes.shape == (1, 12, 4)


def test_a_transformers_backbone_exports(resnet):
    backbone = HubConfig(str(resnet)).build().eval()

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

        def forward(self, pixels, padding):
            return self.backbone(Images(pixels, padding)).maps

    batch, other = images((64, 96), (50, 70)), images((96, 160), (90, 33))
    height, width = torch.export.Dim("h", min=40, max=512), torch.export.Dim("w", min=40, max=512)
    shapes = {"pixels": {2: height, 3: width}, "padding": {1: height, 2: width}}
    program = torch.export.export(
        Plain(), (batch.pixels, batch.padding), dynamic_shapes=shapes, strict=False
    )
    with torch.no_grad():
        expected = backbone(other).maps
    torch.testing.assert_close(program.module()(other.pixels, other.padding), expected)


def test_a_model_without_feature_maps_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="gives no feature maps; choose a model with a backbone"):
        HubConfig(str(tmp_path)).build()


def test_a_name_that_cannot_be_had_says_what_to_fetch(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(NetworkUnavailable) as caught:
        HubConfig(str(missing)).build()
    message = str(caught.value)
    assert f"cannot get hf:{missing} (" in message
    assert "by hand into a folder and type backbone=hf:FOLDER" in message
    assert "\n" not in message


def test_a_folder_without_weights_says_so(swin):
    config = HubConfig(str(swin), weights="pretrained")
    with pytest.raises(NetworkUnavailable, match=r"model.safetensors"):
        load_pretrained(config.build(), config)


def test_an_unreadable_configuration_is_told(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(RecipeError, match="nonsense"):
        HubConfig(str(tmp_path)).build()


@pytest.mark.parametrize(
    ("config", "name", "extra"),
    [(TimmConfig("x"), "timm", "timm"), (HubConfig("x"), "transformers", "transformers")],
)
def test_without_the_library_the_extra_is_named(monkeypatch, config, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"{config.architecture} needs .*leandetr\[{extra}\]"):
        config.build()


def test_a_timm_that_does_not_fit_torch_is_told(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(RecipeError, match=r"torchvision::nms is missing.; install torch and"):
        TimmConfig("resnet18").build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "expected the name of a model; type backbone="),
        ({"name": "x", "outputs": (4,)}, "indices of its 4 stages"),
        ({"name": "x", "weights": "coco"}, "no weights 'coco' are known for .*:x; type"),
    ],
)
@pytest.mark.parametrize("kind", [TimmConfig, HubConfig])
def test_impossible_configs_say_what_to_type(kind, arguments, message):
    with pytest.raises(RecipeError, match=message):
        kind(**arguments)


def test_the_last_map_of_a_stride_is_chosen():
    assert choose((4, 4, 8, 16, 32), (0, 3), "x") == (1, 4)
    with pytest.raises(RecipeError, match=r"expected \[8\]; choose another backbone"):
        choose((14,), (1,), "x")


def real_timm():
    """The installed timm, if it imports."""
    try:
        import timm
    except (ImportError, RuntimeError, OSError):
        pytest.skip("timm is not installed, or does not fit this torch")
    return timm


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", (128, 256, 512)), ("swin_tiny_patch4_window7_224", (192, 384, 768))],
)
def test_the_real_timm_keeps_its_promises(name, channels):
    real_timm()
    check(TimmConfig(name), channels, (8, 16, 32))
