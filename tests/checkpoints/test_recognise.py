"""Every official model is known by its keys, and its recipe takes every one of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from leandetr.checkpoints.families.facts import Facts
from leandetr.checkpoints.keymap import check_fits, to_official, to_ours
from leandetr.checkpoints.layouts import rules_for
from leandetr.checkpoints.recognise import Recognised, recognise
from leandetr.errors import CheckpointMismatch
from leandetr.nn.deform_attention import Offsets
from leandetr.recipes import Recipe, build, list_models, recipe
from official_states import MODELS, arguments, shaped

PRESETS = {
    "detr/r50": "detr-r50",
    "detr/r50_dc5": "detr-r50-dc5",
    "conditional_detr/r50": "conditional-detr-r50",
    "conditional_detr/r50_dc5": "conditional-detr-r50-dc5",
    "deformable_detr/r50": "deformable-detr-r50",
    "deformable_detr/r50_refine": "deformable-detr-r50-refine",
    "deformable_detr/r50_two_stage": "deformable-detr-r50-two-stage",
    "deformable_detr/r50_single_scale": "deformable-detr-r50-single-scale",
    "deformable_detr/r50_single_scale_dc5": "deformable-detr-r50-single-scale-dc5",
    "h_deformable_detr/r50_hybrid": "h-detr-r50",
    "sparse_detr/r50_rho_0.3": "sparse-detr-r50-rho30",
    "focus_detr/focus_r50_single": "focus-detr-r50",
    "dino/dino_r50_4scale": "dino-r50",
    "dino/dino_r50_4scale_train": "dino-r50",
    "dino/dino_r50_5scale": "dino-r50-5scale",
    "dino/dino_swin_t_4scale": "dino-swin-t",
    "lite_detr/lite_dino_r50_h3l1_2p1_x3": "lite-dino-r50-h3l1-2p1x3",
    "lite_detr/lite_dino_r50_h3l1_6p1_x1": "lite-dino-r50-h3l1-6p1x1",
    "lite_detr/lite_dino_r50_h2l2_2p1_x3": "lite-dino-r50-h2l2-2p1x3",
    "lite_detr/lite_dino_r50_h2l2_2p1_x3_train": "lite-dino-r50-h2l2-2p1x3",
}


def empty(recipe: Recipe) -> dict[str, Tensor]:
    """The parameters of a detector that is not really built."""
    with torch.device("meta"):
        return build(recipe).state_dict()


def assert_filled(state: dict[str, Tensor], found: Recognised) -> dict[str, str]:
    """Every key is used once, every parameter filled once; returns what was dropped."""
    converted = to_ours(state, found.family.rules(found.recipe))
    check_fits(empty(found.recipe), converted.state)
    return converted.dropped


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One number for each tensor, which takes no memory; the first ones differ."""
    return {key: torch.tensor(float(i)).expand(t.shape) for i, (key, t) in enumerate(state.items())}


@pytest.mark.parametrize("name", MODELS)
def test_every_official_model_with_its_arguments(name):
    state, told = shaped(name), arguments(name)
    found = recognise(state, told)
    dropped = assert_filled(state, found)
    assert bool(dropped) == name.endswith("keyaware0")
    assert found.preset == PRESETS.get(name)
    model = found.recipe.model
    queries = told.get("num_queries_one2one", told.get("num_queries"))
    assert model.queries.count == queries
    assert model.encoder.heads == told.get("nheads", told.get("num_heads"))
    assert model.backbone.depth == 50 if "r50" in name else model.backbone.variant == "tiny"
    if "rho" in told:
        assert getattr(model.encoder, "keep", 0.0) == told["rho"]
    if "enc_scale" in told:
        assert model.encoder.high_levels == told["enc_scale"]
        assert model.encoder.blocks == told["num_expansion"]
        assert model.encoder.key_aware == told["key_aware"]
    if name.startswith("focus"):
        assert found.assumed[0].startswith("encoder.cascade=[1.0, 0.8")
    else:
        assert found.assumed == ()


@pytest.mark.parametrize("name", MODELS)
def test_every_official_model_by_its_keys_alone(name):
    state = shaped(name)
    found = recognise(state)
    assert any(why.startswith("encoder.heads=8 is assumed") for why in found.assumed)
    single = found.recipe.model.neck.levels == 1
    assert any("DC5" in why for why in found.assumed) == single
    told = recognise(state, arguments(name))
    assert found.family == told.family
    mine, theirs = found.recipe.model, told.recipe.model
    for part in ("dim", "classes", "neck", "shared_heads"):
        assert getattr(mine, part) == getattr(theirs, part), part
    assert mine.decoder == theirs.decoder


LIKE_OTHERS = ("nano", "keep30", "rho20", "rho40", "rho50")
"""Presets that differ from others in numbers that keys do not hold, or that no paper has."""


@pytest.mark.parametrize(
    "name", [name for name in list_models() if not any(part in name for part in LIKE_OTHERS)]
)
def test_every_preset_is_recognised_in_the_layout_of_its_paper(name):
    wanted = recipe(name)
    try:
        rules = rules_for(wanted)
    except CheckpointMismatch:
        pytest.skip("no repository has this detector")
    state = to_official(numbered(empty(wanted)), rules)
    model = wanted.model
    args: dict[str, Any] = {
        "nheads": 8,
        "num_queries": model.queries.count,
        "dilation": getattr(model.backbone, "dilate_last", False),
        "enc_scale": getattr(model.encoder, "high_levels", 0),
        "rho": getattr(model.encoder, "keep", 0.0),
    }
    if wanted.model.groups and type(wanted.model.groups[0]).__name__ == "HybridConfig":
        args |= {"num_queries_one2one": model.queries.count, "num_queries_one2many": 1500}
    found = recognise(state, args)
    assert_filled(state, found)
    assert found.recipe == wanted
    assert found.preset == name


@pytest.mark.parametrize(
    "name",
    [
        "dino-r50",
        "deformable-detr-r50",
        "deformable-detr-r50-refine",
        "deformable-detr-r50-two-stage",
        "deformable-detr-r50-single-scale",
        "h-detr-r50",
        "h-detr-swin-t",
        "detr-r50",
        "conditional-detr-r101",
    ],
)
def test_the_same_detectors_in_the_layout_of_detrex(name):
    wanted = recipe(name).with_model(classes=80)
    if name == "dino-r50":  # detrex has heads of their own for all layers
        group = replace(wanted.model.groups[0], spare_row=False)
        neck = recipe("focus-detr-r50").model.neck
        wanted = wanted.with_model(shared_heads=False, groups=(group,), neck=neck)
    state = to_official(numbered(empty(wanted)), rules_for(wanted, "detrex"))
    assert any(key.startswith("transformer.encoder.layers.0.ffns") for key in state)
    found = recognise(state, {"nheads": 8})
    assert_filled(state, found)
    assert found.family.layout == "IDEA-Research/detrex"
    assert found.recipe.model.backbone.frozen_stages == (0 if "swin" in name else 1)
    mine, theirs = found.recipe.model, wanted.model
    for part in ("dim", "classes", "neck", "encoder", "queries", "groups", "shared_heads"):
        assert getattr(mine, part) == getattr(theirs, part), part
    assert (
        replace(mine.decoder, look_twice=False) == replace(theirs.decoder, look_twice=False)
        if (hasattr(mine.decoder, "look_twice"))
        else mine.decoder == theirs.decoder
    )


def test_overrides_win_and_are_not_assumed():
    state = shaped("dino/dino_r50_4scale")
    found = recognise(state, overrides=["encoder.heads=4", "model.decoder.heads=16"])
    model = found.recipe.model
    assert (model.encoder.heads, model.encoder.points) == (4, 8)
    assert (model.decoder.heads, model.decoder.points) == (16, 2)
    assert found.assumed == ()
    assert_filled(state, found)


def test_impossible_heads_are_refused():
    state = shaped("dino/dino_r50_4scale")
    with pytest.raises(
        CheckpointMismatch, match="expected a multiple of 24 offsets in the encoder"
    ):
        recognise(state, overrides=["encoder.heads=3"])


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 16])
def test_heads_are_seen_in_offsets_that_were_trained_a_little(heads):
    offsets = Offsets(64, heads=heads, levels=3, points=4)
    bias = offsets.linear.bias.detach()
    bias = bias + 0.2 * torch.randn_like(bias)
    assert Facts({"bias": bias}).heads("encoder.heads", offsets="bias") == heads
    noise = Facts({"bias": torch.randn_like(bias)})
    assert noise.heads("encoder.heads", offsets="bias") == 8
    assert list(noise.assumed) == ["encoder.heads"]


def test_a_label_table_of_other_rows_is_left_out_with_a_reason():
    state = shaped("dino/dino_r50_4scale")
    for key in [key for key in state if "class_embed" in key]:
        state[key] = state[key][:4]
    found = recognise(state)
    assert found.recipe.model.classes == 4
    assert found.recipe.model.groups == ()
    dropped = assert_filled(state, found)
    assert list(dropped) == ["label_enc.weight"]


def test_heads_of_their_own_in_dino():
    state = shaped("dino/dino_r50_4scale")
    for layer in range(6):
        for kind in ("class_embed", "bbox_embed"):
            for key in [key for key in state if f"{kind}.{layer}." in key]:
                state[key] = state[key] + layer
    found = recognise(state)
    assert not found.recipe.model.shared_heads
    assert_filled(state, found)


def test_segmentation_models_are_refused():
    state = {"mask_head.lay1.weight": torch.zeros(1), "detr.class_embed.bias": torch.zeros(92)}
    with pytest.raises(CheckpointMismatch, match=r"this is a segmentation model \(mask_head\.lay1"):
        recognise(state)


@pytest.mark.parametrize(
    "keys",
    [
        ["model.0.conv.weight", "model.0.bn.weight", "model.22.dfl.conv.weight"],  # YOLO
        [
            "backbone.res_layers.0.blocks.0.branch2a.conv.weight",
            "encoder.fpn_blocks.0.conv1.conv.weight",
        ],
        ["backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.weight"],  # Mask R-CNN
        ["transformer.decoder.layers.0.sa_qcontent_proj.weight", "refpoint_embed.weight"],  # DAB
        ["conv1.weight", "layer1.0.conv1.weight"],  # a backbone alone
    ],
)
def test_other_families_are_refused_with_their_first_keys(keys):
    with pytest.raises(CheckpointMismatch, match="no detector of a family known here") as caught:
        recognise({key: torch.zeros(1) for key in keys})
    assert keys[0] in str(caught.value)


def test_other_backbones_and_depths_are_refused():
    state = shaped("dino/dino_r50_4scale")
    deep = {key: t for key, t in state.items() if ".layer3.5." not in key}
    with pytest.raises(CheckpointMismatch, match="got stages of 3, 4, 5, 3 blocks"):
        recognise(deep)
    other = {key.replace("backbone.0.body", "backbone.0.trunk"): t for key, t in state.items()}
    with pytest.raises(CheckpointMismatch, match="expected a ResNet or Swin backbone"):
        recognise(other)


def test_an_incomplete_checkpoint_is_refused():
    state = shaped("dino/dino_r50_4scale")
    del state["class_embed.0.weight"]
    with pytest.raises(CheckpointMismatch, match=r"expected a key like class_embed\.0\.weight"):
        recognise(state)


def test_blocks_of_an_encoder_without_narrow_layers_are_asked_for():
    state = shaped("lite_detr/lite_dino_r50_h3l1_6p1_x1")
    state = {
        key: t for key, t in state.items() if not any(n in key for n in ("r12.", "r22.", "m22."))
    }
    found = recognise(state)
    assert (found.recipe.model.encoder.blocks, found.recipe.model.encoder.low_hidden) == (3, None)
    assert any(why.startswith("encoder.blocks=3 is assumed") for why in found.assumed)
    assert_filled(state, found)
    one = recognise(state, {"num_expansion": 1}).recipe.model.encoder
    assert (one.blocks, one.high_updates) == (1, 6)
    two = recognise(state, overrides=["encoder.blocks=2", "encoder.high_updates=3"])
    assert_filled(state, two)


def test_uneven_blocks_are_refused():
    state = shaped("lite_detr/lite_dino_r50_h3l1_2p1_x3")
    keys = [key for key in state if ".layers.1." in key and any(n in key for n in ("12.", "22."))]
    moved = {
        key.replace(".layers.1.", ".layers.2.") if key in keys else key: t
        for key, t in state.items()
    }
    with pytest.raises(CheckpointMismatch, match=r"narrow feed-forward in \[2, 3, 5\]"):
        recognise(moved)
