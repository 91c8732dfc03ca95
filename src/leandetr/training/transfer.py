"""Start from another model's weights: keep all that fits, by shape and by class name.

Rows of classes that both models have go along under their names, rows of queries and levels under
their numbers; everything else is kept where name and shape agree, and fresh otherwise. A fresh
class starts at the focal prior, as in a new model.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leandetr.models.detector import Detector
from leandetr.training.rows import Labels, class_labels, level_names, row_labels

NOT_THERE = "not in the old model"
NONE_SHARED = "no row of the old model stands for the same"


@dataclass(frozen=True)
class Partly:
    """A tensor of which `rows` of `of` rows were taken over; the others are fresh."""

    name: str
    rows: int
    of: int


@dataclass(frozen=True)
class Fresh:
    """A tensor that starts anew, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Classes:
    """What became of the classes, `counts` of the old model and of the new one.

    `by_name` is False where one of the models names none.
    """

    known: tuple[str, ...]
    new: tuple[str, ...]
    left_out: int
    by_name: bool
    counts: tuple[int, int]

    def line(self) -> str:
        """One line about the classes."""
        before, now = self.counts
        if not self.by_name and before != now:
            return f"classes: {before} in the old model, {now} here, not both named: all are fresh"
        if not self.by_name:
            return "classes: not both models name them, so they are taken over by number"
        found = f"classes: {len(self.known)} of {len(self.known) + len(self.new)} known by name"
        new = f"; new: {', '.join(self.new)}" if self.new else ""
        left = f"; {self.left_out} of the old model left out" if self.left_out else ""
        return f"{found}{new}{left}"


@dataclass(frozen=True)
class Transfer:
    """What became of each tensor of the new model, and what of the old one had no place."""

    kept: tuple[str, ...]
    partly: tuple[Partly, ...]
    fresh: tuple[Fresh, ...]
    unused: tuple[str, ...]
    classes: Classes
    queries: tuple[int, int]  # of the old model and of the new one

    def table(self) -> str:
        """How many tensors of each part were kept, then all that was not, alike ones in one line.

        In names, `*` stands for any number.
        """
        columns = {
            "kept": self.kept,
            "partly": [item.name for item in self.partly],
            "fresh": [item.name for item in self.fresh],
            "unused": self.unused,
        }
        counts = {title: Counter(map(_part, names)) for title, names in columns.items()}
        parts = list(
            dict.fromkeys(part for names in columns.values() for part in map(_part, names))
        )
        width = max((len(part) for part in parts), default=0)
        lines = [f"{'':{width}}" + "".join(f"{title:>8}" for title in columns)]
        lines += [
            f"{part:{width}}" + "".join(f"{counts[title][part]:8}" for title in columns)
            for part in parts
        ]
        lines += _grouped("partly", ((f"{p.rows} of {p.of} rows", p.name) for p in self.partly))
        lines += _grouped("fresh", ((item.reason, item.name) for item in self.fresh))
        lines += _grouped("unused", (("only in the old model", name) for name in self.unused))
        before, now = self.queries
        if before != now:
            lines.append(f"queries: {before} in the old model, {now} here, the first ones alike")
        return "\n".join([*lines, self.classes.line()])


@torch.no_grad()
def transfer(old: Detector, new: Detector) -> Transfer:
    """Copy every weight and buffer of `old` that has a place in `new`; `old` stays as it is."""
    by_name = bool(old.names) and bool(new.names)
    theirs, mine = (row_labels(model, by_name=by_name) for model in (old, new))
    source, goal = _by_place(old), _by_place(new)
    kept, partly, fresh = [], [], []
    for place, (name, tensor) in goal.items():
        if place not in source:
            fresh.append(Fresh(name, NOT_THERE))
            continue
        former, given = source[place]
        told = _take(name, tensor, given, mine.get(name), theirs.get(former))
        if told is None:
            kept.append(name)
        else:
            (partly if isinstance(told, Partly) else fresh).append(told)
    unused = tuple(name for place, (name, _) in source.items() if place not in goal)
    counts = (_count(old), _count(new))
    classes = _classes(old, new, by_name)
    return Transfer(tuple(kept), tuple(partly), tuple(fresh), unused, classes, counts)


def _take(
    name: str, goal: Tensor, given: Tensor, mine: Labels | None, theirs: Labels | None
) -> Partly | Fresh | None:
    """Fill `goal` as far as it goes; None: wholly."""
    if mine is not None and theirs is not None and goal.shape[1:] == given.shape[1:]:
        rows = _copy_rows(goal, mine, given, theirs)
        if rows == 0:
            return Fresh(name, NONE_SHARED)
        return Partly(name, rows, len(mine)) if rows < len(mine) else None
    if goal.shape != given.shape:
        sizes = f"{tuple(given.shape)} in the old model, {tuple(goal.shape)} here"
        return Fresh(name, sizes)
    goal.copy_(given)
    return None


def _count(model: Detector) -> int:
    return getattr(model.recipe.model.queries, "count", 0)


def _copy_rows(goal: Tensor, mine: Labels, source: Tensor, theirs: Labels) -> int:
    """Copy the rows that stand for the same in both; returns how many."""
    home: dict[Hashable, int] = {}
    for index, label in enumerate(theirs):
        home.setdefault(label, index)
    pairs = [(row, home[label]) for row, label in enumerate(mine) if label in home]
    if pairs:
        rows, given = (list(side) for side in zip(*pairs, strict=True))
        goal[rows] = source[given].to(goal)
    return len(pairs)


def _by_place(model: Detector) -> dict[str, tuple[str, Tensor]]:
    """Each tensor with its name, by a name in which projections of levels are called by level."""
    levels = level_names(model.recipe)
    found = {}
    for name, tensor in model.state_dict().items():
        place = re.sub(
            r"^neck\.project\.(\d+)\.", lambda m: f"neck.project.{levels[int(m[1])]}.", name
        )
        found[place] = (name, tensor)
    return found


def _classes(old: Detector, new: Detector, by_name: bool) -> Classes:
    before, now = (set(class_labels(model.names, 0)) for model in (old, new))
    known = [name for name in new.names if class_labels([name], 0)[0] in before]
    fresh = [name for name in new.names if class_labels([name], 0)[0] not in before]
    counts = (old.recipe.model.classes, new.recipe.model.classes)
    return Classes(tuple(known), tuple(fresh), len(before - now), by_name, counts)


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _grouped(title: str, items: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each reason and each kind of name, under a title; nothing for nothing."""
    groups: dict[tuple[str, str], int] = {}
    for reason, name in items:
        key = (_kind(name), reason)
        groups[key] = groups.get(key, 0) + 1
    lines = [
        f"  {kind}{f' ({count} tensors)' if count > 1 else ''}: {reason}"
        for (kind, reason), count in groups.items()
    ]
    return [f"{title}:", *lines] if lines else []


def _kind(name: str) -> str:
    """The module of a tensor, with `*` for every number."""
    module: Sequence[str] = name.split(".")[:-1] or [name]
    return ".".join("*" if step.isdigit() else step for step in module)
