"""The decoder of Deformable DETR (arXiv 2010.04159) and H-DETR: queries keep their position.

With `refine` every layer moves the boxes that the next one looks into (appendix, iterative
bounding box refinement).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.decoders.base import SampledLayer, decoders, move, sampled_layers
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn import grid
from leandetr.registry import a_share, at_least_one
from leandetr.types import Decoded, Prediction, Queries, Tokens

BOX_EPS = 1e-5
"""Clamp of the inverse sigmoid of references (fundamentalvision/Deformable-DETR:util/misc.py)."""


@decoders.register("deformable")
@dataclass(frozen=True)
class DeformableDecoderConfig:
    """`refine` lets every layer move the references, `look_twice` lets a box teach two layers.

    `key_aware` cross-attention goes with the Lite encoder.
    """

    layers: int = 6
    heads: int = 8
    points: int = 4
    hidden: int = 1024
    refine: bool = False
    look_twice: bool = False
    key_aware: bool = False
    dropout: float = 0.1
    reports_looks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one(self, "decoder", "layers", "heads", "points", "hidden")
        a_share(self, "decoder", "dropout")
        if self.look_twice and not self.refine:
            raise RecipeError(
                "expected decoder.refine=true with look_twice, which is about moving references; "
                "got refine=false; type decoder.refine=true or decoder.look_twice=false"
            )

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
        return DeformableDecoder(layers, refine=self.refine, look_twice=self.look_twice)


class DeformableDecoder(nn.Module):
    """A stack of layers without a norm behind it; references are points or boxes."""

    def __init__(self, layers: list[SampledLayer], *, refine: bool, look_twice: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.refine = refine
        self.look_twice = look_twice

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer.

        A layer's boxes are its shift upon the reference it looked around. Refined references are
        these boxes, detached: points become boxes after the first layer. To look forward twice
        (DINO, arXiv 2203.03605, section 3.5, as in HDETR/H-Deformable-DETR) leaves the numbers
        alone; boxes then also teach the shift of the layer before.
        """
        position, reference = _placed(queries)
        content, attached = queries.content, reference
        predictions, looks = [], []
        for index, layer in enumerate(self.layers):
            around = grid.on_levels(reference, tokens.valid_ratios)
            content, look = layer(
                content, position, around, tokens=tokens, sights=queries.sights, watch=watch
            )
            looks += [] if look is None else [look]
            shift = heads.shift(index, content)
            predictions.append(
                Prediction(heads.logits(index, content), move(attached, shift, BOX_EPS))
            )
            if self.refine:
                moved = move(reference, shift, BOX_EPS)
                reference = moved.detach()
                attached = moved if self.look_twice else reference
        return Decoded(tuple(predictions), tuple(looks))


def _placed(queries: Queries) -> tuple[Float[Tensor, "N Q C"], Float[Tensor, "N Q R"]]:
    """Position and reference of the queries. Raises `RecipeError` where the source made none."""
    if queries.position is None or queries.reference is None:
        raise RecipeError(
            "the deformable decoder expects queries with a position and a reference; "
            "type queries=learned-points or queries=two-stage"
        )
    return queries.position, queries.reference
