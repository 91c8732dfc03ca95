"""COCO annotation files: every repair is counted, every error has file, id and field.

Boxes that reach outside their image are clipped, and boxes without an area are left out; both
are warnings. Whatever leaves in doubt what the author meant is an error.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from leandetr.data.dataset import Category, DetectionData
from leandetr.data.fields import Table, read_object
from leandetr.data.findings import SHOWN, How, Log
from leandetr.data.reading import Boxes, Pictures, Reading, loud, measured, numbered
from leandetr.errors import DataError


def read_coco(annotations: Path, images: Path, *, skip_missing: bool = False) -> DetectionData:
    """Read a COCO detection file whose `file_name`s lie in the folder `images`.

    Categories are labelled in the order of their ids. Image sizes come from the files' headers.
    With `skip_missing`, images that are missing or unreadable are left out with a warning.
    Raises `DataError`.
    """
    how = How(skip_missing=skip_missing)
    return loud(reading(annotations, [images], annotations.name, how).data())


def reading(annotations: Path, folders: Sequence[Path], name: str, how: How) -> Reading:
    """A COCO file as it is, images in the first of `folders` that has the first one.

    Raises `DataError` for what cannot be read at all, or for the first mistake when strict.
    """
    value = read_object(annotations)
    log, file = Log(annotations.name, how), annotations.name
    categories, labels = _categories(Table.of(file, value, "categories", "category"), value, log)
    table = Table.of(file, value, "images", "image")
    if not table.rows:
        raise DataError(f'{file}: "images" is empty, expected at least one image')
    refused = {row["id"]: -1 for row in table.rows if isinstance(row.get("id"), int)}
    table = table.sound(_check_image, log, "image-entry")
    pictures, rows = _pictures(table, _folder(table, folders), log)
    rows = refused | rows  # boxes of a refused image are no second complaint
    table = Table.of(file, value, "annotations", "annotation")
    boxes = _boxes(table, labels, rows, log)
    return Reading(name, categories, pictures, boxes, log, _place)


def _place(ids: Sequence[int]) -> list[str]:
    return numbered("annotation", ids)


def _categories(table: Table, value: dict, log: Log) -> tuple[tuple[Category, ...], dict[int, int]]:
    """The classes in the order of their ids, and the label of every id."""
    table = table.sound(lambda rows: (rows.whole("id"), rows.texts("name")), log, "category-entry")
    ids, names = table.whole("id").tolist(), table.texts("name")
    kept = table.unique("id", ids, log, "category-twice")
    table.unique("name", names, log, "category-name-twice")
    ids, names = [ids[index] for index in kept], [names[index] for index in kept]
    heading = _heading(table.rows, value)
    known = {name: i for i, name in sorted(zip(ids, names, strict=True), reverse=True)}
    categories = tuple(Category(i, name) for i, name in sorted((i, n) for n, i in known.items()))
    categories = tuple(one for one in categories if one.name != heading)
    label = {category.name: number for number, category in enumerate(categories)}
    return categories, {i: label[n] for i, n in zip(ids, names, strict=True) if n in label}


def _heading(rows: Sequence[dict], value: dict) -> str | None:
    """The name of a category that only heads the others, as Roboflow writes one; None if none.

    It has an entry of its own, every other names it as `supercategory`, and no box has it.
    """
    heads = {row.get("supercategory") for row in rows}
    first = next((row for row in rows if row.get("supercategory") == "none"), None)
    if len(rows) < 2 or first is None or heads != {"none", first["name"]}:
        return None
    used = value.get("annotations")
    if not isinstance(used, list) or any(
        isinstance(row, dict) and row.get("category_id") == first["id"] for row in used
    ):
        return None
    return first["name"]


def _check_image(table: Table) -> None:
    table.whole("id")
    table.whole("height", 0)
    table.whole("width", 0)
    for index, name in enumerate(table.texts("file_name")):
        if not stays_inside(name):
            table.fail(index, "file_name", "a path that stays inside the image folder")


def stays_inside(name: str) -> bool:
    """Whether a file name, read as POSIX or as Windows would, is relative and never climbs."""
    windows = PureWindowsPath(name)
    climbs = os.pardir in windows.parts
    rooted = PurePosixPath(name).is_absolute() or bool(windows.drive or windows.root)
    return not (climbs or rooted or "\0" in name)


def _folder(table: Table, folders: Sequence[Path]) -> Path:
    """The first folder in which one of the first images is; else the first of all."""
    for folder in folders:
        if any((folder / row["file_name"]).is_file() for row in table.rows[:SHOWN]):
            return folder
    return folders[0]


def _pictures(table: Table, folder: Path, log: Log) -> tuple[Pictures, dict[int, int]]:
    """The images that can be read; the row of every image id, -1 for one that is left out."""
    ids = table.whole("id").tolist()
    first = table.unique("id", ids, log, "image-twice")
    names = table.texts("file_name")
    paths = [folder / names[index] for index in first]
    rows = dict.fromkeys(ids, -1)
    kept, sizes = measured(
        paths,
        log,
        lambda one: f'{table.file}: image {ids[first[one]]}: field "file_name"',
        lambda some: numbered("image", [ids[first[one]] for one in some]),
    )
    chosen = [first[one] for one in kept]
    rows |= {ids[index]: row for row, index in enumerate(chosen)}
    declared = np.stack((table.whole("height", 0), table.whole("width", 0)), axis=1)[chosen]
    differs = (declared != sizes).any(axis=1) & (declared > 0).all(axis=1)
    other = [ids[chosen[row]] for row in np.flatnonzero(differs)]
    what = "image sizes taken from the file, the annotations disagree"
    log.repair("size-differs", what, len(other), numbered("image", other[:SHOWN]))
    return Pictures([ids[index] for index in chosen], [paths[one] for one in kept], sizes), rows


def _boxes(table: Table, labels: dict[int, int], rows: dict[int, int], log: Log) -> Boxes:
    table = table.sound(partial(_check_box, labels=labels, rows=rows), log, "annotation-entry")
    ids = table.whole("id")
    if len(np.unique(ids)) != len(ids):
        table.unique("id", ids.tolist(), log, "annotation-twice")
    images = np.array([rows[image] for image in table.whole("image_id").tolist()], dtype=np.int64)
    kinds = [labels[kind] for kind in table.whole("category_id").tolist()]
    boxes, areas = table.boxes("bbox"), table.numbers("area", float("nan"))
    known = np.isfinite(areas) & (areas > 0)
    read = Boxes(
        ids,
        images,
        np.array(kinds, dtype=np.int64),
        np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
        table.whole("iscrowd", 0).astype(bool),
        np.where(known, areas, float("nan")),
    )
    return read.only(images >= 0)


def _check_box(table: Table, labels: dict[int, int], rows: dict[int, int]) -> None:
    table.whole("id")
    images, kinds = table.whole("image_id").tolist(), table.whole("category_id").tolist()
    for index, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        if image not in rows:
            table.fail(index, "image_id", 'the id of an entry under "images"')
        if kind not in labels:
            table.fail(index, "category_id", f"one of {_ids(labels)}")
    table.boxes("bbox")
    table.numbers("area", float("nan"))
    crowd = table.whole("iscrowd", 0)
    if not np.isin(crowd, (0, 1)).all():
        table.fail(int(np.flatnonzero(~np.isin(crowd, (0, 1)))[0]), "iscrowd", "0 or 1")


def _ids(labels: dict[int, int]) -> str:
    known = sorted(labels)
    return ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")
