"""Detections on a picture, drawn by supervision's annotators.

Lines and letters grow with the picture; where labels go is decided in `labels.py`.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from leandetr.deploy.labels import place
from leandetr.errors import MissingExtra
from leandetr.images import Photo, Source, read_image
from leandetr.types import Detections

if TYPE_CHECKING:
    import supervision

COLOURS = (
    "#e6194b",
    "#0a78ff",
    "#2fb344",
    "#ff8c00",
    "#a64dff",
    "#00b8b0",
    "#ffd400",
    "#ff3fa4",
    "#8b5a2b",
    "#b6e000",
)
"""Class k is drawn in colour k modulo ten, in every picture."""


FONTS = (
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "DejaVuSans.ttf",
)
"""Fonts of the system that are tried for names beyond Latin letters, widest range first."""


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

    `threshold` hides detections that score less. Raises `MissingExtra` without supervision, and
    `ImageError` for an image that cannot be read.
    """
    photo = image if isinstance(image, Photo) else read_image(image)
    shown = detections if threshold is None else detections.above(threshold)
    picture = Image.fromarray(photo.pixels.permute(1, 2, 0).cpu().numpy())
    if not len(shown):
        return picture
    sv = require_supervision()
    found = to_supervision(_clipped(shown, *photo.size))
    style = Style.of(photo.size, found.xyxy)
    palette = sv.ColorPalette.from_hex(list(COLOURS))
    picture = sv.BoxAnnotator(color=palette, thickness=style.line).annotate(picture, found)
    return _write(shown, found, picture, style)


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


def _clipped(detections: Detections, height: int, width: int) -> Detections:
    """Boxes within the picture, so that all of their edges show."""
    boxes = detections.boxes.clone()
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width - 1)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height - 1)
    return Detections(boxes, detections.scores, detections.labels, detections.names)


def _write(
    shown: Detections, found: "supervision.Detections", picture: Image.Image, style: Style
) -> Image.Image:
    """Draw the labels that have room."""
    sv = require_supervision()
    annotator = sv.RichLabelAnnotator(
        color=sv.ColorPalette.from_hex(list(COLOURS)),
        text_color=sv.ColorPalette.from_hex([_ink(colour) for colour in COLOURS]),
        font_path=_font(" ".join(shown.names)),
        font_size=style.font,
        text_padding=style.padding,
        text_position=sv.Position.TOP_LEFT,
    )
    pen = ImageDraw.Draw(picture)

    def measure(text: str) -> tuple[float, float]:
        left, top, right, bottom = pen.textbbox((0, 0), text, font=annotator.font)
        return float(right - left + 2 * style.padding), float(bottom - top + 2 * style.padding)

    labels = place(shown, found.xyxy, (picture.height, picture.width), measure)
    if not labels:
        return picture
    corners = [label.rectangle[[0, 3, 0, 3]] for label in labels]  # a label stands on this point
    anchors = sv.Detections(
        xyxy=np.stack(corners),
        class_id=shown.labels.cpu().numpy().astype(int)[[label.index for label in labels]],
    )
    return annotator.annotate(picture, anchors, labels=[label.text for label in labels])


@cache
def _font(text: str) -> str | None:
    """A font file for `text`; None, Pillow's own font, for Latin letters or where none is found."""
    if text.encode("latin-1", "ignore").decode("latin-1") == text:
        return None
    for name in FONTS:
        try:
            ImageFont.truetype(name, 10)
        except OSError:
            continue
        return name
    return None


def _ink(colour: str) -> str:
    """Black on light colours, white on dark ones (ITU-R BT.601 luma)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#ffffff"
