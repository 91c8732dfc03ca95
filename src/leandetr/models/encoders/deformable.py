"""The deformable encoder of Deformable DETR (arXiv 2010.04159), DINO and H-DETR."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from leandetr.models.dims import Dims
from leandetr.models.encoders.base import Gather, encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.deform_attention import DeformAttention
from leandetr.nn.feed_forward import FeedForward
from leandetr.registry import a_share, at_least_one
from leandetr.types import Encoded, Tokens


@encoders.register("deformable")
@dataclass(frozen=True)
class DeformableEncoderConfig:
    """Every token of every level asks, in every layer."""

    layers: int = 6
    heads: int = 8
    points: int = 4
    hidden: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least_one(self, "encoder", "layers", "heads", "points", "hidden")
        a_share(self, "encoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The encoder for a detector of these sizes."""
        layers = [
            DeformableLayer(
                dims, heads=self.heads, points=self.points, hidden=self.hidden, dropout=self.dropout
            )
            for _ in range(self.layers)
        ]
        return DeformableEncoder(layers)


class DeformableLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward block."""

    def __init__(
        self, dims: Dims, *, heads: int, points: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        attention = DeformAttention(dims.dim, heads=heads, levels=dims.levels, points=points)
        self.gather = Gather(dims.dim, attention, dropout=dropout)
        self.feed_forward = FeedForward(dims.dim, hidden, dropout=dropout)

    def forward(self, tokens: Tokens, reference: Float[Tensor, "N S L 2"]) -> Tokens:
        """All tokens ask, all tokens answer."""
        features = self.gather(
            tokens.features,
            tokens.position,
            reference,
            memory=tokens.features,
            shapes=tokens.shapes,
            padding=tokens.padding,
        )
        return tokens.with_features(self.feed_forward(features))


class DeformableEncoder(nn.Module):
    """A stack of layers over all tokens; the proposals are not used."""

    def __init__(self, layers: list[DeformableLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        """Refine every token in every layer."""
        reference = grid.on_levels(grid.reference_points(tokens), tokens.valid_ratios)
        for layer in self.layers:
            tokens = layer(tokens, reference)
        return Encoded(tokens)
