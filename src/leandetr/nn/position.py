"""Sine embeddings of grid cells and of boxes."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CELL_EPS = 1e-6
"""Added to the count of valid cells before dividing by it (facebookresearch/detr)."""
BOX_TEMPERATURE = 10000.0
"""Temperature of the box embedding (IDEA-Research/DINO:models/dino/utils.py)."""


def _frequencies(count: int, temperature: float, like: Tensor) -> Float[Tensor, " {count}"]:
    """Wavelengths of `count` channels; sine and cosine neighbours share one."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return temperature ** (2 * torch.div(steps, 2, rounding_mode="floor") / count)


def _waves(x: Float[Tensor, "*B"], count: int, temperature: float) -> Float[Tensor, "*B {count}"]:
    """Sine on even channels, cosine on odd ones."""
    angle = x[..., None] / _frequencies(count, temperature, x)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


def sine_grid(
    padding: Bool[Tensor, "N H W"],
    channels: int,
    *,
    temperature: float,
    offset: float,
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "N H W {channels}"]:
    """Embed each cell's row (first half) and column (second half), counted over valid cells.

    Official settings: DETR and Conditional DETR 10000 and offset 0, Deformable DETR 10000 and -0.5,
    DINO 20 and 0. With `normalise` the counts run to 2 pi at the last valid cell.
    """
    valid = (~padding).to(dtype)
    rows, columns = valid.cumsum(dim=1), valid.cumsum(dim=2)
    if normalise:
        rows = (rows + offset) / (rows[:, -1:, :] + CELL_EPS) * 2 * math.pi
        columns = (columns + offset) / (columns[:, :, -1:] + CELL_EPS) * 2 * math.pi
    half = channels // 2
    return torch.cat((_waves(rows, half, temperature), _waves(columns, half, temperature)), dim=-1)


def sine_coordinates(
    boxes: Float[Tensor, "*B R"], channels: int
) -> Float[Tensor, "*B R*{channels}"]:
    """Embed each coordinate in `channels` waves, in the order they have.

    Two-stage Deformable DETR describes its proposals so: cx, cy, w, h
    (fundamentalvision/Deformable-DETR:models/deformable_transformer.py, get_proposal_pos_embed).
    """
    return _coordinate_waves(boxes, channels).flatten(-2)


def sine_boxes(boxes: Float[Tensor, "*B R"], channels: int) -> Float[Tensor, "*B R*{channels}"]:
    """Embed each coordinate in `channels` waves; y before x, then width and height.

    Points give 2, boxes 4 times `channels`. After IDEA-Research/DINO:models/dino/utils.py,
    gen_sineembed_for_position.
    """
    waves = _coordinate_waves(boxes, channels)
    swapped = torch.cat((waves[..., 1:2, :], waves[..., 0:1, :], waves[..., 2:, :]), dim=-2)
    return swapped.flatten(-2)


def _coordinate_waves(
    boxes: Float[Tensor, "*B R"], channels: int
) -> Float[Tensor, "*B R {channels}"]:
    return _waves(boxes * 2 * math.pi, channels, BOX_TEMPERATURE)
