"""Pictures that are there twice: the same bytes, or nearly the same picture.

The same bytes are cheap to find: only files of equal length are read. For near copies each
picture is shrunk to a thumbnail of grey, which shows damaged files on the way; two are alike if
their thumbnails correlate above `ALIKE`. On photographs, recompressing, halving or brightening
leaves a correlation of 0.996 or more, while different pictures of one microscope or one kind of
circuit board stay below 0.86.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from leandetr.decode import guarded
from leandetr.errors import ImageError

ALIKE = 0.97
SIDE = 16
"""Pixels on a side of a thumbnail."""

MOST_PIXELS = 80_000_000
"""Larger files are not shrunk."""

_ROWS = 1024
"""Thumbnails compared at a time: bounds the memory."""

Watch = Callable[[Sequence[Any]], Iterable[Any]]


def same_bytes(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of indices of files with the same content, two at least; unreadable ones are left out.

    A path that occurs twice is in a group with itself.
    """
    by_size = defaultdict(list)
    for index, path in enumerate(paths):
        try:
            by_size[path.stat().st_size].append(index)
        except OSError:
            continue
    groups = defaultdict(list)
    for indices in by_size.values():
        if len(indices) > 1:
            for index in indices:
                groups[_digest(paths[index])].append(index)
    return [group for key, group in groups.items() if key and len(group) > 1]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return b""


@dataclass(frozen=True)
class Thumbnails:
    """A row for each picture, of unit length without its mean; zeros where there is none.

    `broken` has a sentence for each picture that cannot be decoded.
    """

    rows: Float[np.ndarray, "N D"]
    broken: dict[int, str]

    def alike(self, first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs of near copies, one of each side."""
        other = self.rows[list(second)].T
        pairs = []
        for start in range(0, len(first), _ROWS):
            some = list(first[start : start + _ROWS])
            rows, columns = np.nonzero(self.rows[some] @ other > ALIKE)
            found = zip(rows.tolist(), columns.tolist(), strict=True)
            pairs += [(some[row], second[column]) for row, column in found]
        return pairs


def thumbnails(paths: Sequence[Path], sizes: Sequence[tuple[int, int]], watch: Watch) -> Thumbnails:
    """Shrink every picture; `sizes` are (height, width)."""
    rows = np.zeros((len(paths), SIDE * SIDE), dtype=np.float32)
    broken = {}
    for index in watch(range(len(paths))):
        height, width = sizes[index]
        if height * width > MOST_PIXELS:
            continue
        try:
            row = guarded(paths[index].name, lambda path=paths[index]: _grey(path))
        except ImageError as error:
            broken[index] = str(error)
            continue
        row -= row.mean()
        length = float(np.linalg.norm(row))
        rows[index] = row / length if length > 1 else 0  # one colour is like nothing
    return Thumbnails(rows, broken)


def _grey(path: Path) -> Float[np.ndarray, " D"]:
    with Image.open(path) as image:
        image.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded small: all of it is read
        grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32).ravel()


def origin(path: Path) -> str | None:
    """The name of the picture an augmented copy was made from, as Roboflow's exports tell it."""
    name, mark, _ = path.name.rpartition(".rf.")
    return name if mark else None
