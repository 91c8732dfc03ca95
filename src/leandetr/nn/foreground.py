"""Foreground scores of Focus-DETR (arXiv 2307.12612), section 3.2: which tokens lie in objects."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.nn.scoring import TokenScorer
from leandetr.types import Foreground, Shapes

FINEST_LIMIT = 64.0
"""Pixels from a token to the farthest side of an object that is still its level's business, for
the finest of up to four levels: at stride 8 as in huawei-noah/noah-research:Focus-DETR."""
LEVELS = 4
"""Levels of the official model; with more of them the finest strides are smaller than 8."""
STRENGTH = 0.3
"""The modulations start anywhere from minus this to this (official code)."""


def foreground(levels: int) -> Foreground:
    """The teacher of so many levels: limits double from level to level, the last is open.

    Four levels give (-1, 64], (64, 128], (128, 256] and (256, inf). Levels beyond four are taken
    to be added at the fine end, as in the 5-scale models: the coarsest limit stays 256.
    """
    first = FINEST_LIMIT / 2.0 ** max(levels - LEVELS, 0)
    ends = [first * 2.0**level for level in range(levels - 1)]
    return Foreground(tuple(zip((-1.0, *ends), (*ends, float("inf")), strict=True)))


class ForegroundScorer(nn.Module):
    """One small network scores all levels, from coarse to fine.

    The scores of a level modulate the features of the next finer one, each such step with a
    learned strength: x + x * up(scores) * strength. Scores of padding are scores like others here,
    and the network sees the mean of all tokens of a level, padded ones included (official code).
    """

    def __init__(self, dim: int, levels: int) -> None:
        super().__init__()
        self.judge = TokenScorer(dim)
        # an empty parameter would never get a gradient
        self.strength = nn.Parameter(torch.empty(levels - 1)) if levels > 1 else None
        if self.strength is not None:
            nn.init.uniform_(self.strength, -STRENGTH, STRENGTH)

    def forward(self, features: Float[Tensor, "N S C"], shapes: Shapes) -> Float[Tensor, "N S"]:
        """The logit of each token being part of an object.

        huawei-noah/noah-research:Focus-DETR, projects/focus_detr/modeling: the strengths are
        ordered from coarse to fine.
        """
        sizes = [height * width for height, width in shapes]
        levels = list(features.split(sizes, dim=1))
        scores = [self.judge(levels.pop())]
        strengths = () if self.strength is None else self.strength.unbind()
        for strength in strengths:
            coarse = _resize(scores[0], shapes[len(levels)], shapes[len(levels) - 1])
            level, more = levels.pop(), (coarse * strength)[..., None]
            scores.insert(0, self.judge(torch.addcmul(level, level, more)))
        return torch.cat(scores, dim=1)


def _resize(
    scores: Float[Tensor, "N s"], coarse: tuple[int, int], fine: tuple[int, int]
) -> Float[Tensor, "N S"]:
    """Scores of a level at the size of a finer one: bilinear, corner cells on corner cells."""
    grid = scores.unflatten(1, coarse)[:, None]
    return F.interpolate(grid, size=fine, mode="bilinear", align_corners=True).flatten(1)
