"""The decoder of DINO (arXiv 2203.03605): dynamic anchor boxes, look forward twice."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.models.decoders.base import decoders
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn import grid
from leandetr.nn.attention import Attention
from leandetr.nn.deform_attention import SampledAttention, sampled_attention
from leandetr.nn.feed_forward import MLP, FeedForward
from leandetr.nn.position import sine_boxes
from leandetr.registry import a_share, at_least_one
from leandetr.types import Prediction, Queries, Tokens

BOX_EPS = 1e-3
"""Clamp of the inverse sigmoid of references (IDEA-Research/DINO:util/misc.py)."""


@decoders.register("dino")
@dataclass(frozen=True)
class DinoDecoderConfig:
    """`key_aware` cross-attention goes with the Lite encoder in the released models."""

    layers: int = 6
    heads: int = 8
    points: int = 4
    hidden: int = 2048
    key_aware: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least_one(self, "decoder", "layers", "heads", "points", "hidden")
        a_share(self, "decoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The decoder for a detector of these sizes."""
        layers = []
        for _ in range(self.layers):
            cross = sampled_attention(
                dims.dim,
                heads=self.heads,
                levels=dims.levels,
                points=self.points,
                key_aware=self.key_aware,
            )
            layers.append(
                DinoLayer(
                    dims.dim, cross, heads=self.heads, hidden=self.hidden, dropout=self.dropout
                )
            )
        return DinoDecoder(dims.dim, layers)


class DinoLayer(nn.Module):
    """Self-attention among queries, sampled attention to tokens, feed-forward; post-norm."""

    def __init__(
        self, dim: int, cross: SampledAttention, *, heads: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, dropout=dropout)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = cross
        self.cross_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L 4"],
        *,
        tokens: Tokens,
        hidden: Bool[Tensor, "Q Q"] | None,
    ) -> Float[Tensor, "N Q C"]:
        """Queries talk to each other, then look at the tokens inside their boxes."""
        asking = content + position
        talk = self.self_attention(asking, asking, content, hidden=hidden)
        content = self.self_norm(content + self.dropout(talk))
        seen = self.cross_attention(
            content + position, reference, tokens.features, tokens.shapes, tokens.padding
        )
        content = self.cross_norm(content + self.dropout(seen))
        return self.feed_forward(content)


class DinoDecoder(nn.Module):
    """Each layer re-embeds its boxes and moves them."""

    def __init__(self, dim: int, layers: list[DinoLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.embed_boxes = MLP(2 * dim, dim, hidden=dim, depth=2)

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads
    ) -> tuple[Prediction, ...]:
        """One prediction a layer, the last is the answer.

        Look forward twice (section 3.5): a layer's boxes are its shift, read from normed content,
        upon a reference through which the gradient of one earlier layer flows. The next layer
        starts from the same reference detached, shifted by the content before the norm
        (IDEA-Research/DINO:models/dino/deformable_transformer.py, TransformerDecoder.forward).
        """
        assert queries.reference is not None
        content, reference = queries.content, queries.reference
        attached = reference
        predictions = []
        for index, layer in enumerate(self.layers):
            boxes = grid.on_levels(reference, tokens.valid_ratios)
            position = self.embed_boxes(sine_boxes(boxes[:, :, 0], content.shape[-1] // 2))
            content = layer(content, position, boxes, tokens=tokens, hidden=queries.hidden)
            normed = self.norm(content)
            predictions.append(
                Prediction(heads.logits(index, normed), _move(attached, heads.shift(index, normed)))
            )
            attached = _move(reference, heads.shift(index, content))
            reference = attached.detach()
        return tuple(predictions)


def _move(
    reference: Float[Tensor, "N Q 4"], shift: Float[Tensor, "N Q 4"]
) -> Float[Tensor, "N Q 4"]:
    """Boxes shifted in logits, in single precision whatever autocast says."""
    return (frames.inverse_sigmoid(reference, BOX_EPS) + shift.float()).sigmoid()
