"""Configs of transformers become recipes, and its names ours, without transformers itself."""

from dataclasses import replace

import pytest
import torch

from leandetr.checkpoints.keymap import fill, to_official, to_ours
from leandetr.checkpoints.official import (
    transformers_conditional_detr,
    transformers_deformable_detr,
    transformers_detr,
)
from leandetr.checkpoints.official.transformers_layout import COUNTER, class_names
from leandetr.errors import CheckpointMismatch
from leandetr.recipes import build, recipe

DETR = {"model_type": "detr", "backbone": "resnet50", "use_timm_backbone": True}
"""As published models say it, who leave the rest to its default."""
CONDITIONAL = DETR | {"model_type": "conditional_detr"}
DEFORMABLE = DETR | {"model_type": "deformable_detr"}
LABELS = {"id2label": {str(index): f"kind {index}" for index in range(91)}}
TWO_STAGE = {"with_box_refine": True, "two_stage": True}

MODULES = {
    "detr": transformers_detr,
    "conditional_detr": transformers_conditional_detr,
    "deformable_detr": transformers_deformable_detr,
}

PUBLISHED = [
    pytest.param(DETR, "detr-r50", id="detr"),
    pytest.param(DETR | {"dilation": True}, "detr-r50-dc5", id="detr-dc5"),
    pytest.param(DETR | {"backbone": "resnet101"}, "detr-r101", id="detr-r101"),
    pytest.param(CONDITIONAL, "conditional-detr-r50", id="conditional"),
    pytest.param(DEFORMABLE, "deformable-detr-r50", id="deformable"),
    pytest.param(DEFORMABLE | {"with_box_refine": True}, "deformable-detr-r50-refine", id="refine"),
    pytest.param(DEFORMABLE | TWO_STAGE, "deformable-detr-r50-two-stage", id="two-stage"),
    pytest.param(
        DEFORMABLE | {"num_feature_levels": 1}, "deformable-detr-r50-single-scale", id="one-level"
    ),
    pytest.param(
        DEFORMABLE | {"num_feature_levels": 1, "dilation": True},
        "deformable-detr-r50-single-scale-dc5",
        id="one-level-dc5",
    ),
]

RESNET = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
    "out_features": ["stage4"],
}
SMALL = {
    "backbone_config": RESNET,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 24,
    "num_queries": 5,
    "two_stage_num_proposals": 7,
    "num_feature_levels": 2,
    "id2label": {0: "cat", 1: "dog", 2: "tree"},
}
KINDS = [
    pytest.param(config | SMALL, id=name)
    for name, config in {
        "detr": DETR,
        "conditional": CONDITIONAL,
        "plain": DEFORMABLE,
        "refine": DEFORMABLE | {"with_box_refine": True},
        "two-stage": DEFORMABLE | TWO_STAGE,
        "untied": DEFORMABLE | {"tie_word_embeddings": False},
    }.items()
]


def module_of(config):
    """The module that knows this config; no other takes it for its own."""
    fitting = [module for module in MODULES.values() if module.looks_like(config)]
    assert fitting == [MODULES[config["model_type"]]]
    return fitting[0]


def renamed(state, *pairs):
    """A state dict with parts of its names exchanged."""
    named = {}
    for key, value in state.items():
        for old, new in pairs:
            key = key.replace(old, new)  # noqa: PLW2901
        named[key] = value
    return named


@pytest.mark.parametrize(("config", "preset"), PUBLISHED)
def test_published_configs_are_our_presets(config, preset):
    found = module_of(config).recipe(config | LABELS).model
    wanted = recipe(preset).model
    assert found == replace(wanted, backbone=replace(wanted.backbone, weights=None))


@pytest.mark.parametrize("config", KINDS)
def test_every_size_of_a_config_is_taken(config):
    model = module_of(config).recipe(config).model
    assert (model.dim, model.classes, model.neck.levels) in {(64, 3, 1), (64, 3, 2)}
    assert (model.encoder.layers, model.encoder.heads, model.encoder.hidden) == (2, 2, 16)
    assert (model.decoder.layers, model.decoder.heads, model.decoder.hidden) == (3, 4, 24)
    assert model.queries.count == (7 if config.get("two_stage") else 5)
    assert (model.backbone.depth, model.backbone.outputs) == (18, (3,))


@pytest.mark.parametrize("config", KINDS)
def test_weights_go_there_and_back_bit_for_bit(config):
    module = module_of(config)
    chosen = module.recipe(config)
    rules, ours = module.rules(chosen), build(chosen).state_dict()
    there = to_official(ours, rules)
    assert all(key.startswith(("model.", "class_", "bbox_")) for key in there)
    assert not any(".mlp." in key or "o_proj" in key for key in there)  # as on disk
    back = build(chosen)
    assert fill(back, there, rules) == {}
    assert all(torch.equal(value, ours[name]) for name, value in back.state_dict().items())


@pytest.mark.parametrize("config", KINDS)
def test_names_of_timm_and_of_older_norms_are_read(config):
    module = module_of(config)
    chosen = module.recipe(config)
    ours = build(chosen).state_dict()
    there = {
        key: value
        for key, value in to_official(ours, module.rules(chosen)).items()
        if "backbone" not in key
    }
    at = "model.backbone.conv_encoder.model"
    there |= {
        f"{at}.{key.removeprefix('backbone.')}": value
        for key, value in ours.items()
        if key.startswith("backbone.")
    }
    counter = f"{at}.layer1.0.bn1.num_batches_tracked"
    converted = to_ours(there | {counter: torch.tensor(3)}, module.rules(chosen))
    assert converted.dropped == {counter: COUNTER}
    assert all(torch.equal(converted.state[name], value) for name, value in ours.items())
    assert converted.state.keys() == ours.keys()


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("refine", "bbox_embed."),
        ("refine", "model.decoder.bbox_embed."),
        ("two-stage", "class_embed."),
        ("two-stage", "model.decoder.class_embed."),
        ("two-stage", "model.decoder.bbox_embed.2."),
    ],
)
def test_either_copy_of_a_head_may_be_left_out(kind, left_out):
    config = next(item.values[0] for item in KINDS if item.id == kind)
    module = transformers_deformable_detr
    chosen = module.recipe(config)
    rules, ours = module.rules(chosen), build(chosen).state_dict()
    there = to_official(ours, rules)
    fewer = {key: value for key, value in there.items() if not key.startswith(left_out)}
    assert len(fewer) < len(there)
    state = to_ours(fewer, rules).state
    assert all(torch.equal(state[name], value) for name, value in ours.items())


def test_a_head_without_any_copy_is_missed():
    config = next(item.values[0] for item in KINDS if item.id == "two-stage")
    chosen = transformers_deformable_detr.recipe(config)
    rules, model = transformers_deformable_detr.rules(chosen), build(chosen)
    there = to_official(model.state_dict(), rules)
    fewer = {key: value for key, value in there.items() if "class_embed.1." not in key}
    with pytest.raises(CheckpointMismatch, match=r"missing: heads\.classes\.1\.weight"):
        fill(model, fewer, rules)


def test_a_class_head_stored_once_serves_all_layers():
    config = next(item.values[0] for item in KINDS if item.id == "refine")
    chosen = transformers_deformable_detr.recipe(config)
    rules, model = transformers_deformable_detr.rules(chosen), build(chosen)
    there = to_official(model.state_dict(), rules)
    once = {
        key: value
        for key, value in there.items()
        if not key.startswith(("class_embed.1.", "class_embed.2."))
    }
    fill(model, once, rules)
    first, _, last = model.heads.classes
    assert torch.equal(last.weight, there["class_embed.0.weight"])
    assert torch.equal(last.bias, first.bias)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({"0": "LABEL_0", "1": "LABEL_1"}, ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_class_names_are_those_of_the_config(labels, names):
    assert class_names({"id2label": labels}) == names


def test_a_config_without_labels_has_two_classes():
    assert transformers_detr.recipe(DETR).model.classes == 2


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            DETR | {"position_embedding_type": "learned"},
            "position_embedding_type='sine'.*'learned'",
        ),
        (DEFORMABLE | {"activation_function": "gelu"}, "activation_function='relu'"),
        (DETR | {"auxiliary_loss": True}, "auxiliary_loss=true.* set it to false"),
        (CONDITIONAL | {"auxiliary_loss": True}, "auxiliary_loss=true.* set it to false"),
        (DETR | {"backbone": "swin_tiny"}, "got swin_tiny"),
        (DETR | {"backbone": "resnet152"}, "got resnet152"),
        (DETR | {"backbone_config": {"model_type": "swin"}}, "backbone of resnet18, .* got swin"),
        (
            DETR | {"backbone_config": {"model_type": "swin"}, "backbone": None},
            "backbone of resnet18, .* got swin",
        ),
        (
            DETR | {"backbone_config": RESNET | {"depths": [1, 1, 1, 1]}},
            r"got one of \(1, 1, 1, 1\)",
        ),
        (
            DETR | {"backbone_config": RESNET | {"downsample_in_first_stage": True}},
            "downsample_in_first_stage=False",
        ),
        (DEFORMABLE | {"d_model": 32}, "d_model of at least 64"),
        (
            DEFORMABLE
            | {"backbone_config": RESNET | {"out_features": ["stage3", "stage4"]}}
            | {"num_feature_levels": 1},
            "at most 1 maps of the backbone",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(config, complaint):
    with pytest.raises(CheckpointMismatch, match=complaint):
        module_of(config).recipe(config | LABELS)


def test_dilation_of_timm_may_be_told_by_its_stride():
    inner = {"model_type": "timm_backbone", "backbone": "resnet50.a1_in1k", "output_stride": 16}
    found = transformers_detr.recipe({"model_type": "detr", "backbone_config": inner})
    assert found.model.backbone.dilate_last
