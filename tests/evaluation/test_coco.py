"""Scores equal pycocotools, also at the edges."""

import contextlib
import copy
import io
import json
import math
import sys

import numpy as np
import pytest

import golden_data
from leandetr.errors import DataError, MissingExtra
from leandetr.evaluation.coco import CocoScores, score

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def official(value: float) -> float:
    """pycocotools writes -1 for what is undefined."""
    return -1.0 if math.isnan(value) else value


def truth(*boxes: list[float], category: int = 3) -> dict:
    annotations = [
        {"id": n, "image_id": 7, "category_id": category, "bbox": box}
        for n, box in enumerate(boxes)  # the first id is 0, which COCO's matching misreads
    ]
    categories = [{"id": 9, "name": "ring"}, {"id": 3, "name": "cell"}]
    images = [{"id": 7, "width": 100, "height": 100}]
    return {"images": images, "categories": categories, "annotations": annotations}


def found(box: list[float], score: float = 0.9, category: int = 3, image: int = 7) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


@pytest.mark.golden
@pytest.mark.parametrize("name", golden_data.cases("coco_eval/*"))
def test_scores_equal_the_golden_ones(name: str) -> None:
    case = golden_data.load_case(name).meta
    scores = score(case["ground_truth"], case["detections"])
    ours = [official(value) for value in scores.metrics().values()]
    assert ours == pytest.approx([case["metrics"][key] for key in NAMES], abs=1e-9)
    classes = [official(one.ap) for one in scores.classes]
    assert classes == pytest.approx(list(case["ap_per_category"].values()), abs=1e-9)


def test_pycocotools_agrees_on_random_boxes() -> None:
    ground, detections = _random(np.random.default_rng(3))
    ours = [official(value) for value in score(ground, detections).metrics().values()]
    assert ours == pytest.approx(_referee(ground, detections), abs=1e-9)


def _random(rng: np.random.Generator) -> tuple[dict, list[dict]]:
    """Twenty images with boxes of all sizes, some crowds, and detections scattered around them."""
    ground = truth()
    ground["images"] = [{"id": i, "width": 300, "height": 200} for i in range(1, 21)]
    detections = []
    for number in range(1, 161):
        corner, size = rng.uniform(0, 150, 2), rng.uniform(5, 140, 2)
        box = [float(v) for v in (*corner, *size)]
        image, category = int(rng.integers(1, 21)), int(rng.choice([3, 9]))
        crowd = int(rng.random() < 0.1)
        ground["annotations"].append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
        )
        for _ in range(int(rng.integers(0, 4))):
            moved = [v + float(rng.normal(0, 4)) for v in box]
            moved[2:] = [max(v, 1.0) for v in moved[2:]]
            detections.append(found(moved, float(np.round(rng.random(), 2)), category, image))
    return ground, detections


def _referee(ground: dict, detections: list[dict]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(ground)
        known.createIndex()
        judge = COCOeval(known, known.loadRes(copy.deepcopy(detections)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


def test_scoring_prints_nothing_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    ground, detections = truth([10, 10, 20, 20]), [found([10, 10, 20, 20])]
    before = copy.deepcopy((ground, detections))
    score(ground, detections)
    assert (ground, detections) == before
    assert capfd.readouterr() == ("", "")


def test_an_annotation_with_id_zero_can_be_found() -> None:
    assert score(truth([10, 10, 20, 20]), [found([10, 10, 20, 20])]).ap == 1


def test_no_detections_score_zero() -> None:
    scores = score(truth([10, 10, 20, 20]), [])
    assert scores.ap == scores.ar100 == 0
    assert math.isnan(scores.ap_large)


def test_a_class_without_boxes_is_undefined_and_leaves_the_mean_alone() -> None:
    scores = score(truth([10, 10, 20, 20]), [found([10, 10, 20, 20]), found([0, 0, 9, 9], 1, 9)])
    assert scores.ap == 1
    assert [one.name for one in scores.classes] == ["cell", "ring"]
    assert (scores.classes[0].ap, scores.classes[0].boxes) == (1, 1)
    assert math.isnan(scores.classes[1].ap)
    assert "ring      n/a     n/a       0" in scores.table()


@pytest.mark.parametrize("ground", [truth(), {"images": [], "categories": [], "annotations": []}])
def test_without_any_box_ap_is_undefined(ground: dict) -> None:
    scores = score(ground, [])
    assert math.isnan(scores.ap)
    assert "AP is undefined" in scores.table()
    assert "AP is undefined" in scores.markdown()
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["ap"] is None


def test_detections_of_other_images_or_classes_are_refused() -> None:
    with pytest.raises(DataError, match="image_id 8"):
        score(truth(), [found([0, 0, 9, 9], image=8)])
    with pytest.raises(DataError, match="category_id 4"):
        score(truth(), [found([0, 0, 9, 9], category=4)])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"faster-coco-eval.*leandetr\[eval\]"):
        score(truth([1, 1, 5, 5]), [])


def test_tables_show_every_metric_and_class() -> None:
    scores: CocoScores = score(truth([10, 10, 20, 20]), [found([10, 10, 20, 20])])
    for name in scores.metrics():
        assert name in scores.table()
        assert name in scores.markdown()
    assert "| cell | 1.000 | 1.000 | 1 |" in scores.markdown()
