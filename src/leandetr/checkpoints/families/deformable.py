"""Deformable DETR, H-DETR and Sparse DETR: one layout, told apart by their queries."""

from dataclasses import replace
from typing import Any

from leandetr.checkpoints.families.backbone import dilated, mapped
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.encoders import encoder, is_key_aware, sizes
from leandetr.checkpoints.families.facts import Facts
from leandetr.checkpoints.official import deformable_detr, h_detr, sparse_detr
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.deformable_detr import deformable_detr_r50, deformable_detr_r50_two_stage
from leandetr.recipes.h_detr import h_detr_r50, h_detr_r50_plain
from leandetr.recipes.recipe import Recipe
from leandetr.recipes.sparse_detr import sparse_detr_r50_rho0, sparse_detr_r50_rho30

PROPOSED, EMBEDDED = "transformer.enc_output.weight", "transformer.pos_trans.weight"
MANY = 1500
"""One-to-many queries of every released H-DETR."""

COUNT = "two-stage models keep no query of their own, so keys do not tell how many there are"
SPLIT = "keys do not tell the one-to-one queries from the one-to-many ones behind them"
SHARE = "keys do not tell which share of the tokens is kept (rho)"


def is_sampled(facts: Facts) -> bool:
    """Deformable attention under the names of the official Deformable DETR, and its queries."""
    one_stage = "transformer.reference_points.weight"
    cross = f"transformer.decoder.layers.0.{facts.names.decoder}"
    return facts.has(facts.names.levels, f"{cross}.sampling_offsets.weight") and (
        facts.has(EMBEDDED) or facts.has(one_stage, facts.names.table)
    )


def is_sparse(facts: Facts) -> bool:
    """The position is read off the proposed box, but the content is the token itself."""
    if not (is_sampled(facts) and facts.has(EMBEDDED)):
        return False
    rows, columns = facts.shape(EMBEDDED)[:2]
    return 2 * rows == columns


def is_hybrid(facts: Facts) -> bool:
    """One-to-many queries: told by the arguments, or by learned contents beside proposals."""
    learned = facts.has(EMBEDDED, facts.names.table)
    return is_sampled(facts) and (learned or facts.told("num_queries_one2many", 0) > 0)


def deformable_recipe(facts: Facts) -> Recipe:
    """One stage or two, with box refinement or without."""
    if not facts.has(PROPOSED):
        return common(
            facts, deformable_detr_r50(), PointQueriesConfig(facts.rows(facts.names.table))
        )
    base = deformable_detr_r50_two_stage()
    return common(facts, base, replace(base.model.queries, count=_count(facts)))


def hybrid_recipe(facts: Facts) -> Recipe:
    """Deformable DETR with queries to spare for the one-to-many group."""
    learned = facts.has(EMBEDDED, facts.names.table)
    base = h_detr_r50() if learned else h_detr_r50_plain()
    total = facts.rows(facts.names.table) if facts.has(facts.names.table) else None
    if total is None:
        count = facts.asked("queries.count", "num_queries_one2one", 300, COUNT)
        spare = facts.told("num_queries_one2many", MANY)
    else:
        rest = total - MANY if total > MANY else total
        count = facts.asked("queries.count", "num_queries_one2one", rest, SPLIT)
        spare = total - count
    if facts.has(PROPOSED):
        queries: Any = TwoStageQueriesConfig(
            count=count, spare=spare, content="learned" if learned else "embedded"
        )
    else:
        queries = PointQueriesConfig(count=count, spare=spare)
    group = replace(
        base.model.groups[0],
        repeat=facts.told("k_one2many", 6),
        weight=facts.told("lambda_one2many", 1.0),
    )
    found = common(facts, base, queries)
    found = found.with_model(groups=(group,) if spare else (), top=facts.told("topk", 100))
    look_twice = found.model.decoder.refine and facts.told("look_forward_twice", learned)
    return found.with_model(decoder=replace(found.model.decoder, look_twice=look_twice))


def sparse_recipe(facts: Facts) -> Recipe:
    """Two stages; without a scoring network all tokens are refined."""
    scores = facts.has("transformer.enc_mask_predictor.layer1.0.weight")
    base = sparse_detr_r50_rho30() if scores else sparse_detr_r50_rho0()
    queries = replace(
        base.model.queries,
        count=_count(facts),
        agnostic=not facts.told("eff_specific_head", True),
    )
    found = common(facts, base, queries)
    plain = found.model.encoder
    if not scores:
        return found
    return found.with_model(
        encoder=SparseEncoderConfig(
            keep=facts.asked("encoder.keep", "rho", 0.3, SHARE),
            layers=plain.layers,
            heads=plain.heads,
            points=plain.points,
            hidden=plain.hidden,
            dropout=plain.dropout,
            auxiliary=facts.has("transformer.encoder.class_embed.0.weight"),
        )
    )


def common(facts: Facts, base: Recipe, queries: Any) -> Recipe:
    """What they all have in common, with these queries."""
    model = base.model
    levels, dim = facts.shape(facts.names.levels)
    config = mapped(facts, model.backbone)
    refine = facts.has("transformer.decoder.bbox_embed.0.layers.0.weight")
    return base.with_model(
        dim=dim,
        classes=facts.rows("class_embed.0.weight"),
        backbone=dilated(facts, config) if levels == 1 else config,
        neck=replace(model.neck, levels=levels),
        encoder=encoder(facts, levels=levels, dropout=model.decoder.dropout),
        queries=queries,
        decoder=replace(
            model.decoder,
            **sizes(facts, "decoder", levels=levels),
            refine=refine,
            look_twice=refine and model.decoder.look_twice,
            key_aware=is_key_aware(facts, "decoder"),
        ),
        shared_heads=not refine,
    )


def _count(facts: Facts) -> int:
    return facts.asked("queries.count", "num_queries", 300, COUNT)


FAMILIES = (
    Family("Sparse DETR", "kakaobrain/sparse-detr", is_sparse, sparse_recipe, sparse_detr.rules),
    Family("H-DETR", "HDETR/H-Deformable-DETR", is_hybrid, hybrid_recipe, h_detr.rules),
    Family(
        "Deformable DETR",
        "fundamentalvision/Deformable-DETR",
        is_sampled,
        deformable_recipe,
        deformable_detr.rules,
    ),
)
