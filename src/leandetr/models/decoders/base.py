"""What every decoder is: queries and tokens in, one prediction a layer out."""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn.attention import Attention
from leandetr.nn.deform_attention import SampledAttention, sampled_attention
from leandetr.nn.dropout import Dropout
from leandetr.nn.feed_forward import FeedForward
from leandetr.registry import Registry
from leandetr.types import Decoded, Look, Queries, Sight, Tokens

decoders = Registry("decoder")


@runtime_checkable
class Decoder(Protocol):
    """A decoder lets queries look at tokens and at each other; the heads are lent to it."""

    def __call__(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer; with `watch`, where each layer looked.

        A decoder whose attention is dense looks everywhere and reports no looks.
        """
        ...


class SampledLayer(nn.Module):
    """A layer of every deformable decoder, post-norm.

    Self-attention among queries, sampled attention to tokens, feed-forward.
    """

    def __init__(
        self, dim: int, cross: SampledAttention, *, heads: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, dropout=dropout)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = cross
        self.cross_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        *,
        tokens: Tokens,
        sights: tuple[Sight, ...],
        watch: bool = False,
    ) -> tuple[Float[Tensor, "N Q C"], Look | None]:
        """Queries talk to each other, then look at the tokens around or inside their reference.

        With `watch`, also where they looked.
        """
        asking = content + position
        talk = self.self_attention(asking, asking, content, sights=sights)
        content = self.self_norm(content + self.dropout(talk))
        asking = content + position
        scene = (tokens.features, tokens.shapes, tokens.padding)
        seen = self.cross_attention(asking, reference, *scene)
        look = self.cross_attention.look(asking, reference, *scene) if watch else None
        content = self.cross_norm(content + self.dropout(seen))
        return self.feed_forward(content), look


def sampled_layers(
    dims: Dims,
    *,
    count: int,
    heads: int,
    points: int,
    hidden: int,
    key_aware: bool,
    dropout: float,
) -> list[SampledLayer]:
    """The layers of a deformable decoder, all alike."""
    layers = []
    for _ in range(count):
        cross = sampled_attention(
            dims.dim, heads=heads, levels=dims.levels, points=points, key_aware=key_aware
        )
        layers.append(SampledLayer(dims.dim, cross, heads=heads, hidden=hidden, dropout=dropout))
    return layers


def move(
    reference: Float[Tensor, "N Q R"], shift: Float[Tensor, "N Q 4"], eps: float
) -> Float[Tensor, "N Q 4"]:
    """Boxes: references shifted in logits, in single precision at least.

    A point gives the centre only: its sizes come from the shift alone. `eps` clamps the inverse
    sigmoid, which differs between papers.
    """
    start = frames.inverse_sigmoid(reference, eps)
    return frames.sigmoid(F.pad(start, (0, 4 - start.shape[-1])) + shift)
