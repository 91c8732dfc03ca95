"""The interleaved multi-scale encoder of Lite DETR (arXiv 2303.07335).

HxLy-(A+1)xB of the paper reads: the x coarsest levels are high-level, the y finest low-level; a
block updates the high-level tokens A times and the low-level tokens once, and there are B blocks.
In the released code a block therefore holds A - 1 layers in which only high-level tokens ask and
one layer in which all tokens ask; keys and values are all tokens in every layer
(IDEA-Research/Lite-DETR:models/dino/deformable_transformer.py, TransformerEncoder).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.deform_attention import sampled_attention
from leandetr.nn.feed_forward import FeedForward
from leandetr.registry import a_share, at_least_one
from leandetr.types import Encoded, Tokens


@encoders.register("lite")
@dataclass(frozen=True)
class LiteEncoderConfig:
    """`high_levels` = x, `high_updates` = A, `blocks` = B of HxLy-(A+1)xB.

    `low_hidden` is the width of the feed-forward block for low-level tokens; None gives them the
    one of the high-level tokens (`small_expand=False` in the official code).
    """

    high_levels: int = 3
    high_updates: int = 2
    blocks: int = 3
    heads: int = 8
    points: int = 4
    hidden: int = 2048
    low_hidden: int | None = 256
    key_aware: bool = True
    own_key: bool = False
    shared_offsets: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        counts = ("high_levels", "high_updates", "blocks", "heads", "points", "hidden")
        at_least_one(
            self, "encoder", *counts, *(() if self.low_hidden is None else ("low_hidden",))
        )
        a_share(self, "encoder", "dropout")
        if self.own_key and not self.key_aware:
            raise RecipeError("own_key needs keys; type encoder.key_aware=true or own_key=false")

    def build(self, dims: Dims) -> nn.Module:
        """The encoder for a detector of these sizes."""
        if dims.levels < 2:
            raise RecipeError(
                "the lite encoder needs fine and coarse levels, got one; "
                "type neck.levels=2 or more, or encoder=deformable"
            )
        if self.high_levels >= dims.levels:
            raise RecipeError(
                f"expected fewer high-level scales than the {dims.levels} levels; "
                f"got high_levels={self.high_levels}; type encoder.high_levels={dims.levels - 1}"
            )
        blocks = [
            LiteBlock(
                [self._high_layer(dims) for _ in range(self.high_updates - 1)],
                self._full_layer(dims),
            )
            for _ in range(self.blocks)
        ]
        return LiteEncoder(blocks, high_levels=self.high_levels)

    def _gather(self, dims: Dims) -> Gather:
        attention = sampled_attention(
            dims.dim,
            heads=self.heads,
            levels=dims.levels,
            points=self.points,
            key_aware=self.key_aware,
            shared_offsets=self.shared_offsets,
            own_key=self.own_key,
        )
        return Gather(dims.dim, attention, dropout=self.dropout)

    def _high_layer(self, dims: Dims) -> "LiteLayer":
        feed_forward = FeedForward(dims.dim, self.hidden, dropout=self.dropout)
        return LiteLayer(self._gather(dims), EvenFeedForward(feed_forward))

    def _full_layer(self, dims: Dims) -> "LiteLayer":
        high = FeedForward(dims.dim, self.hidden, dropout=self.dropout)
        if self.low_hidden is None:
            return LiteLayer(self._gather(dims), EvenFeedForward(high))
        low = FeedForward(dims.dim, self.low_hidden, dropout=self.dropout)
        return LiteLayer(self._gather(dims), SplitFeedForward(low=low, high=high))


class EvenFeedForward(nn.Module):
    """One feed-forward block for all tokens."""

    def __init__(self, high: FeedForward) -> None:
        super().__init__()
        self.high = high

    def forward(self, features: Float[Tensor, "N Q C"], low_count: int) -> Float[Tensor, "N Q C"]:
        """Every token goes the same way."""
        return self.high(features)


class SplitFeedForward(nn.Module):
    """A narrow feed-forward block for low-level tokens, a wide one for high-level tokens."""

    def __init__(self, *, low: FeedForward, high: FeedForward) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, features: Float[Tensor, "N Q C"], low_count: int) -> Float[Tensor, "N Q C"]:
        """The first `low_count` tokens are low-level."""
        low, high = features[:, :low_count], features[:, low_count:]
        return torch.cat((self.low(low), self.high(high)), dim=1)


class LiteLayer(nn.Module):
    """The tokens from `start` on ask; all tokens answer."""

    def __init__(self, gather: Gather, feed_forward: EvenFeedForward | SplitFeedForward) -> None:
        super().__init__()
        self.gather = gather
        self.feed_forward = feed_forward

    def forward(
        self, tokens: Tokens, reference: Float[Tensor, "N S L 2"], *, start: int, low_count: int
    ) -> Tokens:
        """Update the asking tokens; the others keep their features."""
        updated = self.gather(
            tokens.features[:, start:],
            tokens.position[:, start:],
            reference[:, start:],
            memory=tokens.features,
            shapes=tokens.shapes,
            padding=tokens.padding,
        )
        updated = self.feed_forward(updated, low_count)
        return tokens.with_features(torch.cat((tokens.features[:, :start], updated), dim=1))


class LiteBlock(nn.Module):
    """High-level tokens ask several times, then all tokens ask once."""

    def __init__(self, high: list[LiteLayer], full: LiteLayer) -> None:
        super().__init__()
        self.high = nn.ModuleList(high)
        self.full = full

    def forward(self, tokens: Tokens, reference: Float[Tensor, "N S L 2"], *, start: int) -> Tokens:
        """`start` is the index of the first high-level token."""
        for layer in self.high:
            tokens = layer(tokens, reference, start=start, low_count=0)
        return self.full(tokens, reference, start=0, low_count=start)


class LiteEncoder(nn.Module):
    """A stack of interleaved blocks; the proposals are not used."""

    def __init__(self, blocks: list[LiteBlock], *, high_levels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.high_levels = high_levels

    def forward(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        """Refine the coarse tokens often and the fine ones seldom."""
        reference = grid.on_levels(grid.reference_points(tokens), tokens.valid_ratios)
        start = tokens.starts[-self.high_levels]
        for block in self.blocks:
            tokens = block(tokens, reference, start=start)
        return Encoded(tokens)
