"""The interleaved multi-scale encoder of Lite DETR (arXiv 2303.07335).

HxLy-(A+1)xB of the paper reads: the x coarsest levels are high-level, the y finest low-level; a
block updates the high-level tokens A times and the low-level tokens once, and there are B blocks.
In the released code a block therefore holds A - 1 layers in which only high-level tokens ask and
one layer in which all tokens ask; keys and values are all tokens in every layer
(IDEA-Research/Lite-DETR:models/dino/deformable_transformer.py, TransformerEncoder).

Scored Lite, which is in no paper, joins this with the scores of Focus-DETR (arXiv 2307.12612): of
the low-level tokens only those ask that score best as foreground.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.asking import Asking, Chosen, Tail
from leandetr.nn.deform_attention import sampled_attention
from leandetr.nn.feed_forward import FeedForward
from leandetr.nn.foreground import foreground
from leandetr.nn.in_rows import only_predicts
from leandetr.nn.scoring import WHOLE, TokenScorer, share, thousandths
from leandetr.registry import a_share, at_least_one
from leandetr.types import Encoded, Salience, Tokens


@encoders.register("lite")
@dataclass(frozen=True)
class LiteEncoderConfig:
    """`high_levels` = x, `high_updates` = A, `blocks` = B of HxLy-(A+1)xB.

    `low_hidden` is the width of the feed-forward block for low-level tokens; None gives them the
    one of the high-level tokens (`small_expand=False` in the official code). `keep_low` makes it
    Scored Lite: this share of an image's low-level tokens is ever refined, None: all are.
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
    keep_low: float | None = None

    def __post_init__(self) -> None:
        counts = ("high_levels", "high_updates", "blocks", "heads", "points", "hidden")
        at_least_one(
            self, "encoder", *counts, *(() if self.low_hidden is None else ("low_hidden",))
        )
        a_share(self, "encoder", "dropout")
        if self.own_key and not self.key_aware:
            raise RecipeError("own_key needs keys; type encoder.key_aware=true or own_key=false")
        if self.keep_low is not None:
            thousandths(self.keep_low, "encoder.keep_low")

    @property
    def scores_tokens(self) -> bool:
        """Whether the encoder needs the head that describes tokens."""
        return self.keep_low is not None

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
        if self.keep_low is None:
            return LiteEncoder(blocks, high_levels=self.high_levels)
        keep = thousandths(self.keep_low, "encoder.keep_low")
        scorer = TokenScorer(dims.dim)
        return ScoredLiteEncoder(scorer, blocks, high_levels=self.high_levels, keep_low=keep)

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
        if not (self.low.predicts(low) and self.high.predicts(high)):
            return torch.cat((self.low(low), self.high(high)), dim=1)
        place = torch.empty_like(features, dtype=self.high.norm.weight.dtype)
        self.low.write(low, place[:, :low_count])
        self.high.write(high, place[:, low_count:])
        return place


class LiteLayer(nn.Module):
    """Some tokens ask, all tokens answer."""

    def __init__(self, gather: Gather, feed_forward: EvenFeedForward | SplitFeedForward) -> None:
        super().__init__()
        self.gather = gather
        self.feed_forward = feed_forward

    def forward(self, tokens: Tokens, reference: Float[Tensor, "N S 2"], asking: Asking) -> Tokens:
        """Update the asking tokens; the others keep their features."""
        updated = self.gather(
            asking.take(tokens.features),
            asking.take(tokens.position),
            grid.on_levels(asking.take(reference), tokens.valid_ratios),
            memory=tokens.features,
            shapes=tokens.shapes,
            padding=tokens.padding,
        )
        updated = self.feed_forward(updated, asking.low_count)
        return tokens.with_features(asking.put(tokens.features, updated))


class LiteBlock(nn.Module):
    """High-level tokens ask several times, then low-level ones ask too, once."""

    def __init__(self, high: list[LiteLayer], full: LiteLayer) -> None:
        super().__init__()
        self.high = nn.ModuleList(high)
        self.full = full

    def forward(
        self, tokens: Tokens, reference: Float[Tensor, "N S 2"], *, high: Tail, full: Asking
    ) -> Tokens:
        """`high` are the high-level tokens, `full` those that ask in the last layer."""
        for layer in self.high:
            tokens = layer(tokens, reference, high)
        return self.full(tokens, reference, full)


class LiteEncoder(nn.Module):
    """A stack of interleaved blocks; the proposals are not used."""

    def __init__(self, blocks: list[LiteBlock], *, high_levels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.high_levels = high_levels

    def forward(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        """Refine the coarse tokens often and the fine ones seldom."""
        reference = grid.reference_points(tokens)
        start = tokens.starts[-self.high_levels]
        tokens, over = _own(tokens, self)
        high, full = Tail(start, 0, over), Tail(0, start, over)
        for block in self.blocks:
            tokens = block(tokens, reference, high=high, full=full)
        return Encoded(tokens)


class ScoredLiteEncoder(nn.Module):
    """The same blocks, but of the low-level tokens only the best `keep_low` thousandths ever ask.

    Our own: Lite DETR's interleaving with a foreground score a token, learned as in Focus-DETR.
    An image refines int(valid * share) + 1 of its valid low-level tokens, chosen once; the others
    go to the decoder as they came. Every image is scored and counted by itself.
    """

    def __init__(
        self, scorer: TokenScorer, blocks: list[LiteBlock], *, high_levels: int, keep_low: int
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.blocks = nn.ModuleList(blocks)
        self.high_levels = high_levels
        self.keep_low = keep_low

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> Encoded:
        """Refine the coarse tokens often, the best of the fine ones seldom, the others never.

        The salience names the low-level tokens that were refined; all tokens' scores learn.
        """
        logits = self.scorer(proposals.describe(tokens), tokens.padding)
        reference = grid.reference_points(tokens)
        start = tokens.starts[-self.high_levels]
        full = self._choose(logits[:, :start], tokens.padding[:, :start])
        tokens, over = _own(tokens, self)
        for block in self.blocks:
            tokens = block(tokens, reference, high=Tail(start, 0, over), full=full)
        salience = Salience(logits, foreground(len(tokens.shapes)), full.kept, full.counts)
        return Encoded(tokens, salience)

    def _choose(self, logits: Float[Tensor, "N S"], padding: Bool[Tensor, "N S"]) -> Chosen:
        """The best low-level tokens; there is room for the share of the whole canvas."""
        count = logits.shape[1]
        room = count if self.keep_low == WHOLE else count * self.keep_low // WHOLE + 1
        kept = logits.masked_fill(padding, -torch.inf).topk(room, dim=1).indices
        valid = (~padding).sum(dim=1)
        return Chosen(kept, torch.minimum(share(valid, self.keep_low), valid), count)


def _own(tokens: Tokens, encoder: nn.Module) -> tuple[Tokens, bool]:
    """Tokens that may be written over, where that is allowed at all, and whether it is."""
    if not only_predicts(tokens.features, *encoder.parameters()):
        return tokens, False
    return tokens.with_features(tokens.features.clone()), True
