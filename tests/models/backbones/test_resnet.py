import pytest
import torch
from torch import nn

from autograd_graph import graph
from golden_data import load_case, loaded, rules
from leandetr.errors import RecipeError
from leandetr.models.backbones import FrozenBatchNorm, NanoResNetConfig, ResNetConfig
from leandetr.types import Images

PREFIX = "backbone.0.body."


def build_like(case):
    """The official backbone of a golden case, with its weights loaded strictly."""
    dilated = case.meta["args"]["dilation"]
    levels = case.meta["args"].get("num_feature_levels", 1)
    config = ResNetConfig(outputs=(3,) if levels == 1 else (1, 2, 3), dilate_last=dilated)
    backbone = config.build()
    own = {key: shape for key, shape in case.meta["key_shapes"].items() if key.startswith(PREFIX)}
    state = rules().fill(own, case.meta["seed"])  # only these: whole models take seconds to fill
    state = {key.removeprefix(PREFIX): torch.from_numpy(array) for key, array in state.items()}
    backbone.load_state_dict(state, strict=True)
    return backbone


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    [
        "detr/r50",
        "detr/r50_dc5",
        "deformable_detr/r50",
        "deformable_detr/r50_refine_odd_sizes",
        "deformable_detr/r50_single_scale_dc5",
    ],
)
def test_maps_and_padding_equal_the_official_ones(name):
    case = load_case(name)
    loaded.discard(name)  # the backbone alone is not the whole case
    backbone = build_like(case)
    with torch.no_grad():
        found = backbone(case.images())
    tolerance = case.meta["tolerance"]
    for index, (level, padding) in enumerate(zip(found.maps, found.padding, strict=True)):
        expected = case.tensors[f"feature_{index}_sub"]
        channels = 64 << index if len(found.maps) == 3 else 256
        torch.testing.assert_close(
            level[:, ::channels, ::2, ::2],
            expected,
            atol=tolerance["atol"],
            rtol=tolerance["rtol"],
        )
        assert torch.equal(padding, case.tensors[f"mask_{index}"])


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160)],
)
def test_parameter_counts_are_those_of_torchvision_without_fc(depth, parameters):
    with torch.device("meta"):
        backbone = ResNetConfig(depth, norm="batch", frozen_stages=0).build()
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_frozen_norm_is_batch_norm_in_evaluation():
    frozen, usual = FrozenBatchNorm(5), nn.BatchNorm2d(5).eval()
    state = {
        "weight": torch.randn(5),
        "bias": torch.randn(5),
        "running_mean": torch.randn(5),
        "running_var": torch.rand(5) + 0.5,
    }
    frozen.load_state_dict(state, strict=True)
    usual.load_state_dict(state, strict=False)
    features = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(frozen.train()(features), usual(features))
    assert not list(frozen.parameters())
    assert torch.equal(frozen.running_mean, state["running_mean"])


def test_a_frozen_norm_goes_into_the_weights_in_training_and_changes_nothing():
    backbone = ResNetConfig(18, frozen_stages=1).build().double()
    for name, buffer in backbone.named_buffers():
        nn.init.uniform_(buffer, 0.5, 1.5) if "var" in name else nn.init.normal_(buffer, 1.0, 0.1)
    images = Images(torch.randn(2, 3, 32, 32).double(), torch.zeros(2, 32, 32, dtype=torch.bool))
    with torch.no_grad():
        apart = backbone(images).maps
    joined = backbone(images).maps
    for one, other in zip(apart, joined, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    assert not any("BatchNorm" in name for name in graph(joined[-1]))
    conv = backbone.layer4[0].conv1
    joined[-1].square().mean().backward()
    numeric = slope(lambda: backbone(images).maps[-1].square().mean(), conv.weight)
    assert conv.weight.grad.flatten()[0].item() == pytest.approx(numeric, rel=1e-5)


def slope(work, weight, step=1e-5):
    """How fast `work()` grows with the first number of a weight."""
    found = []
    with torch.no_grad():
        for change in (step, -2 * step):
            weight.flatten()[0] += change
            found.append(float(work()))
        weight.flatten()[0] += step
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_frozen_stages_do_not_train(norm):
    backbone = ResNetConfig(18, norm=norm, frozen_stages=2).build()
    frozen = {key.split(".")[0] for key, p in backbone.named_parameters() if not p.requires_grad}
    trained = {key.split(".")[0] for key, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert trained == {"layer2", "layer3", "layer4"}
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.train()(Images(torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.bool)))
    changed = {
        key.split(".")[0] for key, v in backbone.state_dict().items() if (v != before[key]).any()
    }
    assert changed == ({"layer2", "layer3", "layer4"} if norm == "batch" else set())


@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_last_stage_keeps_stride_16(depth):
    usual = ResNetConfig(depth, outputs=(2, 3)).build()
    dilated = ResNetConfig(depth, outputs=(2, 3), dilate_last=True).build()
    assert usual.state_dict().keys() == dilated.state_dict().keys()
    batch = Images(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    assert [level.shape[2:] for level in usual(batch).maps] == [(4, 6), (2, 3)]
    assert [level.shape[2:] for level in dilated(batch).maps] == [(4, 6), (4, 6)]
    convolutions = [
        m for m in dilated.get_submodule("layer4").modules() if isinstance(m, nn.Conv2d)
    ]
    spread = [m.dilation for m in convolutions if m.kernel_size == (3, 3)]
    first = 2 if depth == 18 else 1
    assert spread[:first] == [(1, 1)] * first
    assert set(spread[first:]) == {(2, 2)}


def test_nano_widths_blocks_and_depth_are_free():
    backbone = NanoResNetConfig(widths=(8, 16, 24), blocks=(1, 2, 1), outputs=(0, 2)).build()
    assert backbone.channels == (8, 24)
    batch = Images(torch.randn(2, 3, 33, 47), torch.zeros(2, 33, 47, dtype=torch.bool))
    assert [level.shape for level in backbone(batch).maps] == [(2, 8, 9, 12), (2, 24, 3, 3)]
    assert "layer2.1.conv2.weight" in backbone.state_dict()


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (ResNetConfig, {"depth": 20}, r"one of \[18, 34, 50, 101\], got 20"),
        (ResNetConfig, {"norm": "group"}, "one of .'batch', 'frozen'., got 'group'"),
        (ResNetConfig, {"frozen_stages": 6}, "0 to 5, got 6"),
        (ResNetConfig, {"outputs": (1, 2), "dilate_last": True}, "add 3 to outputs"),
        (ResNetConfig, {"weights": "coco"}, "no weights 'coco' are known for resnet50"),
        (NanoResNetConfig, {"widths": (8, 16)}, "one width and one number of blocks a stage"),
        (NanoResNetConfig, {"widths": (), "blocks": ()}, "one width"),
        (NanoResNetConfig, {"blocks": (1, 0, 1, 1)}, "all at least 1"),
    ],
)
def test_impossible_configs_say_what_to_type(config, arguments, message):
    with pytest.raises(RecipeError, match=message):
        config(**arguments)
