"""Counts of a data set: images, boxes, sizes and classes of each split."""

from dataclasses import dataclass

import numpy as np
import torch

from leandetr.data.dataset import DetectionData
from leandetr.data.splits import usual

SMALL, LARGE = 32**2, 96**2
"""COCO's borders of small, medium and large objects, in square pixels."""


@dataclass(frozen=True)
class Part:
    """One split of one source."""

    source: str
    format: str
    split: str
    data: DetectionData

    @property
    def usual(self) -> str:
        """What the split is called here."""
        return usual(self.split)


@dataclass(frozen=True)
class Numbers:
    """What is counted in a part; sizes are (height, width) in pixels, crowds are left out."""

    images: int
    empty: int
    boxes: int
    crowds: int
    most: int
    median: float
    small: int
    medium: int
    large: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    classes: dict[str, int]


def count(data: DetectionData) -> Numbers:
    """Count a part."""
    each = [int((~sample.crowd).sum()) for sample in data.samples]
    areas = torch.cat([torch.zeros(0), *(one.areas[~one.crowd] for one in data.samples)])
    labels = torch.cat(
        [torch.zeros(0, dtype=torch.int64), *(one.labels[~one.crowd] for one in data.samples)]
    )
    found = torch.bincount(labels, minlength=len(data.categories)).tolist()
    sizes = sorted((one.size for one in data.samples), key=lambda size: size[0] * size[1])
    small, large = int((areas < SMALL).sum()), int((areas >= LARGE).sum())
    return Numbers(
        images=len(data),
        empty=sum(number == 0 for number in each),
        boxes=len(areas),
        crowds=sum(int(sample.crowd.sum()) for sample in data.samples),
        most=max(each, default=0),
        median=float(np.median(each)) if each else 0.0,
        small=small,
        medium=len(areas) - small - large,
        large=large,
        smallest=sizes[0] if sizes else (0, 0),
        largest=sizes[-1] if sizes else (0, 0),
        classes=dict(zip(data.names, found, strict=True)),
    )
