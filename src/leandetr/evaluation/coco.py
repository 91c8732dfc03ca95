"""The COCO metrics of a set of detections: twelve numbers, and AP for every class.

The matching is done by faster-coco-eval (the same results as pycocotools, in C++); this file asks
it and averages. A score that nothing can be measured by (a class or a size without any ground
truth) is NaN here, `null` in `to_dict`, `n/a` in `table`; pycocotools writes -1.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from leandetr.errors import DataError, MissingExtra
from leandetr.palette import one_line

IOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""IoU thresholds that AP and AR average over."""

MOST_DETECTIONS: tuple[int, ...] = (1, 10, 100)
"""How many of an image's best detections of a class count: 100, but for `ar1` and `ar10`."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)


@dataclass(frozen=True)
class ClassScore:
    """One class: AP over all IoU thresholds, AP at IoU 0.5, and its number of boxes (no crowds).

    NaN where the class has no boxes.
    """

    name: str
    ap: float
    ap50: float
    boxes: int


@dataclass(frozen=True)
class CocoScores:
    """The twelve COCO metrics, in 0..1, and one `ClassScore` a class in the order of their ids.

    Small is below 32x32 pixels, large above 96x96. NaN where there is nothing to be found.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassScore, ...]

    def metrics(self) -> dict[str, float]:
        """The twelve numbers by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "classes"}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the twelve numbers, then `classes`; `None` where a score is undefined."""
        plain = {name: _or_none(value) for name, value in self.metrics().items()}
        classes = [{k: _or_none(v) for k, v in asdict(c).items()} for c in self.classes]
        return plain | {"classes": classes}

    def table(self) -> str:
        """The scores as plain text: the metrics with what they mean, then the classes."""
        lines = [
            f"{name:<10} {_shown(value):>6}  {_MEANING[name]}"
            for name, value in self.metrics().items()
        ]
        width = max([len(one_line(c.name)) for c in self.classes] + [len("class")])
        lines += ["", f"{'class':<{width}}  {'AP':>6}  {'AP50':>6}  {'boxes':>6}"]
        lines += [
            f"{one_line(c.name):<{width}}  {_shown(c.ap):>6}  {_shown(c.ap50):>6}  {c.boxes:>6}"
            for c in self.classes
        ]
        return "\n".join([*lines, *self._remark()])

    def markdown(self) -> str:
        """The scores as two Markdown tables, for a model card."""
        lines = ["| metric | value | meaning |", "|---|---:|---|"]
        lines += [
            f"| {name} | {_shown(value)} | {_MEANING[name]} |"
            for name, value in self.metrics().items()
        ]
        lines += ["", "| class | AP | AP50 | boxes |", "|---|---:|---:|---:|"]
        lines += [
            f"| {_escaped(c.name)} | {_shown(c.ap)} | {_shown(c.ap50)} | {c.boxes} |"
            for c in self.classes
        ]
        return "\n".join([*lines, *self._remark()]) + "\n"

    def _remark(self) -> list[str]:
        if not math.isnan(self.ap):
            return []
        return ["", "AP is undefined: the ground truth has no boxes to find."]


_MEANING = {
    "ap": "AP at IoU 0.50 to 0.95",
    "ap50": "AP at IoU 0.50",
    "ap75": "AP at IoU 0.75",
    "ap_small": "AP of boxes below 32x32 pixels",
    "ap_medium": "AP of boxes from 32x32 to 96x96 pixels",
    "ap_large": "AP of boxes above 96x96 pixels",
    "ar1": "recall with 1 detection an image and class",
    "ar10": "recall with 10 detections an image and class",
    "ar100": "recall with 100 detections an image and class",
    "ar_small": "recall of boxes below 32x32 pixels",
    "ar_medium": "recall of boxes from 32x32 to 96x96 pixels",
    "ar_large": "recall of boxes above 96x96 pixels",
}


def score(ground_truth: dict[str, Any], detections: list[dict[str, Any]]) -> CocoScores:
    """COCO scores of detections (COCO results: image_id, category_id, bbox xywh pixels, score).

    `ground_truth` is a COCO dictionary (images, annotations, categories); crowds count as COCO
    counts them. Neither argument is changed. Raises `DataError` for detections on images or
    classes that the ground truth does not have, `MissingExtra` without faster-coco-eval.
    """
    _check(ground_truth, detections)
    if not ground_truth["images"] or not ground_truth["categories"]:
        return _summary(np.full((10, 101, 0, 4, 3), -1.0), np.full((10, 0, 4, 3), -1.0), ())
    truth = {
        "images": [dict(image) for image in ground_truth["images"]],
        "categories": [dict(category) for category in ground_truth["categories"]],
        "annotations": [_plain(a, n) for n, a in enumerate(ground_truth["annotations"], start=1)],
    }
    precision, recall = _accumulate(truth, [dict(found) for found in detections])
    boxes = Counter(a["category_id"] for a in truth["annotations"] if not a["iscrowd"])
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    return _summary(precision, recall, tuple((c["name"], boxes[c["id"]]) for c in categories))


def _check(ground_truth: dict[str, Any], detections: list[dict[str, Any]]) -> None:
    """Every detection belongs to a known image and a known class."""
    known = {
        "image_id": {image["id"] for image in ground_truth["images"]},
        "category_id": {category["id"] for category in ground_truth["categories"]},
    }
    for key, ids in known.items():
        foreign = sorted({found[key] for found in detections} - ids)
        if foreign:
            raise DataError(
                f"expected detections on the ground truth's own ids, got {key} "
                f"{', '.join(map(str, foreign[:5]))} which it does not have; "
                "score detections against the annotations they were made for"
            )


def _plain(annotation: dict[str, Any], number: int) -> dict[str, Any]:
    """A box of the ground truth with what COCO files may leave out, and without its polygons.

    Numbered anew from 1: COCO's matching takes an annotation of id 0 for no match.
    """
    width, height = annotation["bbox"][2:]
    return {
        "id": number,
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": [float(side) for side in annotation["bbox"]],
        "area": float(annotation.get("area", width * height)),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }


def _accumulate(
    truth: dict[str, Any], detections: list[dict[str, Any]]
) -> tuple[Float[np.ndarray, "I R K A D"], Float[np.ndarray, "I K A D"]]:
    """Precision and recall, -1 where undefined.

    I IoU thresholds, R recall points, K classes by id, A areas (all, small, medium, large),
    D detections an image (1, 10, 100).
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtra("evaluating", "faster-coco-eval", "eval") from error
    known = COCO(truth, print_function=_silent)
    judge = COCOeval_faster(known, known.loadRes(detections), "bbox", print_function=_silent)
    judge.params.maxDets = list(MOST_DETECTIONS)
    judge.evaluate()
    judge.accumulate()
    return np.asarray(judge.eval["precision"]), np.asarray(judge.eval["recall"])


def _silent(*_: object) -> None:
    """Take what faster-coco-eval would print."""


def _summary(
    precision: Float[np.ndarray, "I R K A D"],
    recall: Float[np.ndarray, "I K A D"],
    classes: tuple[tuple[str, int], ...],
) -> CocoScores:
    """Average what is defined, as `COCOeval.summarize` of pycocotools does."""
    return CocoScores(
        ap=_mean(precision[..., _ALL, -1]),
        ap50=_mean(precision[IOUS.index(0.5), ..., _ALL, -1]),
        ap75=_mean(precision[IOUS.index(0.75), ..., _ALL, -1]),
        ap_small=_mean(precision[..., _SMALL, -1]),
        ap_medium=_mean(precision[..., _MEDIUM, -1]),
        ap_large=_mean(precision[..., _LARGE, -1]),
        ar1=_mean(recall[..., _ALL, 0]),
        ar10=_mean(recall[..., _ALL, 1]),
        ar100=_mean(recall[..., _ALL, 2]),
        ar_small=_mean(recall[..., _SMALL, -1]),
        ar_medium=_mean(recall[..., _MEDIUM, -1]),
        ar_large=_mean(recall[..., _LARGE, -1]),
        classes=tuple(
            ClassScore(
                name=name,
                ap=_mean(precision[:, :, k, _ALL, -1]),
                ap50=_mean(precision[IOUS.index(0.5), :, k, _ALL, -1]),
                boxes=boxes,
            )
            for k, (name, boxes) in enumerate(classes)
        ),
    )


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """Mean of the defined values; NaN when there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _or_none(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown(value: float) -> str:
    """Three decimals, or n/a."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _escaped(name: str) -> str:
    """A class name that does not end its Markdown cell."""
    return one_line(name).replace("|", "\\|")
