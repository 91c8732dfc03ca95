"""One image with its boxes on the way through augmentation, and the steps that move both.

Every geometric step keeps each box around its object, clips it to the picture and drops what is
left under one pixel on a side. Nothing here is random: see `transforms.py`.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from leandetr.images import resize

MIN_SIDE = 1.0
"""Boxes with a side below this, in pixels of the new picture, are dropped."""


@dataclass(frozen=True)
class View:
    """Pixels, and boxes xyxy in pixels of them; `crowd` marks boxes around many objects."""

    pixels: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "T 4"]
    labels: Int[Tensor, " T"]
    crowd: Bool[Tensor, " T"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


def flip_horizontal(view: View) -> View:
    """Left becomes right."""
    x0, y0, x1, y1 = view.boxes.unbind(-1)
    width = view.size[1]
    boxes = torch.stack((width - x1, y0, width - x0, y1), dim=-1)
    return replace(view, pixels=view.pixels.flip(-1), boxes=boxes)


def flip_vertical(view: View) -> View:
    """Top becomes bottom."""
    x0, y0, x1, y1 = view.boxes.unbind(-1)
    height = view.size[0]
    boxes = torch.stack((x0, height - y1, x1, height - y0), dim=-1)
    return replace(view, pixels=view.pixels.flip(-2), boxes=boxes)


def quarter_turn(view: View) -> View:
    """A quarter turn counter-clockwise: the right edge becomes the top."""
    x0, y0, x1, y1 = view.boxes.unbind(-1)
    width = view.size[1]
    boxes = torch.stack((y0, width - x1, y1, width - x0), dim=-1)
    return replace(view, pixels=view.pixels.rot90(1, (-2, -1)).contiguous(), boxes=boxes)


def scale_to(view: View, height: int, width: int) -> View:
    """Resize to exactly `height` x `width`."""
    factor = torch.tensor((width / view.size[1], height / view.size[0])).repeat(2)
    resized = replace(view, pixels=resize(view.pixels, height, width), boxes=view.boxes * factor)
    return _clipped(resized, resized.boxes, min_share=0.0)


def crop(view: View, window: tuple[int, int, int, int], min_share: float = 0.0) -> View:
    """The part inside `window` (top, left, height, width), which must lie inside the picture.

    A box stays if at least `min_share` of its area is inside.
    """
    top, left, height, width = window
    pixels = view.pixels[:, top : top + height, left : left + width]
    boxes = view.boxes - torch.tensor((left, top, left, top))
    return _clipped(replace(view, pixels=pixels), boxes, min_share)


def pad_to(view: View, height: int, width: int, fill: int = 0) -> View:
    """Add `fill` pixels at the right and bottom, up to at least `height` x `width`."""
    below, right = max(0, height - view.size[0]), max(0, width - view.size[1])
    return replace(view, pixels=F.pad(view.pixels, (0, right, 0, below), value=fill))


def _clipped(view: View, boxes: Float[Tensor, "T 4"], min_share: float) -> View:
    """The view with `boxes` cut at the border of its pixels, those that nearly vanish dropped."""
    height, width = view.size
    limit = torch.tensor((width, height, width, height), dtype=boxes.dtype)
    inside = torch.minimum(boxes.clamp(min=0), limit)
    sides, whole = inside[:, 2:] - inside[:, :2], boxes[:, 2:] - boxes[:, :2]
    keep = (sides >= MIN_SIDE).all(dim=1) & (sides.prod(dim=1) >= min_share * whole.prod(dim=1))
    return View(view.pixels, inside[keep], view.labels[keep], view.crowd[keep])
