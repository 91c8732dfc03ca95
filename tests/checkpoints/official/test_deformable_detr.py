"""Keys of Deformable DETR, H-DETR and their Lite variants: all forms of the same layout."""

import pytest
import torch

from leandetr.checkpoints.keymap import fill, to_official
from leandetr.checkpoints.official import deformable_detr, h_detr
from leandetr.errors import CheckpointMismatch
from leandetr.recipes import build, list_models
from tiny import tiny

PRESETS = sorted(
    {
        *list_models("deformable-detr-*"),
        *list_models("h-detr-*"),
        *list_models("lite-deformable-*"),
        *list_models("lite-h-detr-*"),
    }
)
UNDER = "transformer.decoder."


def named(recipe):
    """Our state dict, the official one, and the key map."""
    rules = (h_detr if recipe.model.groups else deformable_detr).rules(recipe)
    ours = build(recipe).state_dict()
    return ours, to_official(ours, rules), rules


def numbers(keys, start):
    """Which heads there are below a prefix."""
    return {int(key.removeprefix(start).split(".")[0]) for key in keys if key.startswith(start)}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_goes_out_and_comes_back_bit_for_bit(preset):
    recipe = tiny(preset)
    ours, official, rules = named(recipe)
    again = build(recipe)
    assert fill(again, official, rules) == {}
    assert all(torch.equal(value, ours[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("preset", "shared", "below"),
    [
        ("deformable-detr-r50", True, {}),
        ("deformable-detr-r50-refine", False, {"bbox_embed"}),
        ("deformable-detr-r50-two-stage", False, {"bbox_embed", "class_embed"}),
        ("h-detr-r50", False, {"bbox_embed", "class_embed"}),
    ],
)
def test_heads_are_numbered_by_layer_with_the_proposals_last(preset, shared, below):
    recipe = tiny(preset)
    _, official, _ = named(recipe)
    expected = {0, 1, 2} if "class_embed" in below else {0, 1}
    for kind in ("class_embed", "bbox_embed"):
        assert numbers(official, f"{kind}.") == expected
        assert numbers(official, f"{UNDER}{kind}.") == (expected if kind in below else set())
    last = [official[f"bbox_embed.{number}.layers.0.weight"] for number in (0, 1)]
    assert torch.equal(*last) is shared


def test_the_queries_of_both_groups_are_one_table():
    recipe = tiny("h-detr-r50")
    _, official, _ = named(recipe)
    rows = recipe.model.queries.count + recipe.model.queries.spare
    assert official["query_embed.weight"].shape == (rows, recipe.model.dim)
    _, official, _ = named(tiny("h-detr-r50-plain"))
    assert "query_embed.weight" not in official


def test_a_lite_encoder_brings_its_keys_and_those_of_the_decoder():
    _, official, _ = named(tiny("lite-h-detr-r50-h3l1-2p1x3"))
    asking = "cross_attn.query_proj.weight", "cross_attn.attention_weights.weight"
    assert [f"transformer.decoder.layers.0.{key}" in official for key in asking] == [True, False]
    full = "transformer.encoder.layers.1"
    assert f"{full}.linear12.weight" in official
    assert f"{full}.self_attn.query_proj.weight" in official


def test_projections_are_numbered_whatever_the_levels():
    _, official, _ = named(tiny("deformable-detr-r50-single-scale"))
    assert numbers(official, "input_proj.") == {0}
    _, official, _ = named(tiny("deformable-detr-r50"))
    assert numbers(official, "input_proj.") == {0, 1, 2}


def test_a_head_that_differs_from_the_shared_one_is_refused():
    recipe = tiny("deformable-detr-r50")
    _, official, rules = named(recipe)
    official["bbox_embed.1.layers.0.weight"] = official["bbox_embed.1.layers.0.weight"] + 1
    with pytest.raises(CheckpointMismatch, match=r"type --set model\.shared_heads=false"):
        fill(build(recipe), official, rules)


def test_a_key_too_many_and_one_too_few_are_refused():
    recipe = tiny("deformable-detr-r50-two-stage")
    _, official, rules = named(recipe)
    with pytest.raises(CheckpointMismatch, match=r"not known: transformer\.surprise"):
        fill(build(recipe), official | {"transformer.surprise": torch.zeros(1)}, rules)
    official.pop("transformer.pos_trans_norm.bias")
    with pytest.raises(CheckpointMismatch, match=r"missing: queries\.describe\.embed\.norm\.bias"):
        fill(build(recipe), official, rules)


def test_encoders_of_other_layouts_are_refused():
    with pytest.raises(CheckpointMismatch, match=r"expected the encoder 'deformable', .*got Focus"):
        deformable_detr.rules(tiny("deformable-detr-r50", "focus"))
