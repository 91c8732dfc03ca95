"""Can a model learn a few of these images by heart? If it cannot, this says what is likely wrong.

The cheapest test of data and settings there is: `leandetr train RECIPE --data DIR --overfit 8`.
"""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from leandetr.boxes import iou
from leandetr.data.dataset import Category, DetectionData, Sample, to_coco
from leandetr.data.transforms import PlainAugment
from leandetr.errors import DataError
from leandetr.evaluation.coco import score
from leandetr.evaluation.evaluate import detect
from leandetr.models.detector import Detector
from leandetr.recipes.recipe import Recipe
from leandetr.training.record import Row

ENOUGH = 0.9
"""AP50, in 0..1, from which images count as learned."""

STEPS = 1500
"""Optimiser steps in which a detector should have learned a handful of images."""

LOOK_EVERY = 50
"""Steps from one look at the AP to the next."""

SMALL = 8
"""Pixels of the prepared image below which a side of a box is hard to see."""

STILL = 0.7
"""Share of the first epoch's loss above which it has hardly fallen."""

SAME_PLACE = 0.9
"""IoU from which two boxes are the same."""


def rounds(recipe: Recipe, images: int) -> int:
    """How often an epoch shows each image, so that it has some steps: it ends with a checkpoint."""
    return max(math.ceil(LOOK_EVERY * recipe.train.batch / images), 1)


def learner(recipe: Recipe, images: int, *, epochs: int | None = None) -> Recipe:
    """The recipe that learns so few images by heart, in `epochs` of some `rounds` each.

    Nothing that keeps from it: no augmentation, dropout, averaging or decay, a rate that stays.
    """
    how = recipe.train
    batch = min(how.batch * how.accumulate, images)
    a_epoch = max(images // batch, LOOK_EVERY)
    train = replace(
        how,
        epochs=math.ceil(STEPS / a_epoch) if epochs is None else epochs,
        batch=batch,
        accumulate=1,
        augment=PlainAugment(),
        ema=None,
        weight_decay=0.0,
        schedule="steps",
        drops=(),
        warmup=min(how.warmup, LOOK_EVERY),
        validate_every=1,
        patience=None,
    )
    return replace(recipe, model=_without_dropout(recipe.model), train=train)


def _without_dropout(part: Any) -> Any:
    """A config and all configs in it, with every `dropout` at zero."""
    if isinstance(part, tuple):
        return tuple(_without_dropout(one) for one in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {
        item.name: 0.0 if item.name == "dropout" else _without_dropout(getattr(part, item.name))
        for item in fields(part)
    }
    return replace(part, **changed)


def some_images(data: DetectionData, count: int, seed: int) -> DetectionData:
    """So many images of `data` that have boxes, drawn by `seed`; all of them if there are fewer.

    Raises `DataError` if no image has a box.
    """
    full = [sample for sample in data.samples if not bool(sample.crowd.all())]
    if not full:
        raise DataError(f"{data.name}: expected images with boxes to learn by heart, found none")
    order = torch.randperm(len(full), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = tuple(full[index] for index in sorted(order[:count]))
    return replace(data, name=f"{len(chosen)} images of {data.name}", samples=chosen)


def likely_causes(model: Detector, data: DetectionData, rows: Sequence[Row]) -> list[str]:
    """Why `model` did not learn the images of `data`, as sentences; the likeliest first."""
    found = [
        _not_finite(rows),
        _too_few_queries(model, data),
        _contradictions(data),
        _tiny_boxes(model, data),
        _mixed_up_classes(model, data),
        _still_loss(rows),
    ]
    return [cause for cause in found if cause is not None] or [
        f"the loss fell and the boxes are sound: more steps may do (--epochs {2 * len(rows)}), or "
        "a higher rate (--set train.lr=...)"
    ]


def _not_finite(rows: Sequence[Row]) -> str | None:
    skipped = sum(row.skipped for row in rows)
    if not skipped:
        return None
    return f"{skipped} steps were not finite: lower the rate (--set train.lr=...)"


def _too_few_queries(model: Detector, data: DetectionData) -> str | None:
    queries = getattr(model.recipe.model.queries, "count", None)
    if queries is None or data.most_boxes <= queries:
        return None
    return (
        f"an image has {data.most_boxes} objects and the model {queries} queries, each of which "
        f"finds one at most: add --set queries.count={2 * data.most_boxes}"
    )


def _contradictions(data: DetectionData) -> str | None:
    """Boxes in the same place that are said to be of two classes."""
    where = [sample.path.name for sample in data.samples if _contradicts(sample)]
    if not where:
        return None
    return (
        f"{len(where)} images say that one box is of two classes ({where[0]}, say): mend the "
        "annotations; leandetr data check lists them"
    )


def _contradicts(sample: Sample) -> bool:
    same = iou(sample.boxes[:, None], sample.boxes[None]) > SAME_PLACE
    return bool((same & (sample.labels[:, None] != sample.labels)).any())


def _tiny_boxes(model: Detector, data: DetectionData) -> str | None:
    sides = []
    for sample in data.samples:
        height, width = model.preprocess.resized(*sample.size)
        scale = torch.tensor([width / sample.size[1], height / sample.size[0]])
        sides.append(((sample.boxes[:, 2:] - sample.boxes[:, :2]) * scale).amin(dim=1))
    median = float(torch.cat(sides).median())
    if median >= SMALL:
        return None
    return (
        f"half of the boxes are less than {median:.1f} pixels wide or high once the image is "
        f"resized: train on larger images (--set preprocess.short={2 * model.preprocess.short} "
        f"--set preprocess.long={2 * model.preprocess.long}), or cut them into tiles"
    )


def _mixed_up_classes(model: Detector, data: DetectionData) -> str | None:
    """Whether everything is found, but called by the wrong name."""
    if len(data.categories) == 1:
        return None
    one = Category(data.categories[0].id, "anything")
    truth = to_coco(data)
    for annotation in truth["annotations"]:
        annotation["category_id"] = one.id
    truth["categories"] = [{"id": one.id, "name": one.name}]
    found = [result | {"category_id": one.id} for result in detect(model, data, workers=0)]
    agnostic = score(truth, found).ap50
    if math.isnan(agnostic) or agnostic < ENOUGH:
        return None
    return (
        f"boxes are found (AP50 {agnostic:.2f} without regard to class) but called by the wrong "
        "name: look whether the classes can be told apart, and whether ids and names fit"
    )


def _still_loss(rows: Sequence[Row]) -> str | None:
    if len(rows) < 2 or rows[-1].loss < STILL * rows[0].loss:
        return None
    return (
        f"the loss hardly fell ({rows[0].loss:.3g} to {rows[-1].loss:.3g}): the rate is too "
        "low, or too high for it to settle (--set train.lr=...); see curves.png"
    )
