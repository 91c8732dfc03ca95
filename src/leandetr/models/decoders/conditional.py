"""The decoder of Conditional DETR (arXiv 2108.06152): content and position ask side by side.

Queries compare their content with the content of tokens and, in other channels of the same head,
their place with the place of tokens; what they have found so far scales the place.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.errors import RecipeError
from leandetr.models.decoders.base import decoders
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn.attention import check_heads, mix, mix_in_sight, split_heads, visible
from leandetr.nn.feed_forward import MLP
from leandetr.nn.position import sine_boxes
from leandetr.nn.residual import PostNorm, start_evenly
from leandetr.registry import a_share, at_least_one
from leandetr.types import Decoded, Prediction, Queries, Sight, Tokens

POINT_EPS = 1e-5
"""Clamp of the inverse sigmoid of references (Atten4Vis/ConditionalDETR:util/misc.py)."""


@decoders.register("conditional")
@dataclass(frozen=True)
class ConditionalDecoderConfig:
    """Post-norm, as released."""

    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least_one(self, "decoder", "layers", "heads", "hidden")
        a_share(self, "decoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The decoder for a detector of these sizes."""
        layers = [
            ConditionalLayer(
                dims.dim, heads=self.heads, hidden=self.hidden, dropout=self.dropout, first=not i
            )
            for i in range(self.layers)
        ]
        return ConditionalDecoder(dims.dim, layers)


class SelfAttention(nn.Module):
    """Among queries; content and position have projections of their own, which are added."""

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.dropout = dropout
        self.query_content = nn.Linear(dim, dim)
        self.query_position = nn.Linear(dim, dim)
        self.key_content = nn.Linear(dim, dim)
        self.key_position = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = _output(dim)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        sights: tuple[Sight, ...],
    ) -> Float[Tensor, "N Q C"]:
        """The queries, having heard of those that each sees."""
        query = self.query_content(content) + self.query_position(position)
        key = self.key_content(content) + self.key_position(position)
        asked, keys, values = (
            split_heads(x, self.heads) for x in (query, key, self.value(content))
        )
        dropout = self.dropout if self.training else 0.0
        return self.output(mix_in_sight(asked, keys, values, sights, dropout=dropout))


class CrossAttention(nn.Module):
    """Conditional cross-attention (section 3.3): each head compares content, then place.

    With `first`, for the layer whose queries have found nothing yet, the content of queries and
    keys also holds their learned position.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0, first: bool = False) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.dropout = dropout
        self.query_content = nn.Linear(dim, dim)
        self.query_position = nn.Linear(dim, dim) if first else None
        self.query_place = nn.Linear(dim, dim)
        self.key_content = nn.Linear(dim, dim)
        self.key_position = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = _output(dim)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        place: Float[Tensor, "N Q C"],
        tokens: Tokens,
    ) -> Float[Tensor, "N Q C"]:
        """`place` is the embedding of each query's reference; padded tokens are not asked."""
        query, key = self.query_content(content), self.key_content(tokens.features)
        where = self.key_position(tokens.position)
        if self.query_position is not None:
            query, key = query + self.query_position(position), key + where
        asked = self._beside(query, self.query_place(place))
        value = split_heads(self.value(tokens.features), self.heads)
        seen = visible(None, tokens.padding)
        dropout = self.dropout if self.training else 0.0
        mixed = mix(asked, self._beside(key, where), value, seen=seen, dropout=dropout)
        return self.output(mixed)

    def _beside(
        self, content: Float[Tensor, "N Q C"], place: Float[Tensor, "N Q C"]
    ) -> Float[Tensor, "N M Q D"]:
        """The channels of each head: its content, then its place."""
        return torch.cat([split_heads(x, self.heads) for x in (content, place)], dim=-1)


class ConditionalLayer(nn.Module):
    """Self-attention among queries, conditional attention to all tokens, feed-forward."""

    def __init__(
        self, dim: int, *, heads: int, hidden: int, dropout: float = 0.0, first: bool = False
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dim, heads, dropout=dropout)
        self.talk = PostNorm(dim, dropout=dropout)
        self.cross_attention = CrossAttention(dim, heads, dropout=dropout, first=first)
        self.look = PostNorm(dim, dropout=dropout)
        self.feed_forward = MLP(dim, dim, hidden=hidden, depth=2, dropout=dropout)
        self.refine = PostNorm(dim, dropout=dropout)
        start_evenly(self)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        place: Float[Tensor, "N Q C"],
        *,
        tokens: Tokens,
        sights: tuple[Sight, ...],
    ) -> Float[Tensor, "N Q C"]:
        """`position` is learned, `place` is the scaled embedding of the reference."""
        content = self.talk(content, lambda x: self.self_attention(x, position, sights))
        content = self.look(content, lambda x: self.cross_attention(x, position, place, tokens))
        return self.refine(content, self.feed_forward)


class ConditionalDecoder(nn.Module):
    """References are points read off the queries' positions; they stay, and boxes surround them.

    As in DETR the content of the queries starts at zero, and of the projections of the first
    self-attention only the bias of the values gets a gradient.
    """

    def __init__(self, dim: int, layers: list[ConditionalLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.refer = MLP(dim, 2, hidden=dim, depth=2)
        # a single layer takes the embedded reference as it is
        self.scale = MLP(dim, dim, hidden=dim, depth=2) if len(layers) > 1 else nn.Identity()
        start_evenly(self.refer)
        start_evenly(self.scale)

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer; boxes in single precision at least.

        The first layer takes the embedded reference as it is; later ones scale its channels by
        what the query has found (eq. 3)
        (Atten4Vis/ConditionalDETR:models/transformer.py, TransformerDecoder.forward).
        """
        if queries.position is None:
            raise RecipeError(
                "the conditional decoder needs queries with positions; type queries=learned"
            )
        content, position = queries.content, queries.position
        reference = frames.sigmoid(self.refer(position))
        embedded = sine_boxes(reference, content.shape[-1] // 2).to(content.dtype)
        predictions = []
        for index, layer in enumerate(self.layers):
            place = embedded * self.scale(content) if index else embedded
            content = layer(content, position, place, tokens=tokens, sights=queries.sights)
            normed = self.norm(content)
            boxes = _around(reference, heads.shift(index, normed))
            predictions.append(Prediction(heads.logits(index, normed), boxes))
        return Decoded(tuple(predictions))


def _around(
    reference: Float[Tensor, "N Q 2"], shift: Float[Tensor, "N Q 4"]
) -> Float[Tensor, "N Q 4"]:
    """Boxes whose centre is shifted in logits, in single precision at least."""
    centre = shift[..., :2] + frames.inverse_sigmoid(reference, POINT_EPS)
    return frames.sigmoid(torch.cat((centre, shift[..., 2:].to(centre.dtype)), dim=-1))


def _output(dim: int) -> nn.Linear:
    """The projection after attention, with a zero bias as in `nn.MultiheadAttention`."""
    linear = nn.Linear(dim, dim)
    nn.init.zeros_(linear.bias)
    return linear
