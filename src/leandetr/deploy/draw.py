"""Detections on a picture, drawn with Pillow alone; `to_supervision` for all other ways.

Lines and letters grow with the picture; where labels go is decided in `labels.py`.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from leandetr import palette
from leandetr.boxes import clip
from leandetr.deploy.labels import place
from leandetr.errors import MissingExtra
from leandetr.images import Photo, Source, read_image, resize
from leandetr.types import Detections

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Style:
    """Sizes in pixels of the picture."""

    line: int
    font: int
    padding: int

    @staticmethod
    def of(frame: tuple[int, int], boxes: Float[np.ndarray, "D 4"]) -> "Style":
        """Sizes for a (height, width): finer where there are many boxes or small ones."""
        side = math.sqrt(frame[0] * frame[1])
        many = len(boxes) > 40
        usual = float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(1))))
        return Style(
            line=max(1, round(side / (600 if many else 350))),
            font=max(9, round(min(side / 50, 0.3 * usual if many else math.inf))),
            padding=max(1, round(side / 600)),
        )


def draw(
    image: Source | Photo, detections: Detections, *, threshold: float | None = None
) -> Image.Image:
    """The picture with boxes, class names and scores; the picture itself is left as it was.

    `threshold` hides detections that score less. Raises `ImageError` for an image that cannot be
    read.
    """
    photo = image if isinstance(image, Photo) else read_image(image)
    shown = detections if threshold is None else detections.above(threshold)
    pixels = resize(photo.pixels, *photo.size)  # larger where it was decoded coarsely
    picture = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    if len(shown):
        boxes = clip(shown.boxes.float().cpu(), (photo.size[0] - 1, photo.size[1] - 1)).numpy()
        style = Style.of(photo.size, boxes)
        pen = ImageDraw.Draw(picture)
        _outline(pen, shown, boxes, style)
        _write(pen, shown, boxes, style)
    return picture


def _outline(
    pen: ImageDraw.ImageDraw, shown: Detections, boxes: Float[np.ndarray, "D 4"], style: Style
) -> None:
    """Draw the boxes, the surest last, so that it lies on top."""
    order = np.argsort(shown.scores.cpu().numpy(), kind="stable")
    for index in order.tolist():
        left, top, right, bottom = map(int, boxes[index])
        colour = palette.colour(int(shown.labels[index]))
        pen.rectangle(
            (left, top, max(left, right), max(top, bottom)), outline=colour, width=style.line
        )


def to_supervision(detections: Detections) -> "supervision.Detections":
    """The same detections for supervision's trackers, zones and annotators.

    Raises `MissingExtra` without supervision.
    """
    names = [detections.name(index) for index in range(len(detections))]
    return require_supervision().Detections(
        xyxy=detections.boxes.float().cpu().numpy(),
        confidence=detections.scores.float().cpu().numpy(),
        class_id=detections.labels.cpu().numpy().astype(int),
        data={"class_name": np.array(names, dtype=str)},
    )


def require_supervision() -> Any:
    """The module supervision; raises `MissingExtra` without it."""
    try:
        import supervision
    except ImportError as error:
        raise MissingExtra("drawing", "supervision", "viz") from error
    return supervision


def _write(
    pen: ImageDraw.ImageDraw, shown: Detections, boxes: Float[np.ndarray, "D 4"], style: Style
) -> None:
    """Draw the labels that have room."""
    font = palette.font(" ".join(shown.names), style.font)
    width, height = pen.im.size

    @cache
    def extent(text: str) -> tuple[float, ...]:
        return tuple(map(float, font.getbbox(text)))

    def measure(text: str) -> tuple[float, float]:
        left, top, right, bottom = extent(text)
        return right - left + 2 * style.padding, bottom - top + 2 * style.padding

    for label in place(shown, boxes, (height, width), measure):
        colour = palette.colour(int(shown.labels[label.index]))
        left, top, right, bottom = (int(side) for side in label.rectangle)
        pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        inside = extent(label.text)
        corner = (left + style.padding - inside[0], top + style.padding - inside[1])
        pen.text(corner, label.text, fill=palette.ink(colour), font=font)
