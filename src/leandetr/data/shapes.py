"""One synthetic scene: shapes of every size on a textured ground.

A class is a shape; colour, size and turn say nothing about it. Everything is drawn `FINE` times
finer than the pixels: edges come out smooth, and boxes are exact to 1/`FINE` pixel.
"""

import colorsys
import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from PIL import Image, ImageDraw

from leandetr.errors import DataError

FINE = 4
"""Steps in a pixel: what is drawn is sampled at FINE x FINE points of each."""

SMALLEST, LARGEST = 4.0, 1 / 3
"""Longer side of an object: from SMALLEST pixels to LARGEST of the image's short side."""

HIDDEN = 0.1
"""Share of an object that others may cover."""

CONTRAST = 130.0
"""Distance of a colour from the ground's, in RGB from 0 to 255, that is enough to stand out."""

TRIES = 100

_Outline = Float[np.ndarray, "P 2"]


@dataclass(frozen=True)
class Scene:
    """One scene: boxes are xyxy pixels and areas square pixels of what is visible.

    `owner` says which object each of the FINE x FINE points of a pixel shows: its row + 1, or 0
    for the ground, which `ground` has without objects.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    ground: UInt8[np.ndarray, "H W 3"]
    owner: UInt16[np.ndarray, "fineH fineW"]
    boxes: Float[np.ndarray, "T 4"]
    labels: Int[np.ndarray, " T"]
    areas: Float[np.ndarray, " T"]


def draw_scene(rng: np.random.Generator, size: tuple[int, int], objects: tuple[int, int]) -> Scene:
    """Draw one scene: large objects first, so that no small one ends up beneath.

    Raises `DataError` when not even the fewest objects find a place.
    """
    ground = _ground(rng, size)
    canvas = _Canvas(np.zeros((size[0] * FINE, size[1] * FINE), np.uint16))
    smallest, largest = math.log(SMALLEST), math.log(min(size) * LARGEST)
    count = rng.integers(objects[0], objects[1], endpoint=True)
    for longest in np.exp(-np.sort(-rng.uniform(smallest, largest, count))):
        _place(canvas, float(longest), rng)
    if len(canvas.pieces) < objects[0]:
        raise DataError(
            f"objects={objects}: only {len(canvas.pieces)} found a place; "
            "ask for fewer, or for a larger size"
        )
    shown = [canvas.shown(row) for row in range(len(canvas.pieces))]
    return Scene(
        pixels=_paint(canvas, shown, ground, rng),
        ground=ground.round().astype(np.uint8),
        owner=canvas.owner,
        boxes=np.array([_box(p, s) for p, s in zip(canvas.pieces, shown, strict=True)]),
        labels=np.array([piece.label for piece in canvas.pieces]),
        areas=np.array([part.sum() for part in shown]) / FINE**2,
    )


@dataclass(frozen=True)
class _Piece:
    """An object inside the image: its points in a window of the canvas that ends on pixels."""

    label: int
    top: int
    left: int
    points: Bool[np.ndarray, "h w"]

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.points.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class _Canvas:
    """What each point shows, and the objects put there."""

    owner: UInt16[np.ndarray, "fineH fineW"]
    pieces: list[_Piece] = field(default_factory=list)

    def shown(self, row: int) -> Bool[np.ndarray, "h w"]:
        """The points of an object that no other covers, in its window."""
        return self.owner[self.pieces[row].window] == row + 1

    def put(self, piece: _Piece) -> bool:
        """Lay an object on top, unless that hides too much of one, or of the new one's edge."""
        beneath = self.owner[piece.window][piece.points]
        if np.count_nonzero(beneath) > HIDDEN * beneath.size:
            return False
        for number in np.unique(beneath[beneath > 0]).tolist():
            left = self.shown(number - 1).sum() - np.count_nonzero(beneath == number)
            if left < (1 - HIDDEN) * self.pieces[number - 1].points.sum():
                return False
        self.pieces.append(piece)
        self.owner[piece.window][piece.points] = len(self.pieces)
        return True


def _place(canvas: _Canvas, longest: float, rng: np.random.Generator) -> None:
    """Put one object somewhere, a little smaller after each try without room.

    Objects may reach over the border, by less than a quarter of their size.
    """
    label = int(rng.integers(len(SHAPES)))
    limit = np.array(canvas.owner.shape[::-1]) / FINE  # width, height
    for _ in range(TRIES):
        inset = max(SMALLEST, longest / 4)
        piece = _cut(label, longest, rng.uniform(inset, limit - inset), rng.uniform(0, 2 * math.pi))
        if canvas.put(_inside(piece, canvas.owner.shape)):
            return
        longest = max(SMALLEST, longest * 0.97)


def _cut(label: int, longest: float, centre: Float[np.ndarray, " 2"], angle: float) -> _Piece:
    """The points of a shape, turned, whose longer side is `longest` pixels."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outlines = [outline @ turn for outline in list(SHAPES.values())[label]]
    low, high = outlines[0].min(axis=0), outlines[0].max(axis=0)
    scale = longest / (high - low).max()
    outlines = [((o - (low + high) / 2) * scale + centre) * FINE for o in outlines]
    first = np.floor(outlines[0].min(axis=0) / FINE).astype(int) * FINE
    last = np.ceil(outlines[0].max(axis=0) / FINE).astype(int) * FINE
    width, height = (last - first).tolist()
    image = Image.new("1", (width, height))
    for fill, outline in zip((1, 0), outlines, strict=False):
        corners = outline - first - 0.5  # Pillow counts from the middle of the first point
        ImageDraw.Draw(image).polygon([(x, y) for x, y in corners.tolist()], fill=fill)
    return _Piece(label, int(first[1]), int(first[0]), np.array(image))


def _inside(piece: _Piece, limit: tuple[int, ...]) -> _Piece:
    """The part of an object that is in the image."""
    rows, columns = piece.window
    top, left = max(piece.top, 0), max(piece.left, 0)
    points = piece.points[top - piece.top :, left - piece.left :]
    points = points[: min(rows.stop, limit[0]) - top, : min(columns.stop, limit[1]) - left]
    return _Piece(piece.label, top, left, points)


def _box(piece: _Piece, shown: Bool[np.ndarray, "h w"]) -> list[float]:
    """The box around the visible points, xyxy pixels."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    x0, x1 = piece.left + columns[0], piece.left + columns[-1] + 1
    y0, y1 = piece.top + rows[0], piece.top + rows[-1] + 1
    return [float(side) / FINE for side in (x0, y0, x1, y1)]


# ---------------------------------------------------------------- shapes and colours


def _regular(corners: int, radius: float = 1.0) -> _Outline:
    turns = np.arange(corners) * (2 * math.pi / corners)
    return radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _plus(arm: float) -> _Outline:
    quarter = np.array([[1.0, -arm], [1.0, arm], [arm, arm]])
    return np.concatenate([quarter @ np.array([[c, s], [-s, c]]) for c, s in _QUARTERS])


_QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))

SHAPES: dict[str, tuple[_Outline, ...]] = {
    "disc": (_regular(96),),
    "square": (_regular(4),),
    "triangle": (_regular(3),),
    "ring": (_regular(96), _regular(96, 0.55)),
    "cross": (_plus(0.3),),
}
"""The classes: an outline around (0, 0), and that of its hole."""


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> Float[np.ndarray, "H W 3"]:
    """A dull, mottled ground: noise of three coarsenesses in two tints, and grain."""
    base = rng.uniform(45, 205) + rng.uniform(-20, 20, 3)
    for cell, strength in ((80, 10.0), (24, 6.0), (7, 4.0)):
        grid = (size[1] // cell + 2, size[0] // cell + 2)
        for tint in (np.ones(3), rng.uniform(-0.6, 0.6, 3)):
            noise = Image.fromarray(rng.standard_normal(grid[::-1]).astype(np.float32))
            wide = np.asarray(noise.resize((size[1], size[0]), Image.Resampling.BICUBIC))
            base = base + strength * wide[..., None] * tint
    return np.clip(base + rng.normal(0, 2.5, (*size, 1)), 0, 255)


def _paint(
    canvas: _Canvas,
    shown: list[Bool[np.ndarray, "_ _"]],
    ground: Float[np.ndarray, "H W 3"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "H W 3"]:
    """Colour the objects, each lighter towards its upper left; edges mix by the points they own."""
    pixels, mean = ground.copy(), ground.mean(axis=(0, 1))
    for piece, part in zip(canvas.pieces, shown, strict=True):
        height, width = part.shape[0] // FINE, part.shape[1] // FINE
        share = part.reshape(height, FINE, width, FINE).mean(axis=(1, 3))[..., None]
        down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
        light = (1.06 - 0.12 * (down + right) / 2)[..., None]
        place = slice(piece.top // FINE, None), slice(piece.left // FINE, None)
        there = pixels[place][:height, :width]
        there += share * (_colour(rng, mean) * light - ground[place][:height, :width])
    return np.clip(pixels.round(), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, ground: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """A colour that stands out from the ground: the first of some that does, else the best."""
    chosen = rng.uniform((0, 0.35, 0.25), (1, 1, 1), (12, 3))
    colours = 255 * np.array([colorsys.hsv_to_rgb(*hsv) for hsv in chosen.tolist()])
    contrast = np.linalg.norm(colours - ground, axis=1)
    return colours[np.argmax(np.minimum(contrast, CONTRAST))]
