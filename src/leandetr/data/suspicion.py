"""What looks wrong with boxes, classes and images, a finding each.

Every function looks at one thing and yields what it finds; `doctor` adds the advice.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from leandetr.boxes import area
from leandetr.data.census import Numbers, Part
from leandetr.data.combine import plain
from leandetr.data.dataset import Sample
from leandetr.data.findings import SHOWN, Finding, Level
from leandetr.data.reading import Reading
from leandetr.images import DEFAULT_MAX_PIXELS, Preprocess

TINY = 2.0
"""A side below this, in pixels of the file, is suspicious."""

LOST = 4.0
"""A side below this, in pixels of the network's input, is hard to see."""

WHOLE = 0.95
"""Share of the image a box has to cover to count as all of it."""

FEW = 10
UNEVEN = 100
CROWDED = 0.7
MANY = 0.2
"""Fewest boxes a class should have; ratio of classes; share of the queries; share of the boxes."""


def finding(kind: str, level: Level, part: str, what: str, places: Sequence[str]) -> Finding:
    """A finding that occurs once for each of `places`."""
    return Finding(kind, level, part, what, len(places), tuple(places[:SHOWN]))


def fractions(read: Reading) -> Iterator[Finding]:
    """Boxes in fractions of the image in a format that has pixels."""
    boxes = read.boxes.boxes
    within = (boxes <= 1).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if len(boxes) and within.mean() > 1 - MANY:
        what = "boxes in fractions where pixels are expected"
        yield _of_rows("box-fractions", what, read, np.flatnonzero(within))


def corners(read: Reading) -> Iterator[Finding]:
    """Boxes of a COCO file whose last two numbers seem to be a corner, not a size."""
    boxes = read.boxes.boxes
    if len(boxes) == 0:
        return
    sizes = boxes[:, 2:] - boxes[:, :2]
    limit = 1.02 * read.pictures.sizes[read.boxes.images][:, ::-1]
    beyond = (boxes[:, 2:] > limit).any(axis=1)
    fitting = ((sizes > boxes[:, :2]) & (sizes <= limit)).all(axis=1)
    if beyond.mean() > MANY and fitting.mean() > 0.95:
        what = "boxes that end outside the image and look like two corners"
        yield _of_rows("box-corners", what, read, np.flatnonzero(beyond))


def _of_rows(kind: str, what: str, read: Reading, rows: Int[np.ndarray, " R"]) -> Finding:
    """An error about some of the boxes that were read."""
    places = read.place(read.boxes.ids[rows[:SHOWN]].tolist())
    return Finding(kind, "error", read.name, what, len(rows), tuple(places))


def boxes(part: Part) -> Iterator[Finding]:
    """Copies, specks and boxes as large as their image."""
    twice, tiny, whole, total = [], [], [], 0
    for sample in part.data.samples:
        total += len(sample.boxes)
        name = sample.path.name
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
        tiny += [name] * int((sides < TINY).any(dim=1).sum())
        height, width = sample.size
        whole += [name] * int((area(sample.boxes) > WHOLE * height * width).sum())
        twice += [name] * _copies(sample)
    source = part.data.name
    if twice:
        yield finding("box-twice", "warning", source, "boxes that are there twice", twice)
    if tiny:
        yield finding("box-tiny", "note", source, "boxes under 2 pixels on a side", tiny)
    if len(whole) > MANY * total:
        yield finding("box-whole", "warning", source, "boxes as large as their image", whole)


def _copies(sample: Sample) -> int:
    """How many boxes repeat another one of the same class."""
    if len(sample.boxes) < 2:
        return 0
    rows = torch.cat((sample.boxes.mul(10).round(), sample.labels[:, None].float()), dim=1)
    return len(rows) - len(torch.unique(rows, dim=0))


def images(part: Part, numbers: Numbers) -> Iterator[Finding]:
    """Images without boxes, too large ones, and none that has anything."""
    source, samples = part.data.name, part.data.samples
    empty = [one.path.name for one in samples if not len(one.boxes)]
    large = [one.path.name for one in samples if one.size[0] * one.size[1] > DEFAULT_MAX_PIXELS]
    paths: dict[Path, int] = {}
    for one in samples:
        paths[one.path] = paths.get(one.path, 0) + 1
    listed = [path.name for path, times in paths.items() if times > 1]
    if large:
        yield finding("image-large", "error", source, "images with too many pixels", large)
    if listed:
        yield finding("image-listed-twice", "warning", source, "images listed twice", listed)
    if not numbers.boxes:
        train = part.usual == "train"
        kind, level = ("boxes-none", "error") if train else ("boxes-none-here", "warning")
        yield Finding(kind, level, source, "images, but not one box", len(samples))  # pyright: ignore[reportArgumentType]
    elif empty:
        yield finding("image-empty", "note", source, "images without boxes", empty)
    if not part.data.categories:
        yield Finding("classes-none", "error", source, "classes", 0)


def crowded(part: Part, queries: int) -> Iterator[Finding]:
    """Images with nearly as many objects as a model has queries, or more."""
    full = [
        f"{one.path.name} holds {number}"
        for one in part.data.samples
        if (number := int((~one.crowd).sum())) > CROWDED * queries
    ]
    if full:
        what = f"images with too many objects for {queries} queries"
        yield finding("image-crowded", "warning", part.data.name, what, full)


def lost(part: Part, preprocess: Preprocess) -> Iterator[Finding]:
    """Boxes that are specks once their image has the size a model sees."""
    small, total = [], 0
    for one in part.data.samples:
        height, _ = preprocess.resized(*one.size)
        sides = (one.boxes[:, 2:] - one.boxes[:, :2]) * (height / one.size[0])
        small += [one.path.name] * int((sides < LOST).any(dim=1).sum())
        total += len(one.boxes)
    if len(small) > 0.05 * total:
        what = f"boxes under {LOST:g} pixels on a side at the size the model sees"
        yield finding("box-lost", "warning", part.data.name, what, small)


def classes(counts: dict[str, dict[str, int]]) -> Iterator[Finding]:
    """Classes by the boxes that each split has of them; `counts` goes by split, then by name."""
    train = counts.get("train", {})
    others = {name for split, found in counts.items() if split != "train" for name in found}
    if "train" in counts and (unknown := sorted(others - set(train))):
        what = "classes that training does not know"
        yield finding("class-unknown-here", "error", "other splits", what, unknown)
    held = {name for found in counts.values() for name, number in found.items() if number}
    known = list(dict.fromkeys(name for found in counts.values() for name in found))
    if unused := [name for name in known if name not in held]:
        yield finding("class-unused", "warning", "all splits", "classes without a box", unused)
    if any(train.values()):
        missing = [name for name in train if name in held and not train[name]]
        rare = [f"{name} has {number}" for name, number in train.items() if 0 < number < FEW]
        if missing:
            what = "classes that have boxes in other splits only"
            yield finding("class-untrained", "warning", "train", what, missing)
        if rare:
            what = f"classes with fewer than {FEW} boxes"
            yield finding("class-rare", "warning", "train", what, rare)
        most, least = (
            max(train, key=lambda n: train[n]),
            min((name for name in train if train[name]), key=lambda n: train[n]),
        )
        if train[most] > UNEVEN * train[least]:
            pair = [f"{most} has {train[most]}", f"{least} has {train[least]}"]
            yield Finding("class-uneven", "note", "train", "very uneven classes", 2, tuple(pair))
    yield from _names(known)


def _names(names: Sequence[str]) -> Iterator[Finding]:
    """Names that are perhaps slips."""
    first: dict[str, str] = {}
    alike = [
        f"'{first[plain(name)]}' and '{name}'"
        for name in names
        if first.setdefault(plain(name), name) != name
    ]
    odd = [repr(name) for name in names if _odd(name)]
    if alike:
        what = "classes whose names differ in case or spaces only"
        yield finding("class-alike", "warning", "classes", what, alike)
    if odd:
        what = "names with control characters or spaces at an end"
        yield finding("class-odd", "warning", "classes", what, odd)
    if len(names) > 1 and all(name.strip().isdigit() for name in names):
        yield finding("class-number", "note", "classes", "names that are numbers", names)


def _odd(name: str) -> bool:
    return name != name.strip() or any(unicodedata.category(letter) == "Cc" for letter in name)
