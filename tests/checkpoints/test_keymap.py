"""Key maps are strict both ways: every key is used once, every parameter is filled once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leandetr.checkpoints.keymap import (
    Alias,
    Drop,
    Fuse,
    Implied,
    Rename,
    check_fits,
    fill,
    to_official,
    to_ours,
)
from leandetr.checkpoints.official import dino, lite_detr
from leandetr.errors import CheckpointMismatch
from leandetr.models.backbones import SwinConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.recipes import build, override
from tiny import shrink, tiny

RULES = (
    Rename("body.{i}.weight", "layers.{i}.weight"),
    Rename("body.{i}.bias", "layers.{i}.bias"),
    Alias("copy.{i}.{rest}", of="body.{i}.{rest}"),
    Drop("counter", "it counts"),
)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1)])


def official():
    """A state dict that fills `Small`, with copies and a counter."""
    state = {}
    for index, layer in enumerate(Small().layers):
        for name, value in layer.state_dict().items():
            state[f"body.{index}.{name}"] = state[f"copy.{index}.{name}"] = value
    return state | {"counter": torch.tensor(3)}


def test_a_whole_checkpoint_fills_the_model():
    model, state = Small(), official()
    assert fill(model, state, RULES) == {"counter": "it counts"}
    assert torch.equal(model.layers[0].weight, state["body.0.weight"])
    assert torch.equal(model.layers[1].bias, state["body.1.bias"])


def test_names_come_back_with_their_aliases():
    state = official()
    back = to_official(to_ours(state, RULES).state, RULES)
    del state["counter"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_key_that_no_rule_knows_is_left_over():
    state = official() | {"body.0.scale": torch.zeros(1), "head": torch.zeros(1)}
    with pytest.raises(
        CheckpointMismatch, match=r"2 official keys are not known: body\.0\.scale, h"
    ):
        fill(Small(), state, RULES)


def test_many_left_over_keys_are_counted():
    state = official() | {f"head.{i}": torch.zeros(1) for i in range(8)}
    with pytest.raises(CheckpointMismatch, match=r"8 official keys .*head\.4, and 3 more$"):
        to_ours(state, RULES)


def test_a_parameter_that_is_not_filled_is_named():
    state = official()
    del state["body.1.bias"], state["copy.1.bias"]
    with pytest.raises(CheckpointMismatch, match=r"differ; missing: layers\.1\.bias$"):
        fill(Small(), state, RULES)


def test_a_key_without_a_place_is_named():
    state = official() | {"body.2.weight": torch.zeros(1)}
    with pytest.raises(CheckpointMismatch, match=r"not in the model: layers\.2\.weight"):
        fill(Small(), state, RULES)


def test_another_shape_is_told():
    state = official() | {"body.0.weight": torch.zeros(3, 5), "copy.0.weight": torch.zeros(3, 5)}
    model = Small()
    before = model.layers[1].weight.clone()
    with pytest.raises(
        CheckpointMismatch, match=r"other shapes: layers\.0\.weight \(3, 5\) instead of \(3, 2\)"
    ):
        fill(model, state, RULES)
    assert torch.equal(model.layers[1].weight, before)  # nothing was loaded


def test_an_alias_that_differs_is_told():
    state = official() | {"copy.0.bias": torch.full((3,), 7.0)}
    with pytest.raises(CheckpointMismatch, match=r"copy\.0\.bias and body\.0\.bias differ"):
        fill(Small(), state, RULES)


def test_an_alias_of_nothing_is_told():
    state = official()
    del state["body.0.bias"]
    with pytest.raises(
        CheckpointMismatch, match=r"copy\.0\.bias repeats body\.0\.bias, which is not"
    ):
        to_ours(state, RULES)


def test_two_keys_for_one_parameter_are_told():
    rules = (*RULES, Rename("other.{i}.{p}", "layers.{i}.{p}"))
    state = official() | {"other.0.bias": torch.zeros(3)}
    with pytest.raises(
        CheckpointMismatch, match=r"two official keys fill layers\.0\.bias; one is oth"
    ):
        to_ours(state, rules)


def test_a_parameter_without_an_official_name_is_told():
    with pytest.raises(CheckpointMismatch, match=r"no official name for head\.weight"):
        to_official({"head.weight": torch.zeros(1)}, RULES)


def test_the_first_rule_that_matches_decides():
    rules = (Rename("a.{p}", "first.{p}"), Rename("{q}.b", "second.{q}"))
    assert to_ours({"a.b": torch.zeros(1)}, rules).state.keys() == {"first.b"}


def test_a_part_is_one_step_and_the_rest_is_any():
    one, all_ = Rename("a.{p}", "x.{p}"), Rename("a.{rest}", "y.{rest}")
    found = to_ours({"a.b": torch.zeros(1), "a.b.c": torch.zeros(1)}, (one, all_)).state
    assert found.keys() == {"x.b", "y.b.c"}


def test_dots_in_templates_are_dots():
    with pytest.raises(CheckpointMismatch):
        to_ours({"axb": torch.zeros(1)}, [Rename("a.b", "c")])


def test_fitting_checks_both_sides():
    check_fits({"a": torch.zeros(2)}, {"a": torch.ones(2)})
    with pytest.raises(CheckpointMismatch, match=r"missing: a; not in the model: b"):
        check_fits({"a": torch.zeros(2)}, {"b": torch.zeros(2)})


PARTS = (Fuse(("at.{i}.q.{p}", "at.{i}.k.{p}", "at.{i}.v.{p}"), "layers.{i}.inputs.{p}"),)


@given(rows=st.integers(1, 4), width=st.integers(1, 3), layers=st.integers(1, 3))
def test_parts_are_stacked_in_order_and_come_back_bit_for_bit(rows, width, layers):
    state = {
        f"at.{i}.{part}.{name}": torch.randn(rows, *shape)
        for i in range(layers)
        for part in "vkq"  # the file's order does not matter
        for name, shape in (("weight", (width,)), ("bias", ()))
    }
    ours = to_ours(state, PARTS).state
    assert set(ours) == {
        f"layers.{i}.inputs.{n}" for i in range(layers) for n in ("weight", "bias")
    }
    assert torch.equal(ours["layers.0.inputs.bias"][:rows], state["at.0.q.bias"])
    assert torch.equal(ours["layers.0.inputs.bias"][2 * rows :], state["at.0.v.bias"])
    back = to_official(ours, PARTS)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_part_that_is_missing_is_named():
    state = {"at.0.q.weight": torch.zeros(1), "at.0.v.weight": torch.zeros(1)}
    with pytest.raises(
        CheckpointMismatch,
        match=r"layers\.0\.inputs\.weight has 3 parts, missing: at\.0\.k\.weight",
    ):
        to_ours(state, PARTS)


def test_parts_of_different_shapes_are_told():
    state = {
        f"at.0.{part}.bias": torch.zeros(size) for part, size in (("q", 2), ("k", 2), ("v", 3))
    }
    with pytest.raises(CheckpointMismatch, match=r"differ in shape: \(2,\), \(2,\), \(3,\)"):
        to_ours(state, PARTS)


def test_a_whole_and_its_parts_cannot_both_be_there():
    state = {f"at.0.{part}.bias": torch.zeros(1) for part in "qkv"}
    rules = (*PARTS, Rename("at.{i}.qkv.{p}", "layers.{i}.inputs.{p}"))
    with pytest.raises(CheckpointMismatch, match=r"two official keys fill layers\.0\.inputs\.bias"):
        to_ours(state | {"at.0.qkv.bias": torch.zeros(3)}, rules)


def test_of_two_layouts_the_first_is_written():
    rules = (*PARTS, Rename("at.{i}.qkv.{p}", "layers.{i}.inputs.{p}"))
    whole = {"at.0.qkv.bias": torch.arange(6.0)}
    named = to_official(to_ours(whole, rules).state, rules)
    assert list(named) == ["at.0.q.bias", "at.0.k.bias", "at.0.v.bias"]
    assert named["at.0.k.bias"].tolist() == [2.0, 3.0]


HOMES = (
    Implied("top.{i}.{p}", of="inner.{i}.{p}"),
    Implied("top.1.{p}", of="top.0.{p}"),
    Rename("top.{i}.{p}", "heads.{i}.{p}"),
    Alias("inner.{i}.{p}", of="top.{i}.{p}"),
)


@pytest.mark.parametrize(
    ("stored", "filled"),
    [
        ({"top.0.bias": 1.0, "top.1.bias": 2.0}, (1.0, 2.0)),
        ({"inner.0.bias": 1.0, "inner.1.bias": 2.0}, (1.0, 2.0)),
        ({"top.0.bias": 1.0, "inner.1.bias": 2.0}, (1.0, 2.0)),
        ({"top.0.bias": 1.0}, (1.0, 1.0)),
        ({"inner.0.bias": 1.0, "top.0.bias": 1.0, "top.1.bias": 2.0}, (1.0, 2.0)),
    ],
)
def test_a_key_that_was_left_out_is_put_back(stored, filled):
    state = {key: torch.tensor([value]) for key, value in stored.items()}
    ours = to_ours(state, HOMES).state
    assert [ours[f"heads.{i}.bias"].item() for i in (0, 1)] == list(filled)
    assert state.keys() == stored.keys()  # the given one is left alone
    assert to_ours(to_official(ours, HOMES), HOMES).state == ours


def test_what_is_put_back_must_agree_with_what_is_there():
    state = {"inner.0.bias": torch.ones(1), "top.0.bias": torch.zeros(1)}
    with pytest.raises(CheckpointMismatch, match=r"inner\.0\.bias and top\.0\.bias differ"):
        to_ours(state, HOMES)


word = st.text("abc", min_size=1, max_size=3)


@given(keys=st.sets(st.tuples(word, word), max_size=5))
def test_renaming_loses_nothing(keys):
    rules = [Rename("{a}.{b}", "x.{b}.{a}")]
    state = {f"{a}.{b}": torch.tensor(i) for i, (a, b) in enumerate(sorted(keys))}
    assert to_official(to_ours(state, rules).state, rules) == state


LITE_WAYS = {
    "key-aware": {},
    "own-key": {"own_key": True},
    "plain": {"key_aware": False},
    "even": {"low_hidden": None},
    "deep": {"high_updates": 3},
}


def lite(**ways):
    return LiteEncoderConfig(
        high_levels=2, blocks=2, heads=2, points=2, hidden=32, **{"low_hidden": 16} | ways
    )


def recipes():
    """Detectors whose official names differ in form."""
    small = tiny().model
    swin = SwinConfig(drop_path=0.0)
    yield pytest.param(dino.rules, tiny(), id="dino")
    yield pytest.param(dino.rules, tiny(shared_heads=False), id="dino-own-heads")
    yield pytest.param(dino.rules, tiny(neck=ChannelMapperConfig(levels=5)), id="dino-5-levels")
    yield pytest.param(dino.rules, tiny(backbone=swin), id="dino-swin")
    yield pytest.param(
        dino.rules, override(tiny(), ["backbone=resnet", "backbone.depth=18"]), id="dino-resnet"
    )
    for name, ways in LITE_WAYS.items():
        decoder = shrink(small.decoder, key_aware=name in ("key-aware", "even"))
        recipe = tiny("lite-dino-nano", lite(**ways), decoder=decoder)
        yield pytest.param(lite_detr.rules, recipe, id=f"lite-{name}")


@pytest.mark.parametrize(("rules_of", "recipe"), list(recipes()))
def test_detectors_go_to_official_names_and_back_bit_for_bit(rules_of, recipe):
    model, rules = build(recipe), rules_of(recipe)
    ours = model.state_dict()
    named = to_official(ours, rules)
    assert all(not key.startswith(("neck", "heads", "queries", "proposals")) for key in named)
    other = build(recipe)
    assert fill(other, named, rules) == {}
    state = other.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[key], ours[key]) for key in ours)


@pytest.mark.parametrize(("rules_of", "recipe"), list(recipes())[::5])
def test_a_missing_key_is_noticed_unless_it_is_a_copy(rules_of, recipe):
    model, rules = build(recipe), rules_of(recipe)
    named = to_official(model.state_dict(), rules)
    for key in list(named)[:: len(named) // 4]:
        lacking = {name: value for name, value in named.items() if name != key}
        if is_copy(key, rules):
            fill(model, lacking, rules)
        else:
            with pytest.raises(CheckpointMismatch):
                fill(model, lacking, rules)


def is_copy(key, rules):
    """A copy alone has nothing to repeat."""
    try:
        to_ours({key: torch.zeros(1)}, rules)
    except CheckpointMismatch as error:
        return "repeats" in str(error)
    return False


def test_shared_heads_are_stored_once_a_layer_and_again_at_the_top():
    recipe = tiny()
    named = to_official(build(recipe).state_dict(), dino.rules(recipe))
    heads = sorted(key for key in named if "class_embed" in key and key.endswith("weight"))
    assert heads == [
        "class_embed.0.weight",
        "class_embed.1.weight",
        "transformer.decoder.class_embed.0.weight",
        "transformer.decoder.class_embed.1.weight",
        "transformer.enc_out_class_embed.weight",
    ]
    assert torch.equal(
        named["class_embed.1.weight"], named["transformer.decoder.class_embed.0.weight"]
    )


def test_separate_heads_in_a_checkpoint_do_not_pass_as_shared():
    own, shared = tiny(shared_heads=False), tiny()
    named = to_official(build(own).state_dict(), dino.rules(own))
    with pytest.raises(CheckpointMismatch, match=r"type --set model\.shared_heads=false"):
        fill(build(shared), named, dino.rules(shared))


def test_a_query_projection_that_was_never_asked_is_dropped_with_its_reason():
    recipe = tiny("lite-dino-nano", lite(key_aware=False))
    rules = lite_detr.rules(recipe)
    model = build(recipe)
    named = to_official(model.state_dict(), rules)
    key = "transformer.encoder.layers.0.self_attn.query_proj.weight"
    dropped = fill(model, named | {key: torch.zeros(1)}, rules)
    assert dropped == {key: lite_detr.NEVER_ASKED}
