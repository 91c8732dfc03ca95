"""Dropout whose dice are cheap on a CPU.

PyTorch draws a double-precision number for every element there, on one thread: a fifth of a
training step of Deformable DETR. A 64-bit draw has dice for four elements.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SIDES = 1 << 16
"""Of a die: shares are rounded to multiples of 1 / SIDES."""


class Dropout(nn.Module):
    """`nn.Dropout`, drawn by `drop`; `p` is the share."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Drop in training, nothing in evaluation."""
        return drop(x, self.p, self.training)


def drop(
    x: Float[Tensor, "*B"], share: float, training: bool, *, dice: torch.Generator | None = None
) -> Float[Tensor, "*B"]:
    """Zero a random `share` of the elements and scale the others up, where `training`.

    Drawn from PyTorch's generator of the device, other numbers than `F.dropout` draws; on a CPU
    from `dice`, where they are given.
    """
    if not training or share == 0.0 or share == 1.0 or x.device.type != "cpu":
        return F.dropout(x, share, training)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    draws.random_(-(2**63), None, generator=dice)
    thrown = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (thrown >= round(share * SIDES) - SIDES // 2).to(x.dtype)
    return x * kept.mul_(1 / (1 - share))
