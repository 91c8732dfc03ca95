"""Keys and config of Conditional DETR in transformers, `ConditionalDetrForObjectDetection`."""

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.checkpoints.official.conditional_detr import PROJECTIONS
from leandetr.checkpoints.official.transformers_detr import (
    AROUND,
    DECODER_LAYER,
    ENCODER_LAYER,
    dense,
)
from leandetr.checkpoints.official.transformers_layout import (
    IN_MEMORY,
    Config,
    as_in_memory_too,
    attention,
    backbone_rules,
)
from leandetr.recipes.conditional_detr import conditional_detr_r50
from leandetr.recipes.recipe import Recipe

SIDES = {"sa": "self_attn", "ca": "encoder_attn"}
LONG = {"qcontent": "q_content", "kcontent": "k_content", "qpos": "q_pos", "kpos": "k_pos"}

REFERENCE = (
    Rename("model.decoder.ref_point_head.layers.{k}.{p}", "decoder.refer.layers.{k}.{p}"),
    Rename("model.decoder.query_scale.layers.{k}.{p}", "decoder.scale.layers.{k}.{p}"),
)


def looks_like(config: Config) -> bool:
    """Whether this is the config of a Conditional DETR."""
    return config.get("model_type") == "conditional_detr"


def recipe(config: Config) -> Recipe:
    """The recipe that a config describes. Raises `CheckpointMismatch` for what is not here."""
    return dense(config, conditional_detr_r50())


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Conditional DETR, whatever its sizes."""
    projections = [
        Rename(
            f"{DECODER_LAYER}.{official.replace('cross_attn', 'encoder_attn')}.{{p}}",
            f"decoder.layers.{{i}}.{ours}.{{p}}",
        )
        for official, ours in PROJECTIONS.items()
    ]
    known = [
        *attention(f"{ENCODER_LAYER}.self_attn", "encoder.layers.{i}.attention"),
        *projections,
        *REFERENCE,
        *AROUND,
        *backbone_rules(),
    ]
    return as_in_memory_too(known, [*IN_MEMORY, *_projections_in_memory()])


def _projections_in_memory() -> list[tuple[str, str]]:
    """`sa_qcontent_proj` is `self_attn.q_content_proj` in memory, and so on."""
    names = []
    for official in PROJECTIONS:
        side, _, rest = official.partition("_")
        if side in SIDES:
            first, separator, end = rest.partition("_")
            renamed = f"{SIDES[side]}.{LONG.get(first, first)}{separator}{end}"
            names.append((f".{official}.", f".{renamed}."))
    return names
