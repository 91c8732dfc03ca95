"""Labels stay in the picture and hide neither each other nor the boxes."""

import numpy as np
import torch

from leandetr.deploy.labels import MOST_HIDDEN, Label, place
from leandetr.types import Detections

FRAME = (100, 200)


def measure(text: str) -> tuple[float, float]:
    return 6.0 * len(text), 10.0


def labels(boxes: list[list[float]], scores: list[float] | None = None) -> list[Label]:
    found = Detections(
        torch.tensor(boxes).float(),
        torch.tensor(scores or [0.9] * len(boxes)),
        torch.zeros(len(boxes), dtype=torch.long),
        ("cell",),
    )
    return place(found, np.array(boxes, dtype=float), FRAME, measure)


def shared(first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    return float((high - low).clip(0).prod())


def test_a_label_stands_on_its_box() -> None:
    (label,) = labels([[50, 40, 90, 80]])
    assert label.text == "cell 0.90"
    assert label.rectangle.tolist() == [50, 30, 104, 40]


def test_labels_stay_inside_the_picture() -> None:
    for box in ([0, 0, 20, 20], [180, 0, 200, 20], [0, 0, 200, 100], [190, 90, 200, 100]):
        (label,) = labels([box])
        assert (label.rectangle >= 0).all()
        assert (label.rectangle <= [200, 100, 200, 100]).all()


def test_crowds_lose_labels_rather_than_boxes() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, (180, 80), (60, 2))
    boxes = np.concatenate((corners, corners + 20), axis=1)
    placed = labels(boxes.tolist(), rng.uniform(0.3, 1, 60).round(2).tolist())
    assert 0 < len(placed) < 60
    for label in placed:
        assert max(shared(label.rectangle, box) for box in boxes) <= (MOST_HIDDEN + 0.005) * 400
        others = [other for other in placed if other is not label]
        assert all(shared(label.rectangle, other.rectangle) == 0 for other in others)


def test_the_best_score_chooses_first_and_names_go_before_labels() -> None:
    placed = labels([[10, 20, 100, 60], [12, 20, 98, 60], [14, 20, 96, 60]], [0.5, 0.9, 0.7])
    assert placed[0].index == 1
    assert {label.text for label in placed} >= {"cell 0.90"}
