"""The decoder of DETR (arXiv 2005.12872): every query may look at every token."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.errors import RecipeError
from leandetr.models.decoders.base import decoders
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn.attention import Attention
from leandetr.nn.feed_forward import MLP
from leandetr.nn.residual import PostNorm, PreNorm, Residual, start_evenly
from leandetr.registry import a_share, at_least_one
from leandetr.types import Decoded, Prediction, Queries, Sight, Tokens


@decoders.register("detr")
@dataclass(frozen=True)
class DetrDecoderConfig:
    """`pre_norm` norms before each attention and feed-forward block instead of after."""

    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.0
    pre_norm: bool = False

    def __post_init__(self) -> None:
        at_least_one(self, "decoder", "layers", "heads", "hidden")
        a_share(self, "decoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The decoder for a detector of these sizes."""
        residual = PreNorm if self.pre_norm else PostNorm
        layers = [
            DetrLayer(
                dims.dim, residual, heads=self.heads, hidden=self.hidden, dropout=self.dropout
            )
            for _ in range(self.layers)
        ]
        return DetrDecoder(dims.dim, layers)


class DetrLayer(nn.Module):
    """Self-attention among queries, attention to all tokens, feed-forward."""

    def __init__(
        self, dim: int, residual: Residual, *, heads: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, dropout=dropout)
        self.talk = residual(dim, dropout=dropout)
        self.cross_attention = Attention(dim, heads, dropout=dropout)
        self.look = residual(dim, dropout=dropout)
        self.feed_forward = MLP(dim, dim, hidden=hidden, depth=2, dropout=dropout)
        self.refine = residual(dim, dropout=dropout)
        start_evenly(self)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        *,
        tokens: Tokens,
        sights: tuple[Sight, ...],
    ) -> Float[Tensor, "N Q C"]:
        """Queries and keys carry their position, values do not; padded tokens are not asked."""

        def talk(x: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q C"]:
            asking = x + position
            return self.self_attention(asking, asking, x, sights=sights)

        def look(x: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q C"]:
            keys = tokens.features + tokens.position
            return self.cross_attention(x + position, keys, tokens.features, padding=tokens.padding)

        content = self.look(self.talk(content, talk), look)
        return self.refine(content, self.feed_forward)


class DetrDecoder(nn.Module):
    """One norm serves the answers of all layers; boxes have no reference, the heads place them.

    The content of DETR's queries starts at zero, so that all values of the first self-attention
    are alike: whom a query listens to there makes no difference, and the query and key projections
    of that attention get no gradient. Neither does, post-norm, the matrix of its values, which
    meets only zeros.
    """

    def __init__(self, dim: int, layers: list[DetrLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer; boxes in single precision at least."""
        if queries.position is None:
            raise RecipeError("the detr decoder needs queries with positions; type queries=learned")
        content, predictions = queries.content, []
        for index, layer in enumerate(self.layers):
            content = layer(content, queries.position, tokens=tokens, sights=queries.sights)
            normed = self.norm(content)
            boxes = frames.sigmoid(heads.shift(index, normed))
            predictions.append(Prediction(heads.logits(index, normed), boxes))
        return Decoded(tuple(predictions))
