"""Several data sets as one: classes united by name, images numbered anew."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from leandetr.data.dataset import Category, DetectionData

_log = logging.getLogger(__name__)


def combine(
    parts: Sequence[DetectionData], *, without: Sequence[str] = (), split: str = ""
) -> DetectionData:
    """All samples of all parts; a single part stays as it is.

    A class keeps the id of the first part that has it, unless another class took it. `without`
    names data sets that lack the split: they get a warning.
    """
    for name in without:
        _log.warning("%s has no split '%s' and is left out there", name, split)
    if len(parts) == 1:
        return parts[0]
    categories = _united(parts)
    label_of = {category.name: label for label, category in enumerate(categories)}
    samples = []
    for part in parts:
        new = torch.tensor([label_of[name] for name in part.names], dtype=torch.int64)
        samples += [replace(sample, labels=new[sample.labels]) for sample in part.samples]
    numbered = tuple(replace(one, image_id=i) for i, one in enumerate(samples, start=1))
    warnings = tuple(warning for part in parts for warning in part.warnings)
    name = " + ".join(part.name for part in parts)
    return DetectionData(name, categories, numbered, warnings + _alike(categories))


def _united(parts: Sequence[DetectionData]) -> tuple[Category, ...]:
    """Classes of all parts in the order of their ids, which are made unique."""
    wanted: dict[str, int] = {}
    for part in parts:
        for category in part.categories:
            wanted.setdefault(category.name, category.id)
    taken: dict[int, str] = {}
    for name, number in wanted.items():
        free = number
        while free in taken:
            free = max(*taken, *wanted.values()) + 1
        taken[free] = name
    return tuple(Category(number, taken[number]) for number in sorted(taken))


def _alike(categories: Sequence[Category]) -> tuple[str, ...]:
    """Warnings about names that are perhaps meant to be the same."""
    first: dict[str, str] = {}
    warnings = []
    for category in categories:
        other = first.setdefault(plain(category.name), category.name)
        if other != category.name:
            warnings.append(
                f"classes '{other}' and '{category.name}' stay apart: their names differ; "
                "if they are the same, rename one"
            )
    return tuple(warnings)


def plain(name: str) -> str:
    """A name without what people vary: case, spaces, hyphens."""
    return "".join(letter for letter in name.casefold() if letter not in " _-")
