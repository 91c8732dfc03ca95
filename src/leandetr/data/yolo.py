"""YOLO data sets: a text file for each image, a line for each box, names in a YAML file.

A line is `class x y width height` in fractions of the image, centre first, classes from 0; or
`class x1 y1 x2 y2 ...`, a polygon (or turned box) whose extent is taken.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leandetr.data.dataset import Category
from leandetr.data.findings import SHOWN, How, Log
from leandetr.data.reading import Boxes, Pictures, Reading, measured
from leandetr.errors import DataError

PIXELS = 2.0
"""A coordinate above this cannot be a fraction of the image: it must be meant in pixels."""

_LINE = 2**20
"""Ids of boxes are image * _LINE + line, for messages."""

Row = tuple[int, float, float, float, float]
"""A class id and x0, y0, x1, y1 in fractions of the image."""


@dataclass(frozen=True)
class Labels:
    """The label file of each image (None: not there), and how its lines are read.

    `root` is left out of names in messages. Of `keypoints` numbers after a box nothing is kept.
    """

    root: Path
    images: list[Path]
    files: list[Path | None]
    categories: tuple[Category, ...]
    keypoints: int = 0

    def shown(self, path: Path) -> str:
        """A file as messages call it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def place(self, ids: Sequence[int]) -> list[str]:
        """Boxes as messages call them."""
        named = ((self.files[one // _LINE], one % _LINE) for one in ids)
        return [f"{self.shown(file)} line {line}" for file, line in named if file is not None]


def find_labels(image: Path) -> Path | None:
    """The label file of an image: under labels/ where the image is under images/, or beside it."""
    parts = list(image.with_suffix(".txt").parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            other = Path(*parts[:index], "labels", *parts[index + 1 :])
            if other.is_file():
                return other
            break
    beside = image.with_suffix(".txt")
    return beside if beside.is_file() else None


def reading(labels: Labels, name: str, how: How) -> Reading:
    """One split as its label files say. Raises `DataError` at the first mistake when strict."""
    log = Log(name, how)
    if not labels.images:
        raise DataError(f"{name}: has no images, expected at least one; check the path")
    if not any(labels.files):
        raise DataError(
            f"{name}: none of {len(labels.images)} images has a label file; expected "
            f"labels/**/{labels.images[0].stem}.txt for images/**/{labels.images[0].name}, "
            "or the text file beside the image"
        )
    shown = [labels.shown(path) for path in labels.images]
    kept, sizes = measured(
        labels.images, log, shown.__getitem__, lambda some: [shown[one] for one in some]
    )
    pictures = Pictures([one + 1 for one in kept], [labels.images[one] for one in kept], sizes)
    boxes = _boxes(labels, pictures, log)
    return Reading(name, labels.categories, pictures, boxes, log, labels.place)


def _boxes(labels: Labels, pictures: Pictures, log: Log) -> Boxes:
    known = {category.id: label for label, category in enumerate(labels.categories)}
    ids, images, kinds, fractions = [], [], [], []
    for row, image_id in enumerate(pictures.ids):
        file = labels.files[image_id - 1]
        if file is None:
            continue  # background: nothing was there to be labelled
        for line, (kind, *corners) in _rows(labels, file, known, log):
            ids.append((image_id - 1) * _LINE + line)
            images.append(row)
            kinds.append(known[kind])
            fractions.append(corners)
    where = np.array(images, dtype=np.int64)
    scale = pictures.sizes[where][:, [1, 0, 1, 0]].astype(np.float64)
    return Boxes(
        np.array(ids, dtype=np.int64),
        where,
        np.array(kinds, dtype=np.int64),
        np.array(fractions, dtype=np.float64).reshape(-1, 4) * scale,
        np.zeros(len(ids), dtype=bool),
        np.full(len(ids), np.nan),
    )


def _rows(labels: Labels, file: Path, known: dict[int, int], log: Log) -> Iterator[tuple[int, Row]]:
    """The boxes of a label file with their line numbers, from 1."""
    name = labels.shown(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        log.refuse(
            "label-file",
            "label files that cannot be read",
            f"{name}: cannot be read as text ({type(error).__name__}); expected lines such as "
            "'0 0.5 0.5 0.2 0.1'",
        )
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, _row(line.split(), labels, known)
        except _BadLine as bad:
            log.refuse(bad.kind, bad.what, f"{name} line {number}: {bad.sentence}", bad.advice)


@dataclass(eq=False)
class _BadLine(Exception):
    """A line that is no box: see `Log.refuse` for the words."""

    kind: str
    what: str
    sentence: str
    advice: str = ""


def _row(words: list[str], labels: Labels, known: dict[int, int]) -> Row:
    """One line. Raises `_BadLine`."""
    what, got = "lines that are no box", " ".join(words)[:60]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise _BadLine("line", what, f"expected numbers, got '{got}'") from None
    if not all(math.isfinite(number) for number in numbers):
        raise _BadLine("line", what, f"expected finite numbers, got '{got}'")
    kind, values = numbers[0], numbers[1:]
    if labels.keypoints and len(values) == 4 + labels.keypoints:
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        expected = "class x y width height, or class and a polygon of at least 3 points"
        raise _BadLine("line", what, f"expected {expected}, got {len(words)} numbers '{got}'")
    if not kind.is_integer() or int(kind) not in known:
        raise _BadLine(
            "class-unknown",
            "boxes of a class that has no name",
            f"expected a class of {_classes(labels.categories)}, got {words[0]}",
            "classes are counted from 0; correct the names in the YAML file, or the label files",
        )
    if max(values) > PIXELS:
        raise _BadLine(
            "box-pixels",
            "boxes in pixels where fractions are expected",
            f"expected fractions of the image, 0 to 1, got '{got}'; these look like pixels",
            "divide x and width by the image's width, y and height by its height",
        )
    if len(values) > 4:
        return int(kind), min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    return int(kind), x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _classes(categories: Sequence[Category]) -> str:
    """Known classes for a message."""
    shown = [f"{category.id} {category.name}" for category in categories[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(categories) > SHOWN else "")
