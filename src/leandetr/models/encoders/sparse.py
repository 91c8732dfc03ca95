"""The encoder of Sparse DETR (arXiv 2111.14330): only the tokens that score best are refined.

A small network scores every token once, before the first layer. In each layer the kept tokens ask
and all tokens answer, kept or not; the others go to the decoder as they came. The scores learn to
foresee where the decoder will look (section 3.3), and the kept tokens predict objects after every
layer but the last (section 3.4).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import PredictionHeads, ProposalHead
from leandetr.nn import grid
from leandetr.nn.deform_attention import DeformAttention
from leandetr.nn.feed_forward import FeedForward
from leandetr.nn.scoring import WHOLE, TokenScorer, padding_last, share, thousandths, write_back
from leandetr.registry import a_share, at_least_one
from leandetr.types import Attention, Encoded, Prediction, Salience, Tokens


@encoders.register("sparse")
@dataclass(frozen=True)
class SparseEncoderConfig:
    """`keep` is rho, the share of an image's tokens that are refined, in whole thousandths.

    `auxiliary` gives every layer but the last class and box heads of its own, used in training
    only. A rho of 0, which in the official code refines all tokens and scores none, is the
    encoder `deformable` here.
    """

    keep: float = 0.3
    layers: int = 6
    heads: int = 8
    points: int = 4
    hidden: int = 1024
    dropout: float = 0.0
    auxiliary: bool = True
    scores_tokens: ClassVar[bool] = True
    learns_from_looks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one(self, "encoder", "layers", "heads", "points", "hidden")
        a_share(self, "encoder", "dropout")
        if self.keep == 0:
            raise RecipeError(
                "expected encoder.keep above 0; got 0; "
                "type encoder.keep=0.1, or encoder=deformable to refine all tokens"
            )
        thousandths(self.keep, "encoder.keep")

    @property
    def permille(self) -> int:
        """`keep` in thousandths."""
        return thousandths(self.keep, "encoder.keep")

    def build(self, dims: Dims) -> nn.Module:
        """The encoder for a detector of these sizes."""
        heads = None
        if self.auxiliary and self.layers > 1:
            heads = PredictionHeads(dims.dim, dims.classes, layers=self.layers - 1, shared=False)
        layers = [self._layer(dims) for _ in range(self.layers)]
        return SparseEncoder(dims.dim, layers, permille=self.permille, heads=heads)

    def _layer(self, dims: Dims) -> "SparseLayer":
        attention = DeformAttention(
            dims.dim, heads=self.heads, levels=dims.levels, points=self.points
        )
        return SparseLayer(
            Gather(dims.dim, attention, dropout=self.dropout),
            FeedForward(dims.dim, self.hidden, dropout=self.dropout),
        )


class SparseLayer(nn.Module):
    """Deformable attention of some tokens to all of them, then a feed-forward block."""

    def __init__(self, gather: Gather, feed_forward: FeedForward) -> None:
        super().__init__()
        self.gather = gather
        self.feed_forward = feed_forward

    def forward(
        self,
        asking: Float[Tensor, "N T C"],
        position: Float[Tensor, "N T C"],
        reference: Float[Tensor, "N T L 2"],
        tokens: Tokens,
    ) -> Float[Tensor, "N T C"]:
        """The asking tokens, refined; all tokens answer."""
        found = self.gather(
            asking,
            position,
            reference,
            memory=tokens.features,
            shapes=tokens.shapes,
            padding=tokens.padding,
        )
        return self.feed_forward(found)


class SparseEncoder(nn.Module):
    """Scores all tokens once, then refines the best `permille` thousandths of every image.

    An image keeps int(valid * rho) + 1 of its valid tokens, and never more than these. Images
    that keep fewer than others are filled up with their next best tokens, which ask as well but
    are not written back.

    Scores look at the mean over all tokens of the batch's canvas, padding included, as in the
    official code: a larger canvas changes them slightly, and so which tokens are kept.
    """

    def __init__(
        self,
        dim: int,
        layers: list[SparseLayer],
        *,
        permille: int,
        heads: PredictionHeads | None = None,
    ) -> None:
        super().__init__()
        self.scorer = TokenScorer(dim)
        self.layers = nn.ModuleList(layers)
        self.heads = heads
        self.permille = permille

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> Encoded:
        """Refine the tokens that score best, and in training predict from them after each layer.

        kakaobrain/sparse-detr:models/deformable_transformer.py, DeformableTransformerEncoder.
        """
        logits = self.scorer(proposals.describe(tokens))
        counts = self._counts(tokens)
        kept = self._best(logits, tokens, counts)
        place = grid.on_levels(grid.pick(grid.reference_points(tokens), kept), tokens.valid_ratios)
        asking, position = grid.pick(tokens.features, kept), grid.pick(tokens.position, kept)
        asked = []
        for layer in self.layers:
            asking = layer(asking, position, place, tokens)
            written = write_back(tokens.features, kept, counts, asking)
            tokens = tokens.with_features(written)
            asked.append(asking)
        salience = Salience(padding_last(logits, tokens.padding), Attention(counts), kept, counts)
        return Encoded(tokens, salience, self._predict(asked, tokens, kept, proposals))

    def _counts(self, tokens: Tokens) -> Int[Tensor, " N"]:
        """How many tokens of each image are refined."""
        valid = (~tokens.padding).sum(dim=1)
        return torch.minimum(share(valid, self.permille), valid)

    def _best(
        self, logits: Float[Tensor, "N S"], tokens: Tokens, counts: Int[Tensor, " N"]
    ) -> Int[Tensor, "N T"]:
        """The tokens that ask, best first, padding last.

        Training fills images up to the largest count of the batch, as the official code does,
        since the filling enters the losses. Evaluation fills them up to the share of the whole
        canvas, a number that is known before the data: the filling then changes nothing.
        """
        everything = grid.count(tokens.shapes)
        width = everything if self.permille == WHOLE else everything * self.permille // WHOLE + 1
        if self.training:
            width = max(int(counts.max()), 1)
        scores = logits.masked_fill(tokens.padding, -torch.inf)
        return scores.topk(width, dim=1).indices

    def _predict(
        self,
        asked: list[Float[Tensor, "N T C"]],
        tokens: Tokens,
        kept: Int[Tensor, "N T"],
        proposals: ProposalHead,
    ) -> tuple[Prediction, ...]:
        """What the tokens that asked see after every layer but the last, in training."""
        if self.heads is None or not self.training:
            return ()
        start = grid.pick(proposals.box_logits(tokens), kept)
        return tuple(
            Prediction(
                self.heads.logits(index, features),
                frames.sigmoid(start + self.heads.shift(index, features)),
            )
            for index, features in enumerate(asked[:-1])
        )
