"""Detectors saved by Hugging Face transformers: config.json tells what they are, else the keys."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from leandetr.checkpoints.families.backbone import DILATION, backbone
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.deformable import COUNT
from leandetr.checkpoints.families.encoders import points
from leandetr.checkpoints.families.facts import Facts, Names
from leandetr.checkpoints.official import (
    transformers_conditional_detr,
    transformers_deformable_detr,
    transformers_detr,
)
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.recipes.recipe import Recipe

LAYOUT = "huggingface/transformers"
NAMES = Names(backbone="model.backbone.conv_encoder.model")
ENCODER, DECODER = "model.encoder.layers", "model.decoder.layers"
OFFSETS = {
    "encoder": f"{ENCODER}.0.self_attn.sampling_offsets",
    "decoder": f"{DECODER}.0.encoder_attn.sampling_offsets",
}


def is_deformable(facts: Facts) -> bool:
    """Attention that samples."""
    return facts.has("model.level_embed", f"{OFFSETS['decoder']}.weight")


def is_conditional(facts: Facts) -> bool:
    """Content and position projected apart."""
    return facts.has(f"{DECODER}.0.ca_qpos_sine_proj.weight", "class_labels_classifier.weight")


def is_detr(facts: Facts) -> bool:
    """Dense attention with three projections."""
    return facts.has(f"{DECODER}.0.encoder_attn.q_proj.weight", "class_labels_classifier.weight")


def deformable_config(facts: Facts) -> dict[str, Any]:
    """What config.json would say of a Deformable DETR."""
    levels, dim = facts.shape("model.level_embed")
    classes = facts.rows("class_embed.{i}.weight", "model.decoder.class_embed.{i}.weight")
    two_stage = facts.has("model.enc_output.weight")
    config = _config(facts, "deformable_detr", classes, dilates=levels == 1)
    heads = {stack: config[f"{stack}_attention_heads"] for stack in OFFSETS}
    config |= {
        f"{stack}_n_points": points(facts.rows(f"{offsets}.weight"), heads[stack], levels, stack)
        for stack, offsets in OFFSETS.items()
    }
    if two_stage:
        config["two_stage_num_proposals"] = facts.asked(
            "queries.count", "two_stage_num_proposals", 300, COUNT
        )
    return config | {
        "d_model": dim,
        "num_feature_levels": levels,
        "two_stage": two_stage,
        "with_box_refine": facts.has("model.decoder.bbox_embed.{i}.layers.0.weight"),
    }


def dense_config(facts: Facts) -> dict[str, Any]:
    """What config.json would say of a DETR or a Conditional DETR."""
    rows, dim = facts.shape("class_labels_classifier.weight")
    conditional = is_conditional(facts)
    kind, classes = ("conditional_detr", rows) if conditional else ("detr", rows - 1)
    return _config(facts, kind, classes, dilates=True) | {"d_model": dim}


def _config(facts: Facts, kind: str, classes: int, *, dilates: bool) -> dict[str, Any]:
    """What all their configs have; with `dilates` the backbone is one that may."""
    resnet = backbone(facts.under(NAMES), ResNetConfig())
    config = {
        "model_type": kind,
        "backbone": resnet.architecture,
        "id2label": {str(index): f"LABEL_{index}" for index in range(classes)},
        "dilation": dilates and facts.asked("backbone.dilate_last", "dilation", False, DILATION),
    }
    for stack, at in (("encoder", ENCODER), ("decoder", DECODER)):
        bias = OFFSETS[stack] + ".bias"
        config[f"{stack}_layers"] = facts.count(f"{at}.{{i}}.fc1.weight")
        config[f"{stack}_ffn_dim"] = facts.rows(f"{at}.0.fc1.weight")
        config[f"{stack}_attention_heads"] = facts.heads(f"{stack}.heads", offsets=bias)
    if facts.has("model.query_position_embeddings.weight"):
        config["num_queries"] = facts.rows("model.query_position_embeddings.weight")
    return config


def _family(
    name: str,
    module: ModuleType,
    fits: Callable[[Facts], bool],
    config: Callable[[Facts], dict[str, Any]],
) -> Family:
    """A family that asks the config if there is one, and makes one of the keys if not."""

    def looks_like(facts: Facts) -> bool:
        if "model_type" in facts.args:
            return module.looks_like(facts.args)
        return fits(facts)

    def recipe(facts: Facts) -> Recipe:
        return module.recipe(facts.args if "model_type" in facts.args else config(facts))

    return Family(name, LAYOUT, looks_like, recipe, module.rules)


FAMILIES = (
    _family("Deformable DETR", transformers_deformable_detr, is_deformable, deformable_config),
    _family("Conditional DETR", transformers_conditional_detr, is_conditional, dense_config),
    _family("DETR", transformers_detr, is_detr, dense_config),
)
