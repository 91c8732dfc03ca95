"""The decoder of DINO (arXiv 2203.03605): dynamic anchor boxes, look forward twice."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from leandetr.models.decoders.base import SampledLayer, decoders, move, sampled_layers
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn import grid
from leandetr.nn.feed_forward import MLP
from leandetr.nn.position import sine_boxes
from leandetr.registry import a_share, at_least_one
from leandetr.types import Decoded, Prediction, Queries, Tokens

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
    reports_looks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one(self, "decoder", "layers", "heads", "points", "hidden")
        a_share(self, "decoder", "dropout")

    def build(self, dims: Dims) -> nn.Module:
        """The decoder for a detector of these sizes."""
        layers = sampled_layers(
            dims,
            count=self.layers,
            heads=self.heads,
            points=self.points,
            hidden=self.hidden,
            key_aware=self.key_aware,
            dropout=self.dropout,
        )
        return DinoDecoder(dims.dim, layers)


class DinoDecoder(nn.Module):
    """Each layer re-embeds its boxes and moves them."""

    def __init__(self, dim: int, layers: list[SampledLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.embed_boxes = MLP(2 * dim, dim, hidden=dim, depth=2)

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer.

        Look forward twice (section 3.5): a layer's boxes are its shift, read from normed content,
        upon a reference through which the gradient of one earlier layer flows. The next layer
        starts from the same reference detached, shifted by the content before the norm
        (IDEA-Research/DINO:models/dino/deformable_transformer.py, TransformerDecoder.forward).
        """
        assert queries.reference is not None
        content, reference = queries.content, queries.reference
        attached = reference
        predictions, looks = [], []
        for index, layer in enumerate(self.layers):
            boxes = grid.on_levels(reference, tokens.valid_ratios)
            position = self.embed_boxes(sine_boxes(boxes[:, :, 0], content.shape[-1] // 2))
            content, look = layer(
                content, position, boxes, tokens=tokens, sights=queries.sights, watch=watch
            )
            looks += [] if look is None else [look]
            normed = self.norm(content)
            predictions.append(
                Prediction(
                    heads.logits(index, normed), move(attached, heads.shift(index, normed), BOX_EPS)
                )
            )
            if index + 1 < len(self.layers):  # nothing starts from where the last one ends
                attached = move(reference, heads.shift(index, content), BOX_EPS)
                reference = attached.detach()
        return Decoded(tuple(predictions), tuple(looks))
