"""Keys of fundamentalvision/Deformable-DETR checkpoints."""

from leandetr.checkpoints.keymap import Alias, Rename, Rule
from leandetr.checkpoints.official.dino import DECODER, neck
from leandetr.checkpoints.official.encoders import encoder_rules
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.recipe import Recipe

ONE_STAGE = (
    Rename("query_embed.weight", "queries.table.weight"),
    Rename("transformer.reference_points.{p}", "queries.point.{p}"),
)
TWO_STAGE = (
    Rename("transformer.enc_output.{p}", "proposals.project.{p}"),
    Rename("transformer.enc_output_norm.{p}", "proposals.norm.{p}"),
    Rename("transformer.pos_trans.{p}", "queries.describe.embed.project.{p}"),
    Rename("transformer.pos_trans_norm.{p}", "queries.describe.embed.norm.{p}"),
    Rename("query_embed.weight", "queries.describe.content.weight"),
)
"""The last one is there with mixed selection only."""


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Deformable DETR detector, with one stage or two, refined or not.

    Swin backbones, which are HDETR/H-Deformable-DETR's, lie below `body` like ResNets.
    """
    return [
        *encoder_rules(recipe),
        *DECODER,
        *query_rules(recipe),
        *head_rules(recipe),
        *neck(recipe),
        Rename("transformer.level_embed", "neck.level_embedding"),
        Rename("backbone.0.body.{rest}", "backbone.{rest}"),
    ]


def query_rules(recipe: Recipe) -> tuple[Rename, ...]:
    """Where queries come from: a table, or the proposals."""
    return TWO_STAGE if _two_stage(recipe) else ONE_STAGE


def _two_stage(recipe: Recipe) -> bool:
    return isinstance(recipe.model.queries, TwoStageQueriesConfig)


def head_rules(recipe: Recipe) -> list[Rule]:
    """Heads are numbered by layer at the top; those of the proposals come last.

    Box heads that refine, and class heads beside proposals, are stored under the decoder too.
    Shared heads repeat the first one.
    """
    boxes = "transformer.decoder." if recipe.model.decoder.refine else ""
    classes = "transformer.decoder." if _two_stage(recipe) else ""
    return [
        *_numbered(recipe, f"{classes}class_embed", "classes", "{p}"),
        *_numbered(recipe, f"{boxes}bbox_embed", "boxes", "layers.{k}.{p}"),
        *([Alias("class_embed.{rest}", f"{classes}class_embed.{{rest}}")] if classes else []),
        *([Alias("bbox_embed.{rest}", f"{boxes}bbox_embed.{{rest}}")] if boxes else []),
    ]


def _numbered(recipe: Recipe, official: str, ours: str, inside: str) -> list[Rule]:
    """One kind of head, layer by layer."""
    layers = recipe.model.decoder.layers
    rules: list[Rule] = []
    if _two_stage(recipe):
        rules.append(Rename(f"{official}.{layers}.{inside}", f"proposals.{ours}.{inside}"))
    if not recipe.model.shared_heads:
        return [*rules, Rename(f"{official}.{{i}}.{inside}", f"heads.{ours}.{{i}}.{inside}")]
    rules.append(Rename(f"{official}.0.{inside}", f"heads.{ours}.0.{inside}"))
    again = range(1, layers)
    return [*rules, *(Alias(f"{official}.{i}.{{rest}}", f"{official}.0.{{rest}}") for i in again)]
