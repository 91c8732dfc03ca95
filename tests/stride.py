"""An encoder as another package would write it: one file, nothing of ours changed."""

from dataclasses import dataclass

import torch
from torch import nn

from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.deform_attention import DeformAttention
from leandetr.nn.feed_forward import FeedForward
from leandetr.types import Encoded, Tokens


@encoders.register("stride")
@dataclass(frozen=True)
class StrideEncoderConfig:
    layers: int = 6
    step: int = 2
    heads: int = 2

    def build(self, dims: Dims) -> nn.Module:
        return StrideEncoder(dims, layers=self.layers, step=self.step, heads=self.heads)


class StrideEncoder(nn.Module):
    """Every `step`th token asks, all answer."""

    def __init__(self, dims: Dims, *, layers: int, step: int, heads: int) -> None:
        super().__init__()
        self.step = step
        self.gather = nn.ModuleList(
            Gather(dims.dim, DeformAttention(dims.dim, heads=heads, levels=dims.levels, points=1))
            for _ in range(layers)
        )
        self.feed_forward = nn.ModuleList(FeedForward(dims.dim, dims.dim) for _ in range(layers))

    def forward(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        reference = grid.on_levels(grid.reference_points(tokens), tokens.valid_ratios)
        asking = torch.arange(0, tokens.features.shape[1], self.step)
        for gather, feed_forward in zip(self.gather, self.feed_forward, strict=True):
            updated = gather(
                tokens.features[:, asking],
                tokens.position[:, asking],
                reference[:, asking],
                memory=tokens.features,
                shapes=tokens.shapes,
                padding=tokens.padding,
            )
            tokens = tokens.with_features(
                tokens.features.index_copy(1, asking, feed_forward(updated))
            )
        return Encoded(tokens)
