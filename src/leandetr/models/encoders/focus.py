"""The encoder of Focus-DETR (arXiv 2307.12612): foreground tokens are refined, fewer each layer.

Every token is scored once: does it lie in an object of its level's size? Each layer refines the
tokens that score best, a smaller share from layer to layer. Among them, those that look most like
an object of any class first attend to each other (dual attention, section 3.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.attention import Attention
from leandetr.nn.deform_attention import DeformAttention
from leandetr.nn.dropout import Dropout
from leandetr.nn.feed_forward import FeedForward
from leandetr.nn.foreground import ForegroundScorer, foreground
from leandetr.nn.scoring import WHOLE, renewed, share, thousandths
from leandetr.registry import a_share, at_least_one
from leandetr.types import Encoded, Salience, Tokens


@encoders.register("focus")
@dataclass(frozen=True)
class FocusEncoderConfig:
    """`keep` is the share of an image's tokens in the foreground (`focus_rho`).

    `cascade` says how much of that share each layer refines; there are as many layers as entries.
    `objects` tokens of a layer attend to each other. Shares are in whole thousandths.
    """

    keep: float = 0.5
    cascade: tuple[float, ...] = (1.0, 0.8, 0.6, 0.6, 0.4, 0.2)
    objects: int = 300
    heads: int = 8
    points: int = 4
    hidden: int = 2048
    dropout: float = 0.0
    scores_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one(self, "encoder", "objects", "heads", "points", "hidden")
        a_share(self, "encoder", "dropout")
        if not self.cascade:
            raise RecipeError(
                "expected an encoder.cascade of one share a layer; got none; "
                "type encoder.cascade=[1.0,0.5] for two layers"
            )
        thousandths(self.keep, "encoder.keep")
        for index, share_ in enumerate(self.cascade):
            thousandths(share_, f"encoder.cascade[{index}]")
        if max(self.cascade) != 1:
            raise RecipeError(
                "expected an encoder.cascade in which a layer refines all that encoder.keep keeps, "
                f"a 1.0; got {list(self.cascade)}; lower encoder.keep instead"
            )

    def build(self, dims: Dims) -> nn.Module:
        """The encoder for a detector of these sizes."""
        return FocusEncoder(
            ForegroundScorer(dims.dim, dims.levels),
            [self._layer(dims) for _ in self.cascade],
            keep=thousandths(self.keep, "encoder.keep"),
            cascade=[thousandths(part, "encoder.cascade") for part in self.cascade],
            objects=self.objects,
        )

    def _layer(self, dims: Dims) -> "FocusLayer":
        attention = DeformAttention(
            dims.dim, heads=self.heads, levels=dims.levels, points=self.points
        )
        return FocusLayer(
            Attention(dims.dim, self.heads, dropout=self.dropout),
            Gather(dims.dim, attention, dropout=self.dropout),
            feed_forward=FeedForward(dims.dim, self.hidden, dropout=self.dropout),
            dim=dims.dim,
            dropout=self.dropout,
        )


@dataclass(frozen=True)
class Asking:
    """The tokens that one layer refines, and where the object tokens are among them.

    `unused` are slots of `objects` without an object token.
    """

    features: Float[Tensor, "N T C"]
    position: Float[Tensor, "N T C"]
    reference: Float[Tensor, "N T L 2"]
    objects: Int[Tensor, "N O"]
    unused: Bool[Tensor, "N O"]


class FocusLayer(nn.Module):
    """Dual attention: object tokens talk to each other, then all asking tokens look at the image.

    The feed-forward block comes last.
    """

    def __init__(
        self,
        among_objects: Attention,
        gather: Gather,
        *,
        feed_forward: FeedForward,
        dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.object_attention = among_objects
        self.object_norm = nn.LayerNorm(dim)
        self.gather = gather
        self.feed_forward = feed_forward
        self.dropout = Dropout(dropout)

    def forward(self, asking: Asking, tokens: Tokens) -> Float[Tensor, "N T C"]:
        """The asking tokens, refined; all tokens answer."""
        found = self.gather(
            self._talk(asking),
            asking.position,
            asking.reference,
            memory=tokens.features,
            shapes=tokens.shapes,
            padding=tokens.padding,
        )
        return self.feed_forward(found)

    def _talk(self, asking: Asking) -> Float[Tensor, "N T C"]:
        """All asking tokens, the object tokens among them having heard of each other."""
        content = grid.pick(asking.features, asking.objects)
        placed = content + grid.pick(asking.position, asking.objects)
        heard = self.object_attention(placed, placed, content, padding=asking.unused)
        content = self.object_norm(content + self.dropout(heard)).to(asking.features.dtype)
        return grid.put(asking.features, asking.objects, content)


class FocusEncoder(nn.Module):
    """Scores all tokens once; layer i refines `cascade[i]` of the best `keep` (in thousandths).

    Counts are those of the official code. The image with the most valid tokens decides how many
    tokens of every image a layer looks at, int(cascade * (int(valid * rho) + 1)); of image n only
    its own best int(valid * rho) + 1 are written back, the others just fill the batch, though
    they may be object tokens. Padded ones never are, as they can become in the official training
    where an image is less than half as large as another. Values are always the features that
    came in, never refined ones.

    Where the padding law does not hold: scores see the mean of a level's whole canvas, and those
    of a coarser level are resized from corner to corner of it.
    """

    def __init__(
        self,
        scorer: ForegroundScorer,
        layers: list[FocusLayer],
        *,
        keep: int,
        cascade: Sequence[int],
        objects: int,
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.layers = nn.ModuleList(layers)
        self.keep = keep
        self.cascade = tuple(cascade)
        self.objects = objects

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> Encoded:
        """Refine the tokens that score best, ever fewer of them.

        A layer's number of tokens follows from the level shapes, which is known before the data,
        and is at least the official one; ranks beyond that one are masked.
        """
        logits = self.scorer(proposals.describe(tokens), tokens.shapes)
        valid = (~tokens.padding).sum(dim=1)
        counts = torch.minimum(share(valid, self.keep), valid)
        most = counts.amax()
        everything = grid.count(tokens.shapes)
        width = everything if self.keep == WHOLE else everything * self.keep // WHOLE + 1
        scores, kept = logits.masked_fill(tokens.padding, -torch.inf).topk(width, dim=1)
        points = grid.pick(grid.reference_points(tokens), kept)
        position = grid.pick(tokens.position, kept)
        reference = grid.on_levels(points, tokens.valid_ratios)
        rows = grid.pick(tokens.features, kept)  # best first, so a layer refines the first of them
        for layer, part in zip(self.layers, self.cascade, strict=True):
            fit = torch.sym_max(width * part // WHOLE, 1)
            real = torch.div(most * part, WHOLE, rounding_mode="floor").clamp(min=1)
            features = rows[:, :fit]
            usable = torch.minimum(real, valid)
            objects = self._objects(features, scores[:, :fit], usable, proposals)
            unused = objects >= usable[:, None]
            asking = Asking(features, position[:, :fit], reference[:, :fit], objects, unused)
            rows = renewed(rows, torch.minimum(counts, real), layer(asking, tokens))
        salience = Salience(logits, foreground(len(tokens.shapes)), kept, counts)
        return Encoded(tokens.with_features(grid.put(tokens.features, kept, rows)), salience)

    @torch.no_grad()
    def _objects(
        self,
        features: Float[Tensor, "N T C"],
        scores: Float[Tensor, "N T"],
        usable: Int[Tensor, " N"],
        proposals: ProposalHead,
    ) -> Int[Tensor, "N O"]:
        """Which of the first `usable` tokens are the surest objects: a product of raw logits."""
        likely = proposals.likeliest(features) * scores
        rank = torch.arange(likely.shape[1], device=likely.device)
        likely = likely.masked_fill(rank >= usable[:, None], -torch.inf)
        count = cast("int", torch.sym_min(likely.shape[1], self.objects))
        return likely.topk(count, dim=1).indices
