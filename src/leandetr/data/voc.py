"""Pascal VOC data sets: an XML file for each image, corners in pixels, classes by name.

Corners are taken as they stand: `xmin` 1 is one pixel from the left edge, as the tools that
write the format today mean it. `difficult` objects are left out of training and of scores.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from leandetr.data.coco import stays_inside
from leandetr.data.dataset import Category
from leandetr.data.findings import SHOWN, How, Log
from leandetr.data.reading import Boxes, Pictures, Reading, measured
from leandetr.errors import DataError
from leandetr.images import IMAGE_SUFFIXES

_OBJECT = 2**20
"""Ids of boxes are file * _OBJECT + object, for messages."""

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Thing:
    """One object of a file: its place among the others, from 1, and corners in pixels."""

    number: int
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class Page:
    """What an XML file says; `bad` are sentences about objects that cannot be used."""

    filename: str = ""
    size: tuple[int, int] = (0, 0)
    things: tuple[Thing, ...] = ()
    bad: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pages:
    """The XML files of a data set, each parsed once.

    `root` is left out of names in messages; images are looked for in `folders`.
    """

    root: Path
    folders: tuple[Path, ...]
    files: dict[str, tuple[Path, ...]]

    @cached_property
    def parsed(self) -> dict[Path, Page | str]:
        """Each file's page, or what is wrong with the file."""
        return {file: _parse(file) for files in self.files.values() for file in files}

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """All classes of all splits, by name; ids count from 1."""
        pages = (page for page in self.parsed.values() if isinstance(page, Page))
        names = sorted({thing.name for page in pages for thing in page.things})
        return tuple(Category(number, name) for number, name in enumerate(names, start=1))

    @cached_property
    def images(self) -> dict[str, Path]:
        """Image files by name without suffix; the first folder goes first."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    found.setdefault(path.stem, path)
        return found

    def shown(self, path: Path) -> str:
        """A file as messages call it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def image(self, file: Path, page: Page) -> Path:
        """The image of an XML file: of the same name, or as it says itself."""
        beside = [file.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
        near = next((path for path in beside if path.is_file()), self.images.get(file.stem))
        if near is not None:
            return near
        inside = page.filename and stays_inside(page.filename)
        return self.folders[0] / (page.filename if inside else f"{file.stem}.jpg")


def reading(pages: Pages, split: str, name: str, how: How) -> Reading:
    """One split as its XML files say. Raises `DataError` at the first mistake when strict."""
    log, files = Log(name, how), pages.files[split]
    if not files:
        raise DataError(f"{name}: has no annotations, expected at least one XML file")
    sound, bad = [], []
    for file in files:
        page = pages.parsed[file]
        if isinstance(page, str):
            log.refuse("xml-file", "XML files that cannot be read", f"{pages.shown(file)}: {page}")
        else:
            sound.append((file, page))
            bad += [f"{pages.shown(file)}: {sentence}" for sentence in page.bad]
    for sentence in bad:
        log.refuse("xml-object", "objects that are no box", sentence)
    paths = [pages.image(file, page) for file, page in sound]
    shown = [pages.shown(file) for file, _ in sound]
    kept, sizes = measured(paths, log, shown.__getitem__, lambda some: [shown[i] for i in some])
    declared = np.array([sound[i][1].size for i in kept], dtype=np.int64).reshape(-1, 2)
    differs = (declared != sizes).any(axis=1) & (declared > 0).all(axis=1)
    other = [shown[kept[row]] for row in np.flatnonzero(differs)]
    what = "image sizes taken from the file, the annotations disagree"
    log.repair("size-differs", what, len(other), other[:SHOWN])
    pictures = Pictures([one + 1 for one in kept], [paths[one] for one in kept], sizes)
    boxes = _boxes([sound[one] for one in kept], kept, pages.categories)

    def place(ids: Sequence[int]) -> list[str]:
        return [f"{shown[one // _OBJECT]} object {one % _OBJECT}" for one in ids]

    return Reading(name, pages.categories, pictures, boxes, log, place)


def _boxes(
    pages: Sequence[tuple[Path, Page]], numbers: Sequence[int], categories: Sequence[Category]
) -> Boxes:
    labels = {category.name: label for label, category in enumerate(categories)}
    rows = [(row, thing) for row, (_, page) in enumerate(pages) for thing in page.things]
    ids = [numbers[row] * _OBJECT + thing.number for row, thing in rows]
    corners = [thing.corners for _, thing in rows]
    return Boxes(
        np.array(ids, dtype=np.int64),
        np.array([row for row, _ in rows], dtype=np.int64),
        np.array([labels[thing.name] for _, thing in rows], dtype=np.int64),
        np.array(corners, dtype=np.float64).reshape(-1, 4),
        np.array([thing.difficult for _, thing in rows], dtype=bool),
        np.full(len(rows), np.nan),
    )


def is_page(file: Path) -> bool:
    """Whether an XML file looks like an annotation in this format, also a damaged one."""
    with file.open("rb") as opened:
        head = opened.read(512)
    return not head.strip() or re.search(rb"<annotation[\s>]", head) is not None


def _parse(file: Path) -> Page | str:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return "no such file, but its name is in the list of the split"
    except OSError as error:
        return f"cannot be read ({type(error).__name__})"
    if not text.strip():
        return "is empty, expected <annotation>"
    if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
        return "declares entities, which are refused; expected plain <annotation>"
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  (declarations are refused above)
    except ElementTree.ParseError as error:
        return f"broken XML at line {error.position[0]} column {error.position[1]}"
    if root.tag != "annotation":
        return f"expected <annotation>, got <{root.tag}>"
    things, bad = [], []
    for number, element in enumerate(root.iterfind("object"), start=1):
        try:
            things.append(_thing(number, element))
        except ValueError as error:
            bad.append(f"object {number}: {error}")
    size = (_whole(root, "size/height"), _whole(root, "size/width"))
    filename = (root.findtext("filename") or "").strip()
    return Page(filename, size, tuple(things), tuple(bad))


def _thing(number: int, element: ElementTree.Element) -> Thing:
    """One object. Raises `ValueError` saying what is wrong with it."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("expected a <name>, got nothing")
    box = element.find("bndbox")
    if box is None:
        others = [child.tag for child in element if child.tag not in ("name", "pose")]
        raise ValueError(f"expected a <bndbox>, got {', '.join(others) or 'nothing'}")
    corners = tuple(_finite(box, side) for side in SIDES)
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Thing(number, name, corners, difficult)  # pyright: ignore[reportArgumentType]


def _finite(box: ElementTree.Element, side: str) -> float:
    text = (box.findtext(side) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{side}: expected a number of pixels, got '{text[:40]}'")
    return number


def _whole(root: ElementTree.Element, path: str) -> int:
    """A declared size; 0, which is never compared, where there is none."""
    text = (root.findtext(path) or "").strip()
    return int(text) if text.isdigit() else 0


def listed(file: Path) -> list[str] | None:
    """The image names in a list under ImageSets; None for the list of a single class."""
    rows = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    rows = [row for row in rows if row]
    if rows and all(len(row) == 2 and row[1] in ("1", "-1", "0") for row in rows):
        return None
    return [" ".join(row) for row in rows]


def xml_files(folder: Path) -> Iterator[Path]:
    """The XML files of a folder, sorted."""
    return (path for path in sorted(folder.glob("*.xml")) if path.is_file())
