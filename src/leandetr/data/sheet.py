"""A contact sheet: pictures of a data set with their boxes, classes and counts, as one image.

Rows have one height each and fill the width, as in a photo album. Everything is drawn at twice
its size and reduced, so lines are smooth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from leandetr.data.dataset import Sample
from leandetr.errors import ImageError
from leandetr.images import read_image
from leandetr.palette import Font, colour, font, ink, one_line

PAPER, INK, PALE = "#ffffff", "#1b1f24", "#6a737d"
FRAME, EDGE = "#eef0f2", "#d5d9dd"
FINE = 2
"""Pixels are drawn this many times too large and then reduced."""

MARGIN, GAP, CAPTION = 36, 14, 26
ROW = 270
"""Height of a row before it is stretched to fill the width; all in pixels of the sheet."""

NARROW, WIDE = 0.5, 2.4
"""Shapes (width by height) beyond these are framed instead of filling their place."""

TAGGED = 14
"""Up to so many boxes a picture has names at its boxes; the colours tell the rest."""

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of a picture drawn too large."""


@dataclass(frozen=True)
class Tile:
    """A picture of the sheet: a sample, the names of its classes, and what is said below.

    `pixels` are shown in place of the sample's file, whose size they have.
    """

    sample: Sample
    names: Sequence[str]
    caption: str
    pixels: UInt8[Tensor, "3 H W"] | None = None

    @property
    def shape(self) -> float:
        """Width by height, within what a row can bear."""
        height, width = self.sample.size
        return min(max(width / height, NARROW), WIDE)


@dataclass(frozen=True)
class Heading:
    """Title, a line below it, and the classes with their counts."""

    title: str
    about: str
    classes: Sequence[tuple[str, int]]


def sheet(tiles: Sequence[Tile], heading: Heading, *, width: int = 1600) -> Image.Image:
    """Draw a contact sheet `width` pixels wide; pictures that cannot be read say so."""
    rows = list(_rows(tiles, width - 2 * MARGIN))
    head = _head(heading, width)
    height = head.height + sum(row[0].height + CAPTION + GAP for row in rows) + MARGIN - GAP
    page = Image.new("RGB", (width, height), PAPER)
    page.paste(head, (0, 0))
    top = head.height
    for row in rows:
        for place in row:
            page.paste(_picture(place), (place.left, top))
            _caption(page, place, top + place.height)
        top += row[0].height + CAPTION + GAP
    return page


def choose(samples: Sequence[Sample], count: int, *, seed: int = 0) -> list[int]:
    """Indices of samples to look at: every class, the rarest first, then the fullest, then any."""
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    held = {index: set(samples[index].labels.tolist()) for index in order}
    totals: dict[int, int] = {}
    for labels in held.values():
        for label in labels:
            totals[label] = totals.get(label, 0) + 1
    chosen: list[int] = []
    for label in sorted(totals, key=lambda one: totals[one]):
        if not any(label in held[index] for index in chosen):
            chosen.append(next(index for index in order if label in held[index]))
    fullest = sorted(order, key=lambda index: -len(held[index]) * 1000 - len(samples[index].boxes))
    rest = [index for index in (*fullest[:1], *order) if index not in chosen]
    return list(dict.fromkeys((*chosen, *rest)))[:count]


@dataclass(frozen=True)
class _Place:
    tile: Tile
    left: int
    width: int
    height: int


def _rows(tiles: Sequence[Tile], room: int) -> Iterator[list[_Place]]:
    """Tiles in rows of about equal length; few tiles do not fill `room`."""
    total = sum(tile.shape for tile in tiles)
    count = max(1, round(total * ROW / room))
    row: list[Tile] = []
    passed = filled = 0.0
    for index, tile in enumerate(tiles):
        row.append(tile)
        passed += tile.shape
        if index + 1 == len(tiles) or passed + tile.shape / 2 >= (filled + 1) * total / count:
            yield _placed(row, min(round(1.3 * ROW), _fitting(row, room)))
            row, filled = [], filled + 1


def _fitting(row: Sequence[Tile], room: int) -> int:
    """The height at which a row fills the room."""
    return int((room - GAP * (len(row) - 1)) / sum(tile.shape for tile in row))


def _placed(row: Sequence[Tile], height: int) -> list[_Place]:
    places, left = [], MARGIN
    for tile in row:
        width = round(tile.shape * height)
        places.append(_Place(tile, left, width, height))
        left += width + GAP
    return places


def _picture(place: _Place) -> Image.Image:
    """A picture with its boxes, in a frame where its shape is extreme."""
    width, height, sample = place.width * FINE, place.height * FINE, place.tile.sample
    frame = Image.new("RGB", (width, height), FRAME)
    try:
        given = place.tile.pixels
        shown = read_image(sample.path).pixels if given is None else given
        pixels = shown.permute(1, 2, 0).numpy()
    except ImageError:
        pen = ImageDraw.Draw(frame)
        pen.text((width // 2, height // 2), "cannot be decoded", PALE, font("", 30), anchor="mm")
        return frame.resize((place.width, place.height), Image.Resampling.BOX)
    scale = min(width / sample.size[1], height / sample.size[0])
    size = max(1, round(sample.size[1] * scale)), max(1, round(sample.size[0] * scale))
    corner = (width - size[0]) // 2, (height - size[1]) // 2
    frame.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), corner)
    ImageDraw.Draw(frame).rectangle((0, 0, width - 1, height - 1), outline=EDGE, width=FINE)
    _boxes(frame, place.tile, scale, corner)
    return frame.resize((place.width, place.height), Image.Resampling.BOX)


def _boxes(frame: Image.Image, tile: Tile, scale: float, corner: tuple[int, int]) -> None:
    """Draw boxes, the large ones first, and then names where there is room."""
    pen, sample = ImageDraw.Draw(frame, "RGBA"), tile.sample
    line = FINE * (2 if len(sample.boxes) <= 60 else 1)
    corners = sample.boxes.numpy() * scale + np.array(corner * 2)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + line)
    sizes = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    places: list[Rectangle] = [tuple(row) for row in corners.tolist()]
    shades = [colour(label) for label in sample.labels.tolist()]
    for index in np.argsort(-sizes).tolist():
        x0, y0, x1, y1 = places[index]
        pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(0, 0, 0, 90), width=line + 2)
        inner = (*_rgb(shades[index]), 60) if bool(sample.crowd[index]) else None
        pen.rectangle((x0, y0, x1, y1), fill=inner, outline=shades[index], width=line)
    if len(places) > TAGGED:
        return
    taken: list[Rectangle] = []
    names = [one_line(name) for name in tile.names]
    for index in np.argsort(sizes).tolist():
        name, others = names[int(sample.labels[index])], places[:index] + places[index + 1 :]
        spot = _spot(pen, name, places[index], (*taken, *others))
        if spot is not None:
            taken.append(spot)
            _tag(pen, name, spot, shades[index])


def _spot(
    pen: ImageDraw.ImageDraw, name: str, box: Rectangle, taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Where a name goes: in its box, above or below it; None where it would hide something."""
    wide, high = pen.im.size
    width, height = pen.textlength(name, font(name, 12 * FINE)) + 5 * FINE, 16 * FINE
    x0, y0, x1, y1 = box
    roomy = width < 0.8 * (x1 - x0) and 2.5 * height < y1 - y0
    left = min(max(x0, 0), max(wide - width, 0))
    for top in (y0,) if roomy else (y0 - height, y1):
        spot = (left, top, left + width, top + height)
        small = (one for one in taken if roomy is False or _area(one) < 4 * width * height)
        if top >= 0 and spot[3] <= high and not any(_meet(spot, one) for one in small):
            return spot
    return None


def _tag(pen: ImageDraw.ImageDraw, name: str, spot: Rectangle, shade: str) -> None:
    pen.rectangle(spot, fill=shade)
    middle = (spot[1] + spot[3]) / 2
    letters = font(name, 12 * FINE)
    pen.text((spot[0] + 2.5 * FINE, middle), name, ink(shade), letters, anchor="lm")


def _area(one: Rectangle) -> float:
    return (one[2] - one[0]) * (one[3] - one[1])


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _rgb(shade: str) -> tuple[int, int, int]:
    return int(shade[1:3], 16), int(shade[3:5], 16), int(shade[5:7], 16)


def _caption(page: Image.Image, place: _Place, top: int) -> None:
    """The words below a picture, cut to its width."""
    pen, words = ImageDraw.Draw(page), place.tile.caption
    letters = font(words, 14)
    if pen.textlength(words, letters) > place.width:
        while words and pen.textlength(words + "…", letters) > place.width:
            words = words[:-1]
        words += "…"
    pen.text((place.left, top + 6), words, PALE, letters)


def _head(heading: Heading, width: int) -> Image.Image:
    """Title, counts, and a legend that takes as many lines as it needs."""
    strip = Image.new("RGB", (width, 2000), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((MARGIN, MARGIN), heading.title, INK, font(heading.title, 34), anchor="lt")
    pen.text((MARGIN, MARGIN + 48), heading.about, PALE, font(heading.about, 18), anchor="lt")
    left, top = MARGIN, MARGIN + 86
    for label, (name, number) in enumerate(heading.classes):
        words, count = one_line(name), f"{number:,}"
        letters: Font = font(words, 17)
        length = pen.textlength(words, letters)
        needed = 26 + length + 8 + pen.textlength(count, font("", 17)) + 28
        if left + needed > width - MARGIN and left > MARGIN:
            left, top = MARGIN, top + 30
        if top > 1900:
            break
        pen.rounded_rectangle((left, top, left + 17, top + 17), 4, colour(label))
        pen.text((left + 26, top + 9), words, INK, letters, anchor="lm")
        pen.text((left + 34 + length, top + 9), count, PALE, font("", 17), anchor="lm")
        left += int(needed)
    return strip.crop((0, 0, width, top + 17 + 22))
