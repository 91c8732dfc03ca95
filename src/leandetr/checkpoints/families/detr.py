"""DETR and Conditional DETR: one level, dense attention."""

from dataclasses import replace

from leandetr.checkpoints.families.backbone import backbone, dilated, with_maps
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.facts import Facts
from leandetr.checkpoints.official import conditional_detr, detr
from leandetr.recipes.conditional_detr import conditional_detr_r50
from leandetr.recipes.detr import detr_r50
from leandetr.recipes.recipe import Recipe

ENCODER, DECODER = "transformer.encoder.layers", "transformer.decoder.layers"


POINT = "transformer.decoder.ref_point_head.layers.1.weight"


def is_detr(facts: Facts) -> bool:
    """Dense cross-attention with fused projections, and learned queries."""
    return facts.has(f"{DECODER}.0.multihead_attn.in_proj_weight", "query_embed.weight")


def is_conditional(facts: Facts) -> bool:
    """Content and position projected apart, and reference points of two numbers."""
    position = f"{DECODER}.0.ca_qpos_sine_proj.weight"
    return facts.has(position, "query_embed.weight", POINT) and facts.rows(POINT) == 2


def detr_recipe(facts: Facts) -> Recipe:
    """The last class is the background; pre-norm encoders end in a norm."""
    base = dense_recipe(facts, detr_r50())
    pre_norm = facts.has("transformer.encoder.norm.weight")
    model = base.model
    return base.with_model(
        classes=model.classes - 1,
        encoder=replace(model.encoder, pre_norm=pre_norm),
        decoder=replace(model.decoder, pre_norm=pre_norm),
        top=model.queries.count,
    )


def conditional_recipe(facts: Facts) -> Recipe:
    """As DETR, but every class has a score of its own and there is no background."""
    return dense_recipe(facts, conditional_detr_r50())


def dense_recipe(facts: Facts, base: Recipe) -> Recipe:
    """What DETR and Conditional DETR have in common."""
    model, wide = base.model, facts.names.wide
    dim, channels = facts.shape("input_proj.weight")[:2]
    config = with_maps(backbone(facts, model.backbone), [channels])
    return base.with_model(
        dim=dim,
        classes=facts.rows("class_embed.weight"),
        backbone=dilated(facts, config),
        encoder=replace(
            model.encoder,
            layers=facts.count(f"{ENCODER}.{{i}}.{wide}.weight"),
            heads=facts.heads("encoder.heads"),
            hidden=facts.rows(f"{ENCODER}.0.{wide}.weight"),
        ),
        queries=replace(model.queries, count=facts.rows("query_embed.weight")),
        decoder=replace(
            model.decoder,
            layers=facts.count(f"{DECODER}.{{i}}.{wide}.weight"),
            heads=facts.heads("decoder.heads"),
            hidden=facts.rows(f"{DECODER}.0.{wide}.weight"),
        ),
    )


FAMILIES = (
    Family("DETR", "facebookresearch/detr", is_detr, detr_recipe, detr.rules),
    Family(
        "Conditional DETR",
        "Atten4Vis/ConditionalDETR",
        is_conditional,
        conditional_recipe,
        conditional_detr.rules,
    ),
)
