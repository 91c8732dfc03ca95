"""Recipes in other forms, and changes by path."""

import contextlib
import dataclasses

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leandetr.errors import LeanDetrError, RecipeError
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.recipes import (
    build,
    dump_yaml,
    from_dict,
    list_models,
    load_yaml,
    override,
    recipe,
    to_dict,
)
from leandetr.recipes.codec import paths
from tiny import tiny


def changed(*changes, name="dino-nano"):
    return override(recipe(name), changes)


@pytest.mark.parametrize("name", list_models())
def test_presets_come_back_from_dicts_and_yaml(name):
    preset = recipe(name)
    assert from_dict(to_dict(preset)) == preset
    assert load_yaml(dump_yaml(preset)) == preset
    plain = to_dict(preset)
    assert yaml.safe_load(dump_yaml(preset)) == plain
    assert to_dict(from_dict(plain)) == plain


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2000),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-1, 3), max_size=3),
    st.just({}),
    st.just({"type": "lite"}),
)


PATHS = paths(tiny("lite-dino-nano"))


def test_paths_are_what_changes_take():
    assert {"name", "model.encoder", "model.encoder.hidden", "train.criterion.alpha"} <= set(PATHS)
    found = to_dict(tiny("lite-dino-nano"))
    for path in PATHS:
        value = found
        for step in path.split("."):
            value = value[step]


@settings(max_examples=200)
@given(path=st.sampled_from(PATHS), value=scalars)
def test_any_value_anywhere_is_taken_or_refused_in_words(path, value):
    """Nothing but our own errors, whatever is typed; what is taken comes back."""
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    with contextlib.suppress(LeanDetrError):
        found = override(tiny("lite-dino-nano"), [f"{path}={text}"])
        assert from_dict(to_dict(found)) == found


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("model.")])
def test_whatever_is_taken_builds_or_says_what_does(path):
    for value in (-1, 0, 1, 3, 0.5, "[]", "[1]", "[2, 1]", "none"):
        with contextlib.suppress(LeanDetrError), torch.device("meta"):
            build(override(tiny("lite-dino-nano"), [f"{path}={value}"]))


def test_values_keep_their_types():
    found = changed("train.epochs=3", "train.lr=1e-4", "train.weight_decay=1", "name=mine").train
    assert (found.epochs, found.lr, found.weight_decay) == (3, 1e-4, 1.0)
    assert isinstance(found.weight_decay, float)
    assert changed("name=mine").name == "mine"
    assert changed("shared_heads=false").model.shared_heads is False


def test_nested_paths_and_the_short_way_to_a_part():
    assert changed("encoder.hidden=64").model.encoder.hidden == 64
    assert changed("model.encoder.hidden=64") == changed("encoder.hidden=64")
    assert changed("train.criterion.giou_weight=3").train.criterion.giou_weight == 3.0
    assert changed("preprocess.short=100").preprocess.short == 100
    assert changed("dim=64").model.dim == 64


def test_later_changes_win():
    assert changed("train.epochs=3", "train.epochs=5").train.epochs == 5


def test_lists_are_whole():
    assert changed("backbone.widths=[8, 8, 16, 16]").model.backbone.widths == (8, 8, 16, 16)
    assert changed("train.drops=[]").train.drops == ()
    factors = changed("train.lr_factors=[{prefix: backbone, factor: 0.5}]").train.lr_factors
    assert [(factor.prefix, factor.factor) for factor in factors] == [("backbone", 0.5)]


@pytest.mark.parametrize("nothing", ["null", "none", "None", "~", ""])
def test_nothing_can_be_typed_where_it_is_allowed(nothing):
    assert changed(f"train.ema={nothing}").train.ema is None


def test_a_part_exchanged_by_name_keeps_what_it_shares_with_the_one_before():
    before = recipe("dino-nano").model.encoder
    shared = {"heads": before.heads, "points": before.points, "hidden": before.hidden}
    assert shared["hidden"] != LiteEncoderConfig().hidden
    found = changed("encoder=lite").model.encoder
    assert found == LiteEncoderConfig(**shared)
    both = changed("encoder=lite", "encoder.blocks=2").model.encoder
    assert both == LiteEncoderConfig(**shared, blocks=2)
    assert changed("encoder.type=lite", "encoder.blocks=2").model.encoder == both
    assert changed("encoder=deformable").model.encoder == before
    assert type(changed("train.augment=plain").train.augment).__name__ == "PlainAugment"


def test_a_part_written_as_a_mapping_has_its_own_defaults():
    found = changed("encoder={type: lite, blocks: 2}").model.encoder
    assert found == LiteEncoderConfig(blocks=2)
    assert recipe("dino-nano").model.encoder != DeformableEncoderConfig()
    assert changed("encoder={type: deformable}").model.encoder == DeformableEncoderConfig()


def test_groups_are_a_list_of_parts():
    assert changed("groups=[]").model.groups == ()
    (group,) = changed("groups=[{type: denoising, budget: 7}]").model.groups
    assert group.budget == 7
    (plain,) = changed("groups=[denoising]").model.groups
    assert plain == dataclasses.replace(plain)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("train.epoch=3", r"no setting 'train\.epoch'; did you mean train\.epochs"),
        ("encoder.widht=3", r"no setting 'encoder\.widht'; .*encoder\."),
        ("lr=3", r"no setting 'lr'; did you mean train\.lr\?"),
        ("encoder.hidden.deep=3", r"no setting 'encoder\.hidden\.deep'"),
        ("", "expected path=value, such as train.epochs=3; got ''"),
        ("train.epochs", "expected path=value, such as train.epochs=3; got 'train.epochs'"),
        ("=3", "no setting ''"),
        ("train.epochs=three", r"train\.epochs: expected int, got 'three'"),
        ("train.epochs=3.5", r"train\.epochs: expected int, got 3\.5"),
        ("train.epochs=true", r"train\.epochs: expected int, got True"),
        ("train.epochs=null", r"train\.epochs: expected int, got None"),
        ("train.lr=fast", r"train\.lr: expected float, got 'fast'"),
        ("train.lr=.nan", r"train\.lr: expected float, got nan"),
        ("train.lr=inf", r"train\.lr: expected float, got 'inf'"),
        ("encoder.dropout=2", r"encoder\.dropout from 0 to 1; got 2\.0"),
        ("neck.temperature=0", r"neck\.temperature above 0; got 0\.0"),
        ("groups=[{type: denoising, box_noise: -1}]", r"denoising\.box_noise from 0 to 1; got -1"),
        ("train.lr=true", r"train\.lr: expected float, got True"),
        ("shared_heads=1", r"shared_heads: expected bool, got 1"),
        ("name=5", "name: expected str, got 5"),
        ("backbone.widths=8", r"backbone\.widths: expected a list such as \[1, 2\], got 8"),
        ("backbone.widths=[8, x]", r"backbone\.widths\[1\]: expected int, got 'x'"),
        ("encoder=light", r"no encoder 'light'; did you mean lite\?"),
        ("encoder=3", r"encoder: expected the name of a encoder under 'type', got 3; known: d"),
        ("encoder={type: lite, block: 2}", r"encoder: no field 'block'; did you mean blocks"),
        ("groups=denoising", r"groups: expected a list"),
        ("groups=[5]", r"groups\[0\]: expected the name of a training group"),
        ("train.criterion=3", r"train\.criterion: expected a mapping, got 3"),
        ("train.lr_factors=[{prefix: b}]", r"train\.lr_factors\[0\]: expected also factor"),
        ("train.epochs=[", "cannot read the value of 'train.epochs=\\['; quote it"),
        ("train.epochs=0", r"train\.epochs of at least 1; got 0"),
        ("train.workers=-1", r"train\.workers of at least 0; got -1"),
        ("train.clip=-0.1", r"train\.clip of at least 0; got -0\.1"),
        ("train.lr=-1.0", r"train\.lr of at least 0; got -1"),
        ("train.schedule=linear", r"train\.schedule of steps, cosine; got 'linear'"),
        ("train.ema=2", "ema between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(change, says):
    with pytest.raises(RecipeError, match=says):
        changed(change)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{unclosed", "expected a recipe in YAML"),
        ("- 1", r"recipe: expected a mapping, got \[1\]"),
        ("", "recipe: expected a mapping, got None"),
        ("name: x", "recipe: expected also model"),
        ("name: x\nmodel: {}", "model: expected also backbone, neck, encoder, queries, decoder$"),
        ("name: x\nmodle: {}", r"recipe: no field 'modle'; did you mean model\?"),
        ("1: 2", "recipe: no field '1'"),
        ("name: x\nmodel: {backbone: {depth: 50}}", "model"),
    ],
)
def test_yaml_that_is_no_recipe_is_told(text, says):
    with pytest.raises(RecipeError, match=says):
        load_yaml(text)


def test_left_out_settings_have_their_defaults():
    values = to_dict(recipe("dino-nano"))
    values["model"]["encoder"] = {"type": "deformable"}
    del values["train"]
    found = from_dict(values)
    assert found.model.encoder == DeformableEncoderConfig()
    assert found.train == type(found.train)()


def test_changes_leave_the_recipe_alone():
    preset = recipe("dino-nano")
    override(preset, ["encoder.hidden=64", "encoder=lite"])
    assert preset == recipe("dino-nano")
