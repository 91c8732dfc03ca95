"""Keys of Focus-DETR: detectron2's backbone, separate heads, many copies of one class head."""

import pytest
import torch

from leandetr.checkpoints.keymap import fill, to_official
from leandetr.checkpoints.official import focus_detr
from leandetr.errors import CheckpointMismatch
from leandetr.models.backbones import ResNetConfig, SwinConfig
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.recipes import build
from tiny import shrink, tiny

PRESET = "focus-detr-r50"
HEAD = "transformer.decoder.class_embed.2"


def ways():
    """Detectors whose official names differ in form."""
    yield pytest.param(tiny(PRESET, backbone=ResNetConfig(depth=18)), id="resnet")
    yield pytest.param(tiny(PRESET, backbone=ResNetConfig(depth=50, norm="batch")), id="batch-norm")
    yield pytest.param(tiny(PRESET, backbone=SwinConfig(variant="tiny")), id="swin")
    deep = shrink(FocusEncoderConfig(), cascade=(1.0, 0.5, 0.2, 0.1))
    yield pytest.param(tiny(PRESET, deep, backbone=SwinConfig(variant="tiny")), id="deep")


@pytest.mark.parametrize("recipe", list(ways()))
def test_every_parameter_goes_and_returns_bit_for_bit(recipe):
    model, rules = build(recipe), focus_detr.rules(recipe)
    ours = model.state_dict()
    named = to_official(ours, rules)
    other = build(recipe)
    assert fill(other, named, rules) == {}
    state = other.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in state.items())
    copies = [key for key in named if "MCSP" in key and key.endswith("weight")]
    assert len(copies) == 2 * len(recipe.model.encoder.cascade)
    assert all(torch.equal(named[key], model.proposals.classes.weight) for key in copies)


def test_a_resnet_has_the_names_of_detectron2():
    recipe = tiny(PRESET, backbone=ResNetConfig(depth=18))
    named = to_official(build(recipe).state_dict(), focus_detr.rules(recipe))
    for key in (
        "backbone.stem.conv1.weight",
        "backbone.stem.conv1.norm.running_mean",
        "backbone.res2.1.conv2.norm.bias",
        "backbone.res5.0.shortcut.weight",
        "backbone.res3.0.shortcut.norm.running_var",
    ):
        assert key in named
    assert not any("layer" in key or "downsample" in key for key in named if "backbone" in key)


def test_a_copy_that_differs_is_told():
    recipe = tiny(PRESET, backbone=ResNetConfig(depth=18))
    model, rules = build(recipe), focus_detr.rules(recipe)
    named = to_official(model.state_dict(), rules)
    key = "transformer.encoder.enhance_MCSP.1.bias"
    with pytest.raises(CheckpointMismatch, match=rf"{key} and {HEAD}.bias differ"):
        fill(model, named | {key: named[key] + 1}, rules)


@pytest.mark.parametrize(
    "key",
    [
        "transformer.alpha",
        "transformer.encoder.layers.0.norm2.weight",
        "transformer.enc_mask_predictor.layer2.4.bias",
        "backbone.res2.0.conv1.norm.running_var",
        "label_enc.weight",
    ],
)
def test_a_missing_key_is_noticed(key):
    recipe = tiny(PRESET, backbone=ResNetConfig(depth=18))
    model, rules = build(recipe), focus_detr.rules(recipe)
    named = to_official(model.state_dict(), rules)
    del named[key]
    with pytest.raises(CheckpointMismatch, match="missing: "):
        fill(model, named, rules)
