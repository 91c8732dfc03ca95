"""Data sets to disk as COCO, YOLO or Pascal VOC: a new folder, whole or not at all.

Boxes keep three decimals of a pixel (COCO, Pascal VOC) or eight of a fraction (YOLO). YOLO knows
no crowds, so boxes around many objects are left out there; Pascal VOC marks them difficult.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
import yaml

from leandetr.boxes import to_unit, xyxy_to_cxcywh
from leandetr.data.dataset import DetectionData, Sample, to_coco
from leandetr.data.findings import unwatched
from leandetr.data.twins import Watch
from leandetr.errors import DataError, OutputExists
from leandetr.files import write_json, write_text

DECIMALS = 3
"""Of a pixel, in COCO and Pascal VOC files."""

FINE = 8
"""Decimals of a fraction of the image, in YOLO files: a hundred-thousandth of a pixel."""


@dataclass(frozen=True)
class Bearer:
    """Brings image files to the new data set: copies, or with `link` symbolic links."""

    link: bool = False
    watch: Watch = unwatched

    def bring(self, samples: Sequence[Sample], names: Sequence[str], folder: Path) -> None:
        """Put the samples' files into `folder` under new names."""
        folder.mkdir(parents=True, exist_ok=True)
        for sample, name in self.watch(list(zip(samples, names, strict=True))):
            if self.link:
                (folder / name).symlink_to(sample.path.resolve())
            else:
                shutil.copyfile(sample.path, folder / name)


Writer = Callable[[Path, Mapping[str, DetectionData], Bearer], None]
"""Writes all splits of a data set into a folder that is empty."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling to fill, which becomes `out` when the block ends well.

    Raises `OutputExists` if there is anything at `out`, and `DataError` if nothing can be written
    there. After an error nothing is left.
    """
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputExists(f"{out}: expected a new or empty folder; choose another")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(
            f"{out}: expected a place for a new folder, but {error}; choose another"
        ) from error
    try:
        yield partial
        if out.exists():  # somebody may be in it: it has to stay the folder that it is
            for path in partial.iterdir():
                path.rename(out / path.name)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unique_names(samples: Sequence[Sample], taken: set[str] | None = None) -> list[str]:
    """File names, a number added where another one has the same, whatever case and suffix.

    `taken` holds what is used already, and is added to.
    """
    used = set() if taken is None else taken
    names = []
    for sample in samples:
        stem, number = sample.path.stem, 1
        while stem.casefold() in used:
            number += 1
            stem = f"{sample.path.stem}-{number}"
        used.add(stem.casefold())
        names.append(stem + sample.path.suffix)
    return names


def write_coco(root: Path, splits: Mapping[str, DetectionData], bearer: Bearer) -> None:
    """annotations/instances_<split>.json and images/<split>/, with the ids of the source."""
    (root / "annotations").mkdir()
    for split, data in splits.items():
        names = unique_names(data.samples)
        bearer.bring(data.samples, names, root / "images" / split)
        value = to_coco(data)
        for image, name in zip(value["images"], names, strict=True):
            image["file_name"] = name
        for row in value["annotations"]:
            row["bbox"] = _rounded(*row["bbox"])
            row["area"] = round(row["area"], DECIMALS)
        write_json(root / "annotations" / f"instances_{split}.json", value, indent=None)


def _rounded(x: float, y: float, width: float, height: float) -> list[float]:
    """A COCO box both of whose corners are rounded, not its size."""
    left, top = round(x, DECIMALS), round(y, DECIMALS)
    right, bottom = round(x + width, DECIMALS), round(y + height, DECIMALS)
    return [left, top, round(right - left, DECIMALS), round(bottom - top, DECIMALS)]


def write_yolo(root: Path, splits: Mapping[str, DetectionData], bearer: Bearer) -> None:
    """data.yaml, images/<split>/ and labels/<split>/; classes are numbered anew from 0.

    Raises `DataError` for splits that the format has no name for.
    """
    unknown = [split for split in splits if split not in ("train", "val", "test")]
    if unknown:
        raise DataError(
            f"expected the splits train, val and test, got {', '.join(unknown)}: "
            "YOLO has no others; write COCO (--to coco), or rename them"
        )
    names = next(iter(splits.values())).names
    about = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(names))}
    text = yaml.safe_dump(about, allow_unicode=True, sort_keys=False, width=1000)
    write_text(root / "data.yaml", text)
    for split, data in splits.items():
        files = unique_names(data.samples)
        bearer.bring(data.samples, files, root / "images" / split)
        folder = root / "labels" / split
        folder.mkdir(parents=True)
        for sample, file in zip(data.samples, files, strict=True):
            lines = "".join(_yolo_lines(sample))
            (folder / f"{Path(file).stem}.txt").write_text(lines, encoding="utf-8")


def _yolo_lines(sample: Sample) -> Iterator[str]:
    size = torch.tensor(sample.size, dtype=torch.float64)
    boxes = xyxy_to_cxcywh(to_unit(sample.boxes.double(), size))[~sample.crowd]
    for label, box in zip(sample.labels[~sample.crowd].tolist(), boxes.tolist(), strict=True):
        yield " ".join((str(label), *(f"{number:.{FINE}f}" for number in box))) + "\n"


def write_voc(root: Path, splits: Mapping[str, DetectionData], bearer: Bearer) -> None:
    """JPEGImages/, Annotations/ and ImageSets/Main/<split>.txt.

    Raises `DataError` for class names that XML would not give back.
    """
    for name in {name for data in splits.values() for name in data.names}:
        if name != name.strip() or not name.isprintable():
            raise DataError(
                f"expected class names without control characters or spaces at an end, got "
                f"{name!r}; rename it to write Pascal VOC"
            )
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    taken: set[str] = set()
    for split, data in splits.items():
        files = unique_names(data.samples, taken)
        bearer.bring(data.samples, files, root / "JPEGImages")
        for sample, file in zip(data.samples, files, strict=True):
            page = _voc_page(sample, file, data.names)
            (root / "Annotations" / f"{Path(file).stem}.xml").write_bytes(page)
        stems = "".join(f"{Path(file).stem}\n" for file in files)
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", stems)


def _voc_page(sample: Sample, file: str, names: Sequence[str]) -> bytes:
    page = ElementTree.Element("annotation")
    _leaf(page, "filename", file)
    size = ElementTree.SubElement(page, "size")
    for tag, value in zip(("height", "width", "depth"), (*sample.size, 3), strict=True):
        _leaf(size, tag, str(value))
    columns = (sample.boxes.tolist(), sample.labels.tolist(), sample.crowd.tolist())
    for corners, label, crowd in zip(*columns, strict=True):
        thing = ElementTree.SubElement(page, "object")
        _leaf(thing, "name", names[int(label)])
        _leaf(thing, "difficult", str(int(crowd)))
        box = ElementTree.SubElement(thing, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _leaf(box, tag, f"{value:.{DECIMALS}f}".rstrip("0").rstrip("."))
    ElementTree.indent(page)
    return ElementTree.tostring(page, encoding="utf-8") + b"\n"


def _leaf(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


WRITERS: dict[str, Writer] = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}
"""By the name on the command line."""
