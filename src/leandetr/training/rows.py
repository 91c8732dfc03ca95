"""What the rows of a detector's weights stand for: a class, a query, a level.

Two detectors of different sizes share a row where both have one that stands for the same.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from leandetr.checkpoints.class_rows import PROPOSALS, class_rows, scores_any_object, shapes
from leandetr.models.detector import Detector
from leandetr.nn.deform_attention import DeformAttention, Offsets
from leandetr.recipes.recipe import Recipe

Labels = list[Hashable]
"""What each row of a tensor stands for."""

EMBEDDING = "neck.level_embedding"


def class_labels(names: Sequence[str], count: int) -> Labels:
    """The classes by name, whatever the case of its letters; by number where they have none."""
    return [("class", name.casefold()) for name in names] or [("class", i) for i in range(count)]


def row_labels(model: Detector, *, by_name: bool) -> dict[str, Labels]:
    """The weights of `model` whose rows stand for something, and for what.

    Without `by_name` classes are only numbers, and two models share them when they have as many.
    """
    recipe: Recipe = model.recipe
    count = recipe.model.classes
    classes = class_labels(model.names if by_name else (), count)
    if not by_name:
        classes = [(*label, "of", count) for label in classes]  # pyright: ignore[reportGeneralTypeIssues]
    found: dict[str, Labels] = {}
    for name, extra in class_rows(recipe).items():
        rows = classes
        if name.startswith(PROPOSALS) and scores_any_object(recipe):
            rows = [("any object",), *[("not used", i) for i in range(1, count)]]
        found[name] = [*rows, *[("background", i) for i in range(extra)]]
    return found | _queries(recipe) | _levels(model)


def level_names(recipe: Recipe) -> list[str]:
    """The levels of tokens, finest first: stages of the backbone, then what the neck adds."""
    outputs: Sequence[int] = getattr(recipe.model.backbone, "outputs", ())
    levels = recipe.model.neck.levels
    known = [f"stage {index}" for index in outputs][:levels]
    return [*known, *[f"extra {index}" for index in range(levels - len(known))]]


def _queries(recipe: Recipe) -> dict[str, Labels]:
    """Tables with a row a query: those that grow with the number of queries."""
    config: Any = recipe.model.queries
    if not hasattr(config, "count"):
        return {}
    count, spare = config.count, getattr(config, "spare", 0)
    rows: Labels = [*(("query", i) for i in range(count)), *(("spare", i) for i in range(spare))]
    grown = shapes(recipe.with_model(queries=replace(config, count=count + 1)))
    now = shapes(recipe)
    return {
        name: rows for name in now if now[name][:1] == (len(rows),) and grown[name] != now[name]
    }


def _levels(model: Detector) -> dict[str, Labels]:
    """The level embedding, and what sampled attention predicts for each level."""
    levels = level_names(model.recipe)
    found: dict[str, Labels] = {}
    if EMBEDDING in model.state_dict():
        found[EMBEDDING] = [("level", level) for level in levels]
    for name, module in model.named_modules():
        match module:
            case Offsets():
                own = levels if module.own_levels == len(levels) else ["all"]
                labels = _samples(module, own, 2)
                found |= {f"{name}.linear.{kind}": labels for kind in ("weight", "bias")}
            case DeformAttention():
                labels = _samples(module.offsets, levels, 1)
                found |= {f"{name}.weights.{kind}": labels for kind in ("weight", "bias")}
    return found


def _samples(offsets: Offsets, levels: Sequence[str], numbers: int) -> Labels:
    """A label for each number of each sample; with other heads or points none is the same."""
    kind = (offsets.heads, offsets.points)
    indices: Iterator[tuple[Any, ...]] = product(
        range(offsets.heads), levels, range(offsets.points), range(numbers)
    )
    return [(*kind, *index) for index in indices]
