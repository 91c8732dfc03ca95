"""A data set of a few tiny pictures and a detector that trains on it in seconds."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from leandetr.recipes.recipe import Recipe

# `leandetr` is imported inside fixtures: the shape checker must hook its first import

TINY = (
    "dim=16",
    "queries.count=12",
    "encoder.layers=1",
    "encoder.heads=2",
    "encoder.points=1",
    "encoder.hidden=16",
    "decoder.layers=2",
    "decoder.heads=2",
    "decoder.points=1",
    "decoder.hidden=16",
    "backbone.widths=[8, 8, 8, 8]",
    "preprocess.short=32",
    "preprocess.long=48",
    "train.augment=plain",
    "train.epochs=2",
    "train.batch=2",
    "train.workers=0",
    "train.lr=1e-3",
)


def write_split(root: Path, split: str, images: int, boxes: int = 2) -> None:
    """A COCO split of dark pictures with bright rectangles of two kinds."""
    rng = np.random.default_rng(images)
    folder = root / "images" / split
    folder.mkdir(parents=True)
    coco: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}],
    }
    for number in range(images):
        picture = np.zeros((32, 40, 3), np.uint8)
        coco["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": 32, "width": 40}
        )
        for _ in range(boxes):
            kind, (x, y) = int(rng.integers(2)), rng.integers((28, 20)).tolist()
            picture[y : y + 10, x : x + 10, kind] = 255
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]),
                    "image_id": number,
                    "category_id": (3, 7)[kind],
                    "bbox": [x, y, 10, 10],
                    "area": 100,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(picture).save(folder / f"{number}.png")
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and two validation pictures."""
    root = tmp_path_factory.mktemp("pictures")
    write_split(root, "train", 5)
    write_split(root, "val", 2)
    return root


@pytest.fixture(scope="session")
def make_split() -> Callable[..., None]:
    """`make_split(root, split, images, boxes)` writes a split of such pictures."""
    return write_split


@pytest.fixture(scope="session")
def tiny() -> "Recipe":
    """A DINO of a few thousand weights, trained plainly."""
    from leandetr.recipes.assemble import recipe
    from leandetr.recipes.codec import override
    from leandetr.recipes.recipe import Recipe, TrainRecipe

    plain = Recipe("tiny", recipe("dino-nano").model, train=TrainRecipe(drops=()))
    return override(plain, TINY)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No test leaves a handler behind."""
    before = list(logging.getLogger("leandetr").handlers)
    yield
    assert logging.getLogger("leandetr").handlers == before
