"""Small data sets in every format, the same pictures and boxes in each, written for a test."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

NAMES = ("cell", "dust é", "a/b c")
WIDTH, HEIGHT = 40, 32

Rows = list[tuple[int, tuple[float, float, float, float]]]
"""Labels and xywh in pixels."""

BOXES: dict[str, Rows] = {
    "one": [(0, (2, 3, 10, 12)), (1, (20.5, 8, 6.25, 7)), (2, (0, 0, 40, 32))],
    "two": [(0, (5, 5, 3, 4))],
    "three": [(1, (30, 20, 10, 12)), (2, (1, 1, 20, 20))],
    "empty": [],
}


def picture(path: Path, seed: int = 0) -> Path:
    """A picture of noise, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def text(path: Path, words: str) -> Path:
    """A text file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(words, encoding="utf-8")
    return path


def coco_value(
    boxes: dict[str, Rows] = BOXES, names: Sequence[str] = NAMES, first: int = 1
) -> dict:
    """The content of a COCO file."""
    images = [
        {"id": i, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(boxes, start=1)
    ]
    rows = [(i, *row) for i, rows in enumerate(boxes.values(), start=1) for row in rows]
    return {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=first)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label + first, "bbox": list(box)}
            for i, (image, label, box) in enumerate(rows, start=1)
        ],
    }


def write_coco(root: Path, split: str = "train", boxes: dict[str, Rows] = BOXES) -> Path:
    """annotations/instances_<split>.json and images/<split>/."""
    value = json.dumps(coco_value(boxes))
    text(root / "annotations" / f"instances_{split}.json", value)
    for seed, name in enumerate(boxes):
        picture(root / "images" / split / f"{name}.png", seed)
    return root


def write_roboflow(root: Path, split: str = "train", boxes: dict[str, Rows] = BOXES) -> Path:
    """<split>/_annotations.coco.json, with the category that heads the others."""
    value = coco_value(boxes)
    for category in value["categories"]:
        category["supercategory"] = "things"
    value["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    text(root / split / "_annotations.coco.json", json.dumps(value))
    for seed, name in enumerate(boxes):
        picture(root / split / f"{name}.png", seed)
    return root


def yolo_lines(rows: Rows) -> str:
    """The content of a label file."""
    return "".join(
        f"{label} {(x + w / 2) / WIDTH:.8f} {(y + h / 2) / HEIGHT:.8f} {w / WIDTH:.8f} "
        f"{h / HEIGHT:.8f}\n"
        for label, (x, y, w, h) in rows
    )


def write_yolo(root: Path, split: str = "train", boxes: dict[str, Rows] = BOXES) -> Path:
    """data.yaml, images/<split>/ and labels/<split>/; calls with other splits add to it."""
    about = root / "data.yaml"
    value = yaml.safe_load(about.read_text()) if about.exists() else {"names": list(NAMES)}
    value[split] = f"images/{split}"
    text(about, yaml.safe_dump(value, allow_unicode=True))
    for seed, (name, rows) in enumerate(boxes.items()):
        picture(root / "images" / split / f"{name}.png", seed)
        if rows:
            text(root / "labels" / split / f"{name}.txt", yolo_lines(rows))
    return root


def voc_page(name: str, rows: Rows, names: Sequence[str] = NAMES) -> str:
    """The content of an XML file."""
    things = "".join(
        f"<object><name>{names[label]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>\n"
        for label, (x, y, w, h) in rows
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.png</filename>{size}\n{things}</annotation>\n"


def write_voc(root: Path, split: str = "train", boxes: dict[str, Rows] = BOXES) -> Path:
    """JPEGImages/, Annotations/ and ImageSets/Main/<split>.txt."""
    for seed, (name, rows) in enumerate(boxes.items()):
        picture(root / "JPEGImages" / f"{name}.png", seed)
        text(root / "Annotations" / f"{name}.xml", voc_page(name, rows))
    text(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(boxes) + "\n")
    return root


WRITERS = {
    "coco": write_coco,
    "roboflow": write_roboflow,
    "yolo": write_yolo,
    "voc": write_voc,
}
