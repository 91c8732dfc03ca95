"""Colour jitter as one affine map of RGB, so that four changes cost one pass over the pixels."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

GREY = torch.tensor((0.299, 0.587, 0.114))
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def adjust(
    pixels: UInt8[Tensor, "3 H W"],
    *,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
) -> UInt8[Tensor, "3 H W"]:
    """Multiply brightness, contrast and saturation, and turn the colour wheel by `hue` turns.

    Contrast is about the picture's mean grey. The hue turn is a rotation about the grey axis of
    RGB: near to, and much cheaper than, the one in HSV. Factors of 1 and no turn change nothing.
    """
    values = pixels.flatten(1).float()  # 3 HW
    grey = GREY.expand(3, 3)
    matrix = saturation * (_rotation(hue) - grey) + grey
    matrix = brightness * contrast * matrix
    mean = float(GREY @ values.mean(dim=1))
    offset = brightness * (1 - contrast) * mean
    changed = torch.addmm(torch.tensor(offset), matrix, values)  # 3 HW
    return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(pixels)


def _rotation(turns: float) -> Float[Tensor, "3 3"]:
    """Rotation of RGB about the axis (1, 1, 1)."""
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns) / math.sqrt(3)
    cross = torch.tensor(((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0)))
    return cosine * torch.eye(3) + sine * cross + (1 - cosine) / 3
