"""Our detectors give the answers of transformers' own classes: random weights, padded images."""

import json
import warnings
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from golden_data import name_row
from leandetr.checkpoints.convert import convert
from leandetr.checkpoints.keymap import fill, to_official
from leandetr.checkpoints.official import (
    transformers_conditional_detr,
    transformers_deformable_detr,
    transformers_detr,
)
from leandetr.checkpoints.store import load
from leandetr.models.detector import Detector
from leandetr.recipes import build
from leandetr.types import Images
from tiny import batch

TOLERANCE = 1e-4
"""Single precision over a whole detector; what is found is below 1e-5."""
DOUBLE = 1e-6
"""Double precision, but for boxes and references, which are single here."""

SIZES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 24,
    "num_queries": 5,
    "two_stage_num_proposals": 7,
}
BASIC = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
LAST, LATER = ["stage4"], ["stage2", "stage3", "stage4"]

CASES = {
    "detr": ("Detr", {}, BASIC | {"out_features": LAST}),
    "detr-r50": ("Detr", {}, {"out_features": LAST}),
    "conditional": ("ConditionalDetr", {}, BASIC | {"out_features": LAST}),
    "deformable": ("DeformableDetr", {}, BASIC | {"out_features": LATER}),
    "one-level": ("DeformableDetr", {"num_feature_levels": 1}, BASIC | {"out_features": LAST}),
    "refine": ("DeformableDetr", {"with_box_refine": True}, BASIC | {"out_features": LATER}),
    "two-stage": (
        "DeformableDetr",
        {"with_box_refine": True, "two_stage": True},
        BASIC | {"out_features": LATER},
    ),
}
MODULES = {
    "Detr": transformers_detr,
    "ConditionalDetr": transformers_conditional_detr,
    "DeformableDetr": transformers_deformable_detr,
}


@pytest.fixture(scope="module")
def hugging() -> ModuleType:
    """The module transformers, silent and offline; it takes seconds to import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers")
        module.utils.logging.set_verbosity_error()
        module.utils.logging.disable_progress_bar()
        for name in MODULES:
            getattr(module, f"{name}ForObjectDetection")
    return module


def theirs_of(hugging: ModuleType, case: str, **more: object) -> nn.Module:
    """A model of transformers with weights that all matter."""
    name, options, resnet = CASES[case]
    config = getattr(hugging, f"{name}Config")(
        backbone_config=hugging.ResNetConfig(**resnet),
        id2label={0: "cat", 1: "dog", 2: "tree"},
        **SIZES | options | more,
    )
    model = getattr(hugging, f"{name}ForObjectDetection")(config)
    stir(model)
    return model.eval()


def stir(model: nn.Module) -> None:
    """Give every tensor numbers of its own, norms and their statistics too, and keep them tame."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                value.uniform_(0.8, 1.2, generator=generator)
            else:
                value.normal_(0, 0.3, generator=generator)


def ours_of(theirs: nn.Module, case: str, state: dict | None = None) -> Detector:
    """Our detector, from the config as it is written on disk and the weights."""
    module = MODULES[CASES[case][0]]
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    assert module.looks_like(config)
    recipe = module.recipe(config)
    model = build(recipe)
    dropped = fill(model, state or theirs.state_dict(), module.rules(recipe))
    assert dropped == {}
    return model.eval()


def answers(theirs: nn.Module, images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes of a model of transformers."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = theirs(pixel_values=images.pixels, pixel_mask=(~images.padding).long())
    return found.logits, found.pred_boxes


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_transformers(hugging, case):
    name_row(f"transformers/{case}")
    theirs = theirs_of(hugging, case)
    ours, images = ours_of(theirs, case), batch((96, 128), (70, 90))
    for precision, tolerance in ((torch.float32, TOLERANCE), (torch.float64, DOUBLE)):
        images = Images(images.pixels.to(precision), images.padding)
        logits, boxes = answers(theirs.to(precision), images)
        with torch.no_grad():
            answer = ours.to(precision)(images).answer
        assert logits.std() > 0.1
        assert boxes.std() > 0.05
        for found, wanted in ((answer.logits, logits), (answer.boxes, boxes)):
            torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if case != "detr-r50"])
def test_models_on_disk_are_the_same_both_ways(hugging, case, tmp_path):
    theirs = theirs_of(hugging, case)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = ours_of(theirs, case, load_file(path))
    expected = ours_of(theirs, case).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    rules = MODULES[CASES[case][0]].rules(ours.recipe)
    named = to_official(ours.state_dict(), rules)
    save_file({k: v.clone() for k, v in named.items()}, path, metadata={"format": "pt"})
    again, told = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    images = batch((64, 96))
    for new, old in zip(answers(again.eval(), images), answers(theirs, images), strict=True):
        assert torch.equal(new, old)


@pytest.mark.parametrize("case", ["detr", "two-stage"])
def test_a_folder_of_transformers_is_converted_with_its_names(hugging, case, tmp_path):
    theirs = theirs_of(hugging, case)
    theirs.save_pretrained(tmp_path / "theirs")
    converted = convert(tmp_path / "theirs", out=tmp_path / "ours")
    assert converted.detector.names == ("cat", "dog", "tree")
    images = batch((64, 96), (48, 80))
    logits, boxes = answers(theirs, images)
    with torch.no_grad():
        answer = load(tmp_path / "ours")(images).answer
    torch.testing.assert_close(answer.logits, logits, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(answer.boxes, boxes, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["detr", "conditional"])
def test_with_an_auxiliary_loss_transformers_answers_otherwise(hugging, case):
    """Why `auxiliary_loss` is refused: the same weights mean another model."""
    plain, images = theirs_of(hugging, case), batch((64, 96))
    other = theirs_of(hugging, case, auxiliary_loss=True)
    other.load_state_dict(plain.state_dict())
    logits, others = answers(plain, images)[0], answers(other, images)[0]
    assert (logits - others).abs().max() > 100 * TOLERANCE


def test_narrow_projections_are_normed_in_groups_of_one_by_transformers(hugging):
    """Why a `d_model` below 64 is refused for Deformable DETR."""
    theirs = theirs_of(hugging, "deformable", d_model=32)
    norms = [module for module in theirs.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_channels // norm.num_groups for norm in norms} == {1}
