"""Where to write the names of points in a picture, so that no two overlap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: left, bottom, right, top."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Square pixels that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def nearest(self, point: Point) -> Point:
        """The place of the rectangle that is closest to a point."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.right - self.left) * (self.top - self.bottom)


PLACES = (
    *((1.0, y) for y in (0.0, -0.7, 0.7)),
    *((-1.0, y) for y in (0.0, 0.7, -0.7)),
    *((0.0, y) for y in (1.0, -1.0)),
    *((side, y) for y in (1.2, -1.2, 2.2, -2.2, 3.2, -3.2) for side in (1.0, -1.0, 0.0)),
)
"""Where a name may stand, from its point: to the right, to the left, above and below, best first.

The second number counts lines of text.
"""

OUTSIDE, ON_POINT, ON_NAME, ON_LINE = 8.0, 4.0, 6.0, 0.5
"""How bad a square pixel is: outside the picture, on a point, on another name, on a line."""

STEP = 6.0
"""Pixels from one to the next of the squares that a line is made of."""


def place(
    points: Sequence[Point],
    sizes: Sequence[Point],
    frame: Box,
    *,
    gap: float,
    lines: Sequence[tuple[Point, Point]] = (),
) -> list[Box]:
    """A rectangle for each name, of its size (width, height) and beside its point.

    Names with the fewest free places choose first. `gap` is the distance in pixels from point to
    name, `lines` should not be crossed. Nothing is promised where there is no room: the least bad
    place is taken.
    """
    squares = [square for start, end in lines for square in _squares(start, end)]
    dots = [Box(x - gap, y - gap, x + gap, y + gap) for x, y in points]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: -_crowd(points, i)):
        choices = [_beside(points[index], sizes[index], gap, where) for where in PLACES]
        others = [dot for number, dot in enumerate(dots) if number != index]
        solid = ((ON_POINT, others), (ON_NAME, [*placed.values()]), (ON_LINE, squares))
        bad = [rank + _harm(box, frame, solid) for rank, box in enumerate(choices)]
        placed[index] = choices[bad.index(min(bad))]
    return [placed[index] for index in range(len(points))]


def _crowd(points: Sequence[Point], index: int) -> float:
    """How close other points are."""
    x, y = points[index]
    distances = ((x - a) ** 2 + (y - b) ** 2 for i, (a, b) in enumerate(points) if i != index)
    return sum((1 / (1 + distance) for distance in distances), 0.0)


def _beside(point: Point, size: Point, gap: float, where: Point) -> Box:
    """The rectangle at one of `PLACES`."""
    (x, y), (width, height), (side, lines) = point, size, where
    middle = y + lines * height + (gap if lines > 0 else -gap if lines < 0 else 0) * (side == 0)
    left = x - width / 2 if side == 0 else x + 2 * gap if side > 0 else x - 2 * gap - width
    return Box(left, middle - height / 2, left + width, middle + height / 2)


def _harm(box: Box, frame: Box, solid: Sequence[tuple[float, Sequence[Box]]]) -> float:
    """How bad a place is; a rank in `PLACES` weighs as much as 1."""
    hidden = sum(weight * box.overlap(other) for weight, others in solid for other in others)
    return OUTSIDE * (box.area - box.overlap(frame)) + hidden


def _squares(start: Point, end: Point) -> list[Box]:
    """A line as small squares."""
    (x, y), (a, b) = start, end
    steps = max(1, round(math.hypot(a - x, b - y) / STEP))
    centres = (
        (x + (a - x) * step / steps, y + (b - y) * step / steps) for step in range(steps + 1)
    )
    half = STEP / 2
    return [Box(u - half, v - half, u + half, v + half) for u, v in centres]
