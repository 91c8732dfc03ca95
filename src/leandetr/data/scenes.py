"""Synthetic scenes to try things on, as a data set in COCO format."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from leandetr.data.shapes import SHAPES, Scene, draw_scene
from leandetr.errors import DataError, OutputExists
from leandetr.files import write_json

SHORTEST = 32
"""Pixels an image's short side needs, so that there is a choice of sizes."""

ROOM = 144
"""Pixels of image for each object, at least: below, finding a free place becomes luck."""


def write_scenes(
    out: Path | str,
    *,
    train: int = 64,
    val: int = 16,
    size: tuple[int, int] = (240, 320),
    objects: tuple[int, int] = (8, 40),
    seed: int = 0,
) -> Path:
    """Draw a data set of scenes into the new folder `out`, for `load_data` to read; returns it.

    `size` is (height, width) in pixels, `objects` the fewest and the most in a scene. Sizes of
    objects are log-uniform, so most are small. A scene depends on `seed`, its split and its number
    only: asking for more scenes adds to them. Boxes hold what is visible.
    Raises `OutputExists` if `out` has anything in it, and `DataError`.
    """
    out = Path(out)
    _check(size, objects, {"train": train, "val": val}, seed)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputExists(f"{out}: expected a new or empty folder; choose another")
    (out / "annotations").mkdir(parents=True)
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        folder = out / "images" / split
        folder.mkdir(parents=True)
        rows = _Rows()
        for index in range(count):
            scene = draw_scene(np.random.default_rng([seed, number, index]), size, objects)
            name = f"{index:06d}.png"
            Image.fromarray(scene.pixels).save(folder / name)
            rows.add(name, scene)
        write_json(out / "annotations" / f"instances_{split}.json", rows.coco(), indent=None)
    return out


def _check(
    size: tuple[int, int], objects: tuple[int, int], scenes: dict[str, int], seed: int
) -> None:
    """Raise `DataError` for what cannot be drawn."""
    for split, count in scenes.items():
        if count < 1:
            raise DataError(f"{split}={count}: expected at least one scene to {split} on")
    if seed < 0:
        raise DataError(f"seed={seed}: expected 0 or more")
    if min(size) < SHORTEST:
        raise DataError(f"size={size}: expected (height, width) of at least {SHORTEST} pixels each")
    fewest, most = objects
    if not 1 <= fewest <= most:
        raise DataError(f"objects={objects}: expected (fewest, most), 1 or more and in this order")
    room = size[0] * size[1] // ROOM
    if most > room:
        raise DataError(
            f"objects={objects}: {size[0]} x {size[1]} pixels have room for {room} objects; "
            "ask for fewer, or for a larger size"
        )


@dataclass(frozen=True)
class _Rows:
    """The rows of a COCO file; ids count from 1."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, scene: Scene) -> None:
        height, width, _ = scene.pixels.shape
        image = {"id": len(self.images) + 1, "file_name": name, "height": height, "width": width}
        self.images.append(image)
        columns = (scene.boxes.tolist(), scene.labels.tolist(), scene.areas.tolist())
        for (x0, y0, x1, y1), label, area in zip(*columns, strict=True):
            row = {"id": len(self.annotations) + 1, "image_id": image["id"], "iscrowd": 0}
            row |= {"category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": area}
            self.annotations.append(row)

    def coco(self) -> dict[str, Any]:
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPES)]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}
