"""All layouts of official checkpoints, and which of them a recipe's detector can be saved in."""

from leandetr.checkpoints.families import deformable, detr, detrex, dino, transformers
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.keymap import Rule
from leandetr.errors import CheckpointMismatch
from leandetr.models.decoders.conditional import ConditionalDecoderConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.recipes.recipe import Recipe

FAMILIES: tuple[Family, ...] = (
    *dino.FAMILIES,
    *deformable.FAMILIES,
    *detr.FAMILIES,
    *detrex.FAMILIES,
    *transformers.FAMILIES,
)
"""All families, those of the papers' own repositories first.

The first that a checkpoint looks like is taken.
"""

OFFICIAL = "official"
LAYOUTS = {OFFICIAL: "", "detrex": detrex.LAYOUT}
"""Layouts by the names people type; `official` is the repository of the paper."""


def family_of(recipe: Recipe, layout: str = OFFICIAL) -> Family:
    """The family that has a recipe's parts, in a layout of `LAYOUTS`.

    Raises `CheckpointMismatch` where that layout has no such detector.
    """
    if layout not in LAYOUTS:
        raise CheckpointMismatch(f"expected a layout of {', '.join(LAYOUTS)}; got '{layout}'")
    name = _name(recipe)
    for family in FAMILIES:
        if family.name == name and LAYOUTS[layout] in family.layout:
            return family
    raise CheckpointMismatch(
        f"{recipe.name} is built like {name or 'none of the papers'}, "
        f"and the layout '{layout}' has no such detector"
    )


def rules_for(recipe: Recipe, layout: str = OFFICIAL) -> list[Rule]:
    """The key map between a recipe's detector and an official layout."""
    return family_of(recipe, layout).rules(recipe)


def _name(recipe: Recipe) -> str:
    """Which family has these parts; others may still differ in the encoder."""
    model = recipe.model
    content = getattr(model.queries, "content", None)
    match model.decoder:
        case DinoDecoderConfig():
            if isinstance(model.encoder, FocusEncoderConfig):
                return "Focus-DETR"
            return "Lite-DINO" if isinstance(model.encoder, LiteEncoderConfig) else "DINO"
        case DeformableDecoderConfig():
            if isinstance(model.encoder, SparseEncoderConfig) or content == "tokens":
                return "Sparse DETR"
            return "H-DETR" if content == "learned" or model.groups else "Deformable DETR"
        case ConditionalDecoderConfig():
            return "Conditional DETR"
        case DetrDecoderConfig():
            return "DETR"
    return ""
