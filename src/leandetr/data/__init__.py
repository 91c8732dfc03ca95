"""Data sets: annotations to samples, samples to augmented batches."""

from leandetr.data.coco import read_coco
from leandetr.data.dataset import (
    Category,
    DetectionData,
    Sample,
    require_boxes,
    subset,
    to_coco,
)
from leandetr.data.derive import convert, sample, split
from leandetr.data.doctor import Report, check
from leandetr.data.loader import Batch, DetectionSet, Item, collate
from leandetr.data.scenes import write_scenes
from leandetr.data.sources import find_splits, load_data, recognise
from leandetr.data.transforms import (
    AugmentConfig,
    DetrAugment,
    LsjAugment,
    PlainAugment,
    SmallDataAugment,
    augmentations,
)
from leandetr.data.view import View

__all__ = [
    "AugmentConfig",
    "Batch",
    "Category",
    "DetectionData",
    "DetectionSet",
    "DetrAugment",
    "Item",
    "LsjAugment",
    "PlainAugment",
    "Report",
    "Sample",
    "SmallDataAugment",
    "View",
    "augmentations",
    "check",
    "collate",
    "convert",
    "find_splits",
    "load_data",
    "read_coco",
    "recognise",
    "require_boxes",
    "sample",
    "split",
    "subset",
    "to_coco",
    "write_scenes",
]
