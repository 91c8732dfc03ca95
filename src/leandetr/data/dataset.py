"""What every annotation format is read into: categories, and one sample an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandetr.errors import DataError


@dataclass(frozen=True)
class Category:
    """A class by its name, with the id it has in the source file."""

    id: int
    name: str


@dataclass(frozen=True)
class Sample:
    """One image file and its boxes: xyxy in pixels of the upright picture, clipped to it.

    `size` is (height, width) of the upright file. Labels count from 0 in the order of
    `DetectionData.categories`. `crowd` marks boxes around many objects: they are left out of
    training and honoured in evaluation. `areas` are square pixels, of the object where the
    source knows it and of the box otherwise.
    """

    path: Path
    image_id: int
    size: tuple[int, int]
    boxes: Float[Tensor, "T 4"]
    labels: Int[Tensor, " T"]
    crowd: Bool[Tensor, " T"]
    areas: Float[Tensor, " T"]


@dataclass(frozen=True)
class DetectionData:
    """A data set in memory, without its pixels; `warnings` has one sentence a kind of repair."""

    name: str
    categories: tuple[Category, ...]
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by label."""
        return tuple(category.name for category in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Ids of the classes in the source file, by label."""
        return tuple(category.id for category in self.categories)

    @property
    def boxes(self) -> int:
        """How many boxes there are to learn from: crowds do not count."""
        return sum(int((~sample.crowd).sum()) for sample in self.samples)

    @property
    def most_boxes(self) -> int:
        """Boxes of the fullest image, crowds left out: a detector needs more queries than that."""
        return max((int((~sample.crowd).sum()) for sample in self.samples), default=0)


def require_boxes(data: DetectionData) -> None:
    """Check that a detector can learn from `data`. Raises `DataError` saying what is missing."""
    if not data.samples:
        raise DataError(f"{data.name}: has no images, training expects at least one; add some")
    if not data.categories:
        raise DataError(
            f"{data.name}: has no categories, training expects at least one; "
            'add them under "categories"'
        )
    if not data.boxes:
        raise DataError(
            f"{data.name}: has {len(data.samples)} images but not one box to learn from; "
            'add boxes under "annotations", or use it for evaluation only'
        )


def to_coco(data: DetectionData) -> dict:
    """Ground truth for COCO evaluation: original image and category ids, crowds included.

    Annotations are numbered from 1, since pycocotools takes an id of 0 for "not matched".
    """
    annotations = []
    for sample in data.samples:
        sizes = torch.cat((sample.boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]), dim=1)
        for box, label, crowd, area in zip(
            sizes.tolist(),
            sample.labels.tolist(),
            sample.crowd.tolist(),
            sample.areas.tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": sample.image_id,
                    "category_id": data.categories[label].id,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    return {
        "info": {"description": data.name},
        "licenses": [],
        "categories": [{"id": c.id, "name": c.name} for c in data.categories],
        "images": [_coco_image(sample) for sample in data.samples],
        "annotations": annotations,
    }


def _coco_image(sample: Sample) -> dict:
    height, width = sample.size
    return {
        "id": sample.image_id,
        "file_name": sample.path.name,
        "height": height,
        "width": width,
    }


def subset(data: DetectionData, indices: Sequence[int]) -> DetectionData:
    """The samples at `indices`, with the same categories."""
    return DetectionData(
        data.name, data.categories, tuple(data.samples[i] for i in indices), data.warnings
    )
