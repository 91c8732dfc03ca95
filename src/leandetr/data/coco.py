"""COCO annotation files to samples and back, with every repair counted and every error located.

Boxes that reach outside their image are clipped, and boxes without an area are left out; both
are warnings. Whatever leaves in doubt what the author meant is a `DataError` with file, id and
field.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.data.fields import Table, read_object
from leandetr.data.splits import find_split
from leandetr.decode import upright_size
from leandetr.errors import DataError, UnreadableImage

CLIP_TOLERANCE = 0.01
"""Boxes this far outside, in pixels, are clipped without a warning: rounding, not a mistake."""

_log = logging.getLogger(__name__)


def load_data(root: Path | str, split: str, *, skip_missing: bool = False) -> DetectionData:
    """Read a split of a data set's folder (see `find_split` for the layouts).

    Raises `DataError`.
    """
    annotations, images = find_split(Path(root), split)
    data = read_coco(annotations, images, skip_missing=skip_missing)
    return replace(data, name=f"{Path(root).resolve().name}/{split}")


def read_coco(annotations: Path, images: Path, *, skip_missing: bool = False) -> DetectionData:
    """Read a COCO detection file whose `file_name`s lie in the folder `images`.

    Categories are labelled in the order of their ids. Image sizes come from the files' headers.
    With `skip_missing`, images that are missing or unreadable are left out with a warning.
    Raises `DataError`.
    """
    value = read_object(annotations)
    repairs = _Repairs(annotations.name)
    categories = _read_categories(Table.of(annotations.name, value, "categories", "category"))
    table = Table.of(annotations.name, value, "images", "image")
    if not table.rows:
        raise DataError(f'{annotations.name}: "images" is empty, expected at least one image')
    pictures = _read_pictures(table, images, skip_missing, repairs)
    boxes = _read_boxes(
        Table.of(annotations.name, value, "annotations", "annotation"), categories, pictures
    )
    boxes = boxes.repaired(pictures.sizes, repairs)
    for warning in repairs.sentences:
        _log.warning("%s", warning)
    return DetectionData(
        annotations.name, categories, _samples(pictures, boxes), tuple(repairs.sentences)
    )


@dataclass(frozen=True)
class _Repairs:
    """One sentence for each kind of repair, with a count and the first ids."""

    file: str
    sentences: list[str] = field(default_factory=list)

    def add(self, what: str, kind: str, ids: Sequence[object]) -> None:
        if len(ids) == 0:
            return
        first = ", ".join(str(i) for i in ids[:5]) + (", ..." if len(ids) > 5 else "")
        noun = kind + (" id " if len(ids) == 1 else " ids ")
        self.sentences.append(f"{self.file}: {what}: {len(ids)} ({noun}{first})")


@dataclass(frozen=True)
class _Pictures:
    """The images to use; `rows` maps every image id of the file to its row here, -1 if skipped."""

    ids: list[int]
    paths: list[Path]
    sizes: Int[np.ndarray, "N 2"]
    rows: dict[int, int]


@dataclass(frozen=True)
class _Boxes:
    """Annotations as columns: `images` are rows of `_Pictures`, `boxes` are xyxy pixels.

    `areas` are NaN where the file has none, until `repaired` takes those of the clipped boxes.
    """

    ids: Int[np.ndarray, " R"]
    images: Int[np.ndarray, " R"]
    labels: Int[np.ndarray, " R"]
    boxes: Float[np.ndarray, "R 4"]
    crowd: Bool[np.ndarray, " R"]
    areas: Float[np.ndarray, " R"]

    def only(self, keep: Bool[np.ndarray, " R"]) -> "_Boxes":
        """The rows where `keep` is True."""
        columns = (self.ids, self.images, self.labels, self.boxes, self.crowd, self.areas)
        return _Boxes(*(column[keep] for column in columns))

    def repaired(self, sizes: Int[np.ndarray, "N 2"], repairs: _Repairs) -> "_Boxes":
        """Boxes clipped to their images, without those that have no area there."""
        rows = self.only(self.images >= 0)
        width, height = (rows.boxes[:, 2:] - rows.boxes[:, :2]).T
        negative = (width < 0) | (height < 0)
        empty = ~negative & ((width == 0) | (height == 0))
        limit = sizes[rows.images][:, [1, 0, 1, 0]].astype(np.float64)
        clipped = np.clip(rows.boxes, 0, limit)
        thin = (clipped.astype(np.float32)[:, 2:] <= clipped.astype(np.float32)[:, :2]).any(axis=1)
        outside = thin & ~negative & ~empty
        moved = (np.abs(clipped - rows.boxes) > CLIP_TOLERANCE).any(axis=1) & ~thin & ~negative
        repairs.add(
            "boxes skipped, negative width or height", "annotation", rows.ids[negative].tolist()
        )
        repairs.add("boxes skipped, zero width or height", "annotation", rows.ids[empty].tolist())
        repairs.add(
            "boxes skipped, fully outside the image", "annotation", rows.ids[outside].tolist()
        )
        repairs.add(
            "boxes clipped, partly outside the image", "annotation", rows.ids[moved].tolist()
        )
        visible = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1)
        areas = np.where(np.isnan(rows.areas), visible, rows.areas)
        return replace(rows, boxes=clipped, areas=areas).only(~(negative | empty | outside))


def _read_categories(table: Table) -> tuple[Category, ...]:
    ids, names = table.whole("id").tolist(), table.texts("name")
    table.unique("id", ids)
    table.unique("name", names)
    return tuple(Category(i, name) for i, name in sorted(zip(ids, names, strict=True)))


def _read_pictures(table: Table, folder: Path, skip_missing: bool, repairs: _Repairs) -> _Pictures:
    ids, names = table.whole("id").tolist(), table.texts("file_name")
    table.unique("id", ids)
    declared = np.stack((table.whole("height", 0), table.whole("width", 0)), axis=1)
    kept, sizes, missing, rows = [], [], [], {}
    for index, (image_id, name) in enumerate(zip(ids, names, strict=True)):
        if not _stays_inside(name):
            table.fail(index, "file_name", "a path that stays inside the image folder")
        try:
            sizes.append(upright_size(folder / name))
            rows[image_id] = len(kept)
            kept.append(index)
        except UnreadableImage as error:
            if not skip_missing:
                raise DataError(
                    f'{table.file}: image {image_id}: field "file_name": {error} '
                    f"(looked in {folder}); add the file, or pass skip_missing=True "
                    "(in training: --set train.skip_missing=true)"
                ) from None
            missing.append(image_id)
            rows[image_id] = -1
    repairs.add("images skipped, missing or unreadable", "image", missing)
    actual = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    differs = (declared[kept] != actual).any(axis=1) & (declared[kept] > 0).all(axis=1)
    kept_ids = [ids[index] for index in kept]
    repairs.add(
        "image sizes taken from the file, the annotations disagree",
        "image",
        np.array(kept_ids)[differs].tolist(),
    )
    return _Pictures(kept_ids, [folder / names[index] for index in kept], actual, rows)


def _stays_inside(name: str) -> bool:
    """Whether a file name, read as POSIX or as Windows would, is relative and never climbs."""
    windows = PureWindowsPath(name)
    climbs = os.pardir in windows.parts
    rooted = PurePosixPath(name).is_absolute() or bool(windows.drive or windows.root)
    return not (climbs or rooted or "\0" in name)


def _read_boxes(table: Table, categories: tuple[Category, ...], pictures: _Pictures) -> _Boxes:
    ids = table.whole("id")
    if len(np.unique(ids)) != len(ids):
        table.unique("id", ids.tolist())
    images = table.whole("image_id").tolist()
    labels = {category.id: label for label, category in enumerate(categories)}
    kinds = table.whole("category_id").tolist()
    for index, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        if image not in pictures.rows:
            table.fail(index, "image_id", 'the id of an entry under "images"')
        if kind not in labels:
            table.fail(index, "category_id", f"one of {_ids(labels)}")
    boxes = table.boxes("bbox")
    crowd = table.whole("iscrowd", 0)
    if not np.isin(crowd, (0, 1)).all():
        table.fail(int(np.flatnonzero(~np.isin(crowd, (0, 1)))[0]), "iscrowd", "0 or 1")
    areas = table.numbers("area", float("nan"))
    known = np.isfinite(areas) & (areas > 0)
    return _Boxes(
        ids,
        np.array([pictures.rows[image] for image in images], dtype=np.int64),
        np.array([labels[kind] for kind in kinds], dtype=np.int64),
        np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
        crowd.astype(bool),
        np.where(known, areas, float("nan")),
    )


def _ids(labels: dict[int, int]) -> str:
    known = sorted(labels)
    return ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")


def _samples(pictures: _Pictures, boxes: _Boxes) -> tuple[Sample, ...]:
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
