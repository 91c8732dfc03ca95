"""Where the labels of a crowded picture go, so that they hide neither each other nor the objects.

Greedy, best score first: each label takes the place beside its box that hides least of any box;
where every place is taken, the class name is left out (the colour tells the class), then the label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from leandetr.palette import one_line
from leandetr.types import Detections

MOST_HIDDEN = 0.25
"""Share of any one box that a label may hide."""

Rectangle = Float[np.ndarray, "4"]
"""xyxy in pixels of the picture."""


@dataclass(frozen=True)
class Label:
    """The text of detection `index` and the rectangle it fills."""

    index: int
    text: str
    rectangle: Rectangle


def place(
    detections: Detections,
    boxes: Float[np.ndarray, "D 4"],
    frame: tuple[int, int],
    measure: Callable[[str], tuple[float, float]],
) -> list[Label]:
    """Labels for the detections that have room for one.

    `boxes` are the detections' boxes inside the `frame` (height, width); `measure` gives the width
    and height of a text with its padding.
    """
    placed: list[Label] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(1)
    for index in np.argsort(-detections.scores.cpu().numpy(), kind="stable").tolist():
        value = f"{float(detections.scores[index]):.2f}"
        for text in (f"{one_line(detections.name(index))} {value}", value):
            spots = _spots(boxes[index], measure(text), frame)
            hidden = _hidden(spots, boxes, areas, placed)
            best = int(np.argmin(hidden))
            if hidden[best] <= MOST_HIDDEN:
                placed.append(Label(index, text, spots[best]))
                break
    return placed


def _spots(
    box: Rectangle, size: tuple[float, float], frame: tuple[int, int]
) -> Float[np.ndarray, "P 4"]:
    """Rectangles of that size around a box: above, below, inside, aligned left or right."""
    (left, top, right, bottom), (width, height) = box, size
    corners = np.array(
        [
            (left, top - height),
            (left, bottom),
            (right - width, top - height),
            (right - width, bottom),
            (left, top),
            (right - width, bottom - height),
        ]
    )
    room = np.array([max(frame[1] - width, 0), max(frame[0] - height, 0)])
    corners = corners.clip(0, room)  # what would stick out is moved into the frame
    return np.concatenate((corners, corners + np.array(size)), axis=1)


def _hidden(
    spots: Float[np.ndarray, "P 4"],
    boxes: Float[np.ndarray, "D 4"],
    areas: Float[np.ndarray, " D"],
    placed: Sequence[Label],
) -> Float[np.ndarray, " P"]:
    """The largest share of any box that each spot hides; infinite where it hides a label."""
    hidden = (_shared(spots, boxes) / areas).max(axis=1).round(2)  # near ties: the first spot
    if placed:
        taken = np.stack([label.rectangle for label in placed])
        hidden[_shared(spots, taken).any(axis=1)] = np.inf
    return hidden


def _shared(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Area in common of every pair."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    return (high - low).clip(0).prod(axis=-1)
