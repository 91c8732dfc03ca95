"""Which weights have a row for each class, and models that keep only some of their classes.

Nobody lists these weights by hand: a recipe is built with one more class, without memory, and what
grew has the rows. So new parts with classes of their own are found too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from leandetr.errors import CheckpointError
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe

PROPOSALS = "proposals."
"""Prefix of the proposal head's weights."""


@lru_cache(maxsize=8)
def shapes(recipe: Recipe) -> Mapping[str, tuple[int, ...]]:
    """The shape of every parameter and buffer of a detector, which is not really built."""
    with torch.device("meta"):
        state = build(recipe).state_dict()
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in state.items()})


def class_rows(recipe: Recipe) -> dict[str, int]:
    """The weights whose first axis holds the classes, and how many rows follow those.

    That is 1 where a row means background (the head of DETR, the label table of denoising), else 0.
    """
    classes = recipe.model.classes
    more = shapes(recipe.with_model(classes=classes + 1))
    return {
        name: shape[0] - classes for name, shape in shapes(recipe).items() if more[name] != shape
    }


def scores_any_object(recipe: Recipe) -> bool:
    """Whether row 0 of the proposal head means an object of any class, and no other row is used."""
    return getattr(recipe.model.queries, "agnostic", False)


def keep_classes(
    model: Detector, keep: Sequence[int], *, names: Sequence[str], category_ids: Sequence[int]
) -> Detector:
    """A detector with only the classes `keep` of `model`, in that order; the old one stays as is.

    Every other weight is copied, so the logits of these classes stay the same. A proposal head that
    scores objects of any class keeps that score. Raises `CheckpointError` for a class that `model`
    does not have.
    """
    recipe: Recipe = model.recipe
    wrong = [index for index in keep if not 0 <= index < recipe.model.classes]
    if wrong or not keep:
        raise CheckpointError(
            f"expected classes from 0 to {recipe.model.classes - 1}, at least one; got {list(keep)}"
        )
    cut = build(replace(recipe, model=replace(recipe.model, classes=len(keep))))
    cut.load_state_dict(_cut(model.state_dict(), recipe, keep))
    cut.names, cut.category_ids = tuple(names), tuple(category_ids)
    return cut.train(model.training)


def _cut(state: Mapping[str, Tensor], recipe: Recipe, keep: Sequence[int]) -> dict[str, Tensor]:
    extra, any_object = class_rows(recipe), scores_any_object(recipe)
    cut = dict(state)
    for name in extra:
        kept = [0, *keep[1:]] if any_object and name.startswith(PROPOSALS) else list(keep)
        rows = kept + [recipe.model.classes + index for index in range(extra[name])]
        cut[name] = state[name][rows]
    return cut
