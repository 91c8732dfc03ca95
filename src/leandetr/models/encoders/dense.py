"""The encoder of DETR (arXiv 2005.12872), which Conditional DETR (arXiv 2108.06152) keeps."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.base import encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn.attention import Attention
from leandetr.nn.feed_forward import MLP
from leandetr.nn.residual import PostNorm, PreNorm, Residual, start_evenly
from leandetr.registry import a_share, at_least_one
from leandetr.types import Encoded, Tokens


@encoders.register("dense")
@dataclass(frozen=True)
class DenseEncoderConfig:
    """Every token of one level asks every other; tokens of other levels pass through unchanged.

    `level` is counted from the finest (0) or from the coarsest (-1): with a single level there is
    nothing to choose. The cost grows with the square of the level's tokens. `pre_norm` norms
    before each attention and feed-forward block, and once at the end.
    """

    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.0
    pre_norm: bool = False
    level: int = -1

    def __post_init__(self) -> None:
        at_least_one(self, "encoder", "layers", "heads", "hidden")
        a_share(self, "encoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The encoder for a detector of these sizes."""
        if not -dims.levels <= self.level < dims.levels:
            raise RecipeError(
                f"expected encoder.level of -1 (coarsest) or 0 to {dims.levels - 1}; "
                f"got {self.level}; type encoder.level=-1"
            )
        residual = PreNorm if self.pre_norm else PostNorm
        layers = [
            DenseLayer(
                dims.dim, residual, heads=self.heads, hidden=self.hidden, dropout=self.dropout
            )
            for _ in range(self.layers)
        ]
        norm = nn.LayerNorm(dims.dim) if self.pre_norm else nn.Identity()
        return DenseEncoder(layers, norm, level=self.level)


class DenseLayer(nn.Module):
    """Self-attention among tokens, then a feed-forward block."""

    def __init__(
        self, dim: int, residual: Residual, *, heads: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout=dropout)
        self.gather = residual(dim, dropout=dropout)
        self.feed_forward = MLP(dim, dim, hidden=hidden, depth=2, dropout=dropout)
        self.refine = residual(dim, dropout=dropout)
        start_evenly(self)

    def forward(
        self,
        features: Float[Tensor, "N S C"],
        position: Float[Tensor, "N S C"],
        padding: Bool[Tensor, "N S"],
    ) -> Float[Tensor, "N S C"]:
        """Queries and keys carry their position, values do not; padded tokens are not asked."""

        def look(x: Float[Tensor, "N S C"]) -> Float[Tensor, "N S C"]:
            placed = x + position
            return self.attention(placed, placed, x, padding=padding)

        return self.refine(self.gather(features, look), self.feed_forward)


class DenseEncoder(nn.Module):
    """A stack of layers over one level; the proposals are not used."""

    def __init__(self, layers: list[DenseLayer], norm: nn.Module, *, level: int = -1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.level = level

    def forward(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        """Refine every token of the level in every layer."""
        height, width = tokens.shapes[self.level]
        start = tokens.starts[self.level]
        stop = start + height * width
        features, position = tokens.features[:, start:stop], tokens.position[:, start:stop]
        for layer in self.layers:
            features = layer(features, position, tokens.padding[:, start:stop])
        parts = (tokens.features[:, :start], self.norm(features), tokens.features[:, stop:])
        return Encoded(tokens.with_features(torch.cat(parts, dim=1)))
