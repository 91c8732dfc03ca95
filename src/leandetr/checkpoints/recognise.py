"""Which detector a checkpoint holds, told by its keys, its arguments and what a person says.

recognised = recognise(official.state, official.args)
recognised.recipe          # builds the detector
recognised.assumed         # what nobody told: look at these before trusting the numbers
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from torch import Tensor

from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.facts import Facts
from leandetr.checkpoints.layouts import FAMILIES
from leandetr.errors import CheckpointMismatch
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.backbones.swin import SwinConfig
from leandetr.recipes.assemble import PRESETS
from leandetr.recipes.codec import override
from leandetr.recipes.recipe import ModelRecipe, Recipe

MASKS = ("mask_head.{rest}", "bbox_attention.{rest}")
"""Keys of DETR's segmentation models (facebookresearch/detr:models/segmentation.py)."""


@dataclass(frozen=True)
class Recognised:
    """The family of a checkpoint, and the recipe of its detector.

    `preset` is the name of the preset that has the same parts, if there is one. `notes` are worth
    reading; `assumed` says what neither keys nor arguments tell, with the option that changes it.
    """

    family: Family
    recipe: Recipe
    preset: str | None
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def recognise(
    state: Mapping[str, Tensor],
    args: Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
) -> Recognised:
    """The family and recipe of an official state dict.

    `overrides` are `path=value` texts of the recipe and win over keys and `args`. Raises
    `CheckpointMismatch` where no known family looks like this, or its sizes are not ours.
    """
    choices = _choices(overrides)
    facts = Facts(state, args or {}, choices)
    family = _family(facts)
    found = family.recipe(facts)
    preset = _preset(found)
    chosen = (
        override(_named(found, family, preset), overrides)
        if overrides
        else _named(found, family, preset)
    )
    assumed = [why for path, why in facts.assumed.items() if path not in choices]
    return Recognised(family, chosen, preset, tuple(facts.notes), tuple(assumed))


def _family(facts: Facts) -> Family:
    """The first family that the keys look like."""
    masks = [key for template in MASKS for key in facts.keys(template)]
    if masks:
        raise CheckpointMismatch(
            f"this is a segmentation model ({masks[0]} and more make masks); LeanDETR finds boxes: "
            "take the detection model of the same paper"
        )
    for family in FAMILIES:
        if family.looks_like(facts):
            return family
    known = ", ".join(sorted({family.name for family in FAMILIES}))
    keys = list(facts.state)
    raise CheckpointMismatch(
        f"this is no detector of a family known here ({known}); "
        f"its first keys are {', '.join(keys[:4])}"
    )


def _choices(overrides: Sequence[str]) -> dict[str, Any]:
    """Recipe paths to the values a person gave them."""
    pairs = [change.partition("=") for change in overrides]
    return {
        path.strip().removeprefix("model."): yaml.safe_load(value) for path, mark, value in pairs
    }


def _preset(recipe: Recipe) -> str | None:
    """The preset that has the same parts, whatever the classes and the backbone's first weights."""
    wanted = _parts(recipe.model)
    return next((name for name, make in PRESETS.items() if _parts(make().model) == wanted), None)


def _parts(model: ModelRecipe) -> tuple[ModelRecipe, list[type]]:
    """The recipe without what keys leave open and predictions do not depend on."""
    backbone = model.backbone
    if isinstance(backbone, ResNetConfig | SwinConfig):
        backbone = replace(backbone, weights=None, frozen_stages=0)
    if isinstance(backbone, SwinConfig):
        backbone = replace(backbone, drop_path=0.0)
    same = replace(model, backbone=backbone, classes=1, groups=())
    return same, [type(group) for group in model.groups]


def _named(recipe: Recipe, family: Family, preset: str | None) -> Recipe:
    """As the preset that has the same parts, or under a name of family and backbone."""
    if preset is not None:
        usual, found = PRESETS[preset]().with_name(preset), recipe.model
        first = usual.model.backbone
        if isinstance(found.backbone, ResNetConfig):  # detrex trains layer1 too
            first = replace(first, frozen_stages=found.backbone.frozen_stages)
        return usual.with_model(backbone=first, classes=found.classes, groups=found.groups)
    backbone = recipe.model.backbone
    short = (
        f"swin-{backbone.variant[0]}"
        if isinstance(backbone, SwinConfig)
        else backbone.architecture.replace("resnet", "r")
    )
    return recipe.with_name(f"{family.name}-{short}".lower().replace(" ", "-"))
