"""Few images: what a recipe that was made for COCO's 118 000 needs to learn from some hundred.

A choice of this package, not of a paper: enough optimiser steps, an average of the weights, a
gentle start, and augmentation for small sets.
"""

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from leandetr.data.transforms import DetrAugment, LsjAugment, SmallDataAugment
from leandetr.recipes.recipe import Recipe

FEW = 2000
"""Images below which a recipe for COCO is changed."""

STEPS = 6000
"""Optimiser steps that are enough to fine-tune a detector of the papers."""

LONGEST = 300
"""Most epochs."""

VALIDATIONS = 30


def for_few(
    recipe: Recipe, images: int, chosen: Collection[str] = (), *, preset: Recipe | None = None
) -> tuple[Recipe, list[str]]:
    """The recipe for so few images, and what is other than before, as `path: before -> after`.

    Paths in `chosen`, such as "train.epochs", stay as they are, and so does a recipe whose `preset`
    was made for small sets: one whose augmentation is not that of the papers. The rate drops at
    the share of the epochs at which it does in the preset, by default the recipe itself.
    """
    how, origin = recipe.train, (preset or recipe).train
    if images >= FEW or not isinstance(origin.augment, DetrAugment | LsjAugment):
        return recipe, []
    a_epoch = math.ceil(max(images // how.batch, 1) / how.accumulate)
    epochs = min(max(origin.epochs, math.ceil(STEPS / a_epoch)), LONGEST)
    if "train.epochs" in chosen:
        epochs = how.epochs
    wanted: dict[str, Any] = {
        "epochs": epochs,
        "drops": tuple(round(drop * epochs / origin.epochs) for drop in how.drops),
        "validate_every": max(epochs // VALIDATIONS, 1),
        "ema": 0.998 if how.ema is None else how.ema,
        "warmup": how.warmup or 100,
        "augment": SmallDataAugment(),
    }
    changes = {
        name: value
        for name, value in wanted.items()
        if not any(path.startswith(f"train.{name}") for path in chosen)
        and value != getattr(how, name)
    }
    told = [
        f"train.{name}: {_told(getattr(how, name))} -> {_told(value)}"
        for name, value in changes.items()
    ]
    return replace(recipe, train=replace(how, **changes)), told


def _told(value: Any) -> str:
    names = {DetrAugment: "detr", LsjAugment: "lsj", SmallDataAugment: "small-data"}
    return names.get(type(value), str(value))
