"""Keys and config of Deformable DETR in transformers, `DeformableDetrForObjectDetection`."""

from dataclasses import replace

from leandetr.checkpoints.keymap import Alias, Implied, Rename, Rule
from leandetr.checkpoints.official.transformers_layout import (
    Config,
    as_in_memory_too,
    attention,
    backbone,
    backbone_rules,
    check,
    class_count,
)
from leandetr.errors import CheckpointMismatch
from leandetr.models.necks import NORM_GROUPS
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.deformable_detr import deformable_detr_r50
from leandetr.recipes.recipe import Recipe

ENCODER_LAYER, DECODER_LAYER = "model.encoder.layers.{i}", "model.decoder.layers.{i}"

ENCODER = (
    Rename(f"{ENCODER_LAYER}.self_attn_layer_norm.{{p}}", "encoder.layers.{i}.gather.norm.{p}"),
    Rename(f"{ENCODER_LAYER}.fc1.{{p}}", "encoder.layers.{i}.feed_forward.linear1.{p}"),
    Rename(f"{ENCODER_LAYER}.fc2.{{p}}", "encoder.layers.{i}.feed_forward.linear2.{p}"),
    Rename(f"{ENCODER_LAYER}.final_layer_norm.{{p}}", "encoder.layers.{i}.feed_forward.norm.{p}"),
)

DECODER = (
    Rename(f"{DECODER_LAYER}.self_attn_layer_norm.{{p}}", "decoder.layers.{i}.self_norm.{p}"),
    Rename(f"{DECODER_LAYER}.encoder_attn_layer_norm.{{p}}", "decoder.layers.{i}.cross_norm.{p}"),
    Rename(f"{DECODER_LAYER}.fc1.{{p}}", "decoder.layers.{i}.feed_forward.linear1.{p}"),
    Rename(f"{DECODER_LAYER}.fc2.{{p}}", "decoder.layers.{i}.feed_forward.linear2.{p}"),
    Rename(f"{DECODER_LAYER}.final_layer_norm.{{p}}", "decoder.layers.{i}.feed_forward.norm.{p}"),
)

ONE_STAGE = (
    Rename("model.query_position_embeddings.weight", "queries.table.weight"),
    Rename("model.reference_points.{p}", "queries.point.{p}"),
)

TWO_STAGE = (
    Rename("model.enc_output.{p}", "proposals.project.{p}"),
    Rename("model.enc_output_norm.{p}", "proposals.norm.{p}"),
    Rename("model.pos_trans.{p}", "queries.describe.embed.project.{p}"),
    Rename("model.pos_trans_norm.{p}", "queries.describe.embed.norm.{p}"),
)

HEADS = {"class_embed": ("classes", "{p}"), "bbox_embed": ("boxes", "layers.{k}.{p}")}
"""Official name -> ours, and what is inside a head."""


def looks_like(config: Config) -> bool:
    """Whether this is the config of a Deformable DETR."""
    return config.get("model_type") == "deformable_detr"


def recipe(config: Config) -> Recipe:
    """The recipe that a config describes. Raises `CheckpointMismatch` for what is not here."""
    check(config)
    base = deformable_detr_r50()
    model = base.model
    levels, refine = config.get("num_feature_levels", 4), config.get("with_box_refine", False)
    dropout = float(config.get("dropout", 0.1))
    features = backbone(config, (1, 2, 3) if levels > 1 else (3,))
    _check_neck(config, levels, len(features.outputs))
    return base.with_model(
        backbone=features,
        neck=replace(model.neck, levels=levels),
        encoder=replace(
            model.encoder,
            layers=config.get("encoder_layers", 6),
            heads=config.get("encoder_attention_heads", 8),
            points=config.get("encoder_n_points", 4),
            hidden=config.get("encoder_ffn_dim", 1024),
            dropout=dropout,
        ),
        queries=_queries(config),
        decoder=replace(
            model.decoder,
            layers=config.get("decoder_layers", 6),
            heads=config.get("decoder_attention_heads", 8),
            points=config.get("decoder_n_points", 4),
            hidden=config.get("decoder_ffn_dim", 1024),
            refine=refine,
            dropout=dropout,
        ),
        shared_heads=not refine and config.get("tie_word_embeddings", True),
        dim=config.get("d_model", 256),
        classes=class_count(config),
    )


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Deformable DETR, with one stage or two, refined or not."""
    two_stage = isinstance(recipe.model.queries, TwoStageQueriesConfig)
    return as_in_memory_too(
        [
            *_sampled(f"{ENCODER_LAYER}.self_attn", "encoder.layers.{i}.gather.attention"),
            *ENCODER,
            *attention(f"{DECODER_LAYER}.self_attn", "decoder.layers.{i}.self_attention"),
            *_sampled(f"{DECODER_LAYER}.encoder_attn", "decoder.layers.{i}.cross_attention"),
            *DECODER,
            *(TWO_STAGE if two_stage else ONE_STAGE),
            *(rule for head in HEADS for rule in _heads(recipe, head, two_stage=two_stage)),
            *_neck(recipe),
            *backbone_rules(),
        ]
    )


def _check_neck(config: Config, levels: int, maps: int) -> None:
    """Raise `CheckpointMismatch` where the projections of levels would be others than ours."""
    if maps > levels:
        raise CheckpointMismatch(
            f"config.json: expected at most {levels} maps of the backbone, as many as "
            f"num_feature_levels; got {maps}"
        )
    if config.get("d_model", 256) < 2 * NORM_GROUPS:
        raise CheckpointMismatch(
            f"config.json: expected a d_model of at least {2 * NORM_GROUPS}, for which the norms "
            f"of both packages have {NORM_GROUPS} groups; got {config['d_model']}"
        )


def _queries(config: Config) -> PointQueriesConfig | TwoStageQueriesConfig:
    if config.get("two_stage", False):
        return TwoStageQueriesConfig(config.get("two_stage_num_proposals", 300))
    return PointQueriesConfig(config.get("num_queries", 300))


def _sampled(official: str, ours: str) -> list[Rule]:
    return [
        Rename(f"{official}.sampling_offsets.{{p}}", f"{ours}.offsets.linear.{{p}}"),
        Rename(f"{official}.attention_weights.{{p}}", f"{ours}.weights.{{p}}"),
        Rename(f"{official}.value_proj.{{p}}", f"{ours}.value.{{p}}"),
        Rename(f"{official}.output_proj.{{p}}", f"{ours}.output.{{p}}"),
    ]


def _heads(recipe: Recipe, official: str, *, two_stage: bool) -> list[Rule]:
    """Heads are numbered by layer at the top, that of the proposals comes last.

    Box heads that refine, and class heads beside proposals, are in the decoder too. One copy of
    what is the same is left out on disk, whichever. Refined models of transformers 5 that were not
    loaded from older ones have one class head for all layers, and store it once.
    """
    kind, inside = HEADS[official]
    layers, inner = recipe.model.decoder.layers, f"model.decoder.{official}"
    twice = two_stage if kind == "classes" else recipe.model.decoder.refine
    if recipe.model.shared_heads:
        copies = [
            Alias(f"{official}.{i}.{{rest}}", f"{official}.0.{{rest}}") for i in range(1, layers)
        ]
        return [Rename(f"{official}.0.{inside}", f"heads.{kind}.0.{inside}"), *copies]
    rules: list[Rule] = []
    if twice:
        rules.append(Implied(f"{official}.{{i}}.{{rest}}", f"{inner}.{{i}}.{{rest}}"))
        rules.append(Alias(f"{inner}.{{rest}}", f"{official}.{{rest}}"))
    else:
        tied = range(1, layers)
        rules += [Implied(f"{official}.{i}.{{rest}}", f"{official}.0.{{rest}}") for i in tied]
    if two_stage:
        rules.append(Rename(f"{official}.{layers}.{inside}", f"proposals.{kind}.{inside}"))
    return [*rules, Rename(f"{official}.{{i}}.{inside}", f"heads.{kind}.{{i}}.{inside}")]


def _neck(recipe: Recipe) -> list[Rule]:
    """Projections are numbered through; ours tell maps of the backbone from extra ones."""
    outputs = len(recipe.model.backbone.outputs)
    homes = [f"neck.project.{i}" for i in range(outputs)]
    homes += [f"neck.extend.{i}" for i in range(recipe.model.neck.levels - outputs)]
    return [
        Rename("model.level_embed", "neck.level_embedding"),
        *(
            Rename(f"model.input_proj.{i}.{{k}}.{{p}}", f"{home}.{{k}}.{{p}}")
            for i, home in enumerate(homes)
        ),
    ]
