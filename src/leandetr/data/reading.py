"""What every format is read into, before and after its boxes are repaired.

A format gives pictures and boxes as columns; `Reading.data` clips the boxes, leaves out those
without an area and makes one sample an image.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.data.findings import SHOWN, Log
from leandetr.decode import upright_size
from leandetr.errors import UnreadableImage

CLIP_TOLERANCE = 0.01
"""Boxes this far outside, in pixels, are clipped without a warning: rounding, not a mistake."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """The images to use; `sizes` are (height, width) of the upright files."""

    ids: list[int]
    paths: list[Path]
    sizes: Int[np.ndarray, "N 2"]


@dataclass(frozen=True)
class Boxes:
    """Annotations as columns: `images` are rows of `Pictures`, `boxes` are xyxy pixels.

    `ids` mean something to the format only. `areas` are NaN where the file has none, until
    `repaired` takes those of the clipped boxes.
    """

    ids: Int[np.ndarray, " R"]
    images: Int[np.ndarray, " R"]
    labels: Int[np.ndarray, " R"]
    boxes: Float[np.ndarray, "R 4"]
    crowd: Bool[np.ndarray, " R"]
    areas: Float[np.ndarray, " R"]

    def only(self, keep: Bool[np.ndarray, " R"]) -> "Boxes":
        """The rows where `keep` is True."""
        columns = (self.ids, self.images, self.labels, self.boxes, self.crowd, self.areas)
        return Boxes(*(column[keep] for column in columns))


@dataclass(frozen=True)
class Reading:
    """One split as its files say; `place` names boxes by their ids in a message."""

    name: str
    categories: tuple[Category, ...]
    pictures: Pictures
    boxes: Boxes
    log: Log
    place: Callable[[Sequence[int]], list[str]]

    def data(self) -> DetectionData:
        """The data set to learn from; every repair is counted in `log`."""
        boxes = _repaired(self.boxes, self.pictures.sizes, self._warn)
        samples = _samples(self.pictures, boxes)
        return DetectionData(self.name, self.categories, samples, self.log.warnings)

    def _warn(self, kind: str, what: str, rows: Boxes) -> None:
        self.log.repair(kind, what, len(rows.ids), self.place(rows.ids[:SHOWN].tolist()))


def loud(data: DetectionData) -> DetectionData:
    """The same, after its warnings went to the log."""
    for warning in data.warnings:
        _log.warning("%s", warning)
    return data


def measured(
    paths: Sequence[Path],
    log: Log,
    where: Callable[[int], str],
    places: Callable[[Sequence[int]], list[str]],
) -> tuple[list[int], Int[np.ndarray, "N 2"]]:
    """Indices of the files that can be read, and their (height, width), from headers alone.

    `where(index)` begins the sentence about one that cannot, `places` names some of them.
    """
    kept, sizes, missing = [], [], []
    for index, path in enumerate(log.how.watch(paths)):
        try:
            sizes.append(upright_size(path))
            kept.append(index)
        except UnreadableImage as error:
            if log.how.skip_missing:
                missing.append(index)
                continue
            log.refuse(
                "image-missing",
                "images missing or unreadable",
                f"{where(index)}: {error} (looked in {path.parent}); add the file, or pass "
                "skip_missing=True (in training: --set train.skip_missing=true)",
            )
    what = "images skipped, missing or unreadable"
    log.repair("image-missing", what, len(missing), places(missing[:SHOWN]))
    return kept, np.array(sizes, dtype=np.int64).reshape(-1, 2)


def numbered(noun: str, ids: Sequence[int]) -> list[str]:
    """Ids for a message, the noun before the first: image ids 3, 5."""
    first = f"{noun} id" if len(ids) == 1 else f"{noun} ids"
    return [f"{first} {one}" if index == 0 else str(one) for index, one in enumerate(ids)]


def _repaired(
    rows: Boxes, sizes: Int[np.ndarray, "N 2"], warn: Callable[[str, str, Boxes], None]
) -> Boxes:
    """Boxes clipped to their images, without those that have no area there."""
    width, height = (rows.boxes[:, 2:] - rows.boxes[:, :2]).T
    negative = (width < 0) | (height < 0)
    empty = ~negative & ((width == 0) | (height == 0))
    limit = sizes[rows.images][:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.clip(rows.boxes, 0, limit)
    single = clipped.astype(np.float32)
    thin = (single[:, 2:] <= single[:, :2]).any(axis=1)
    outside = thin & ~negative & ~empty
    moved = (np.abs(clipped - rows.boxes) > CLIP_TOLERANCE).any(axis=1) & ~thin & ~negative
    for kind, what, chosen in (
        ("box-negative", "boxes skipped, negative width or height", negative),
        ("box-empty", "boxes skipped, zero width or height", empty),
        ("box-outside", "boxes skipped, fully outside the image", outside),
        ("box-clipped", "boxes clipped, partly outside the image", moved),
    ):
        warn(kind, what, rows.only(chosen))
    visible = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1)
    areas = np.where(np.isnan(rows.areas), visible, rows.areas)
    return replace(rows, boxes=clipped, areas=areas).only(~(negative | empty | outside))


def _samples(pictures: Pictures, boxes: Boxes) -> tuple[Sample, ...]:
    order = np.argsort(boxes.images, kind="stable")
    counts = np.bincount(boxes.images, minlength=len(pictures.ids)).tolist()
    columns = (
        torch.from_numpy(boxes.boxes[order]).float(),
        torch.from_numpy(boxes.labels[order]),
        torch.from_numpy(boxes.crowd[order]),
        torch.from_numpy(boxes.areas[order]).float(),
    )
    parts = zip(*(column.split(counts) for column in columns), strict=True)
    return tuple(
        Sample(path, image_id, (int(size[0]), int(size[1])), *part)
        for path, image_id, size, part in zip(
            pictures.paths, pictures.ids, pictures.sizes, parts, strict=True
        )
    )
