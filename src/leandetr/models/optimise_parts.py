"""What an optimised model has in place of parts of the model it was made from."""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.models.decoders import Decoder
from leandetr.models.heads import PredictionHeads
from leandetr.models.necks import CellWaves
from leandetr.nn.feed_forward import FeedForward
from leandetr.nn.grid import may_be_padded
from leandetr.types import Decoded, FeatureMaps, Images, Queries, Tokens

ROWS = 2048
"""Tokens that go through a feed-forward block together: what is inside it stays in the cache."""


TABLES = 8
"""Position tables kept: those of two image sizes at four levels."""


class AnyLinear(nn.Module):
    """A linear layer that takes its input in any precision and answers in its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Project the input."""
        return affine(x.to(self.weight.dtype), self)


class AnyNorm(nn.Module):
    """A layer norm that takes its input in any precision and answers in its own."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.shape = norm.normalized_shape
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps = norm.eps

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Norm each token by itself."""
        return F.layer_norm(x.to(self.weight.dtype), self.shape, self.weight, self.bias, self.eps)


class FeedForwardInRows(nn.Module):
    """What `FeedForward` computes, `ROWS` tokens at a time."""

    def __init__(self, block: FeedForward) -> None:
        super().__init__()
        self.linear1 = block.linear1
        self.linear2 = block.linear2
        self.norm = block.norm

    def forward(self, x: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q C"]:
        """Refine each token by itself."""
        refined = torch.empty_like(x)
        for rows, place in zip(x.split(ROWS, dim=1), refined.split(ROWS, dim=1), strict=True):
            inner = affine(rows.to(self.linear1.weight.dtype), self.linear1, "relu")
            place.copy_(self.norm(self.linear2(inner).add_(rows)))
        return refined


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether oneDNN multiplies matrices of bfloat16 on this processor; it refuses otherwise."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def affine(
    x: Float[Tensor, "*B I"], linear: "nn.Linear | AnyLinear", then: str = "none"
) -> Float[Tensor, "*B O"]:
    """What a linear layer makes of x; `then` is "none" or "relu".

    On a processor in bfloat16, product, bias and ReLU are one operator of oneDNN: plain PyTorch
    writes the bias first and reads the product again, which takes up to twice as long. That
    operator belongs to PyTorch's own compiler and may go; then the plain way is left.
    """
    weight, bias = linear.weight, linear.bias
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    low = x.dtype == torch.bfloat16 and x.device.type == "cpu" and multiplies_bfloat16()
    if fused is None or not low or torch.compiler.is_compiling():
        product = F.linear(x, weight, bias)
        return F.relu(product, inplace=True) if then == "relu" else product
    return fused(x, weight, bias, then, [], "")


class RememberedWaves(nn.Module):
    """What `CellWaves` computes, kept for maps without padding, of the sizes seen last."""

    def __init__(self, waves: CellWaves) -> None:
        super().__init__()
        self.waves = waves
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def forward(
        self, padding: Bool[Tensor, "N H W"], like: Float[Tensor, "N C H W"]
    ) -> Float[Tensor, "N HW C"]:
        """The table of this size, the same for every image; another one where there is padding."""
        if may_be_padded(padding):
            return self.waves(padding, like)
        size = (*like.shape[1:], like.dtype, like.device)
        kept = dict(self._kept)  # a new one: other threads may use this model at the same time
        table = kept.pop(size, None)
        if table is None:
            table = self.waves(padding[:1], like[:1])
        kept[size] = table  # the youngest is last
        while len(kept) > TABLES:
            del kept[next(iter(kept))]
        self._kept = kept
        return table.expand(len(like), -1, -1)


class BackboneIn(nn.Module):
    """A backbone that works channels last, in a precision of its own."""

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.dtype = dtype

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first."""
        pixels = images.pixels.to(self.dtype, memory_format=torch.channels_last)
        return self.backbone(Images(pixels, images.padding))


class DecoderIn(nn.Module):
    """A decoder that works in a precision of its own; references stay as precise as they come."""

    def __init__(self, decoder: Decoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder = decoder
        self.dtype = dtype

    def forward(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads, *, watch: bool = False
    ) -> Decoded:
        """One prediction a layer, the last is the answer."""
        position = None if queries.position is None else queries.position.to(self.dtype)
        asking = replace(queries, content=queries.content.to(self.dtype), position=position)
        return self.decoder(asking, tokens, heads, watch=watch)


def exchange(
    module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]
) -> None:
    """Put `make(part)` in the place of every part of that kind; shared parts stay shared.

    Classes derived from the kind stay: other libraries' norms over channels, say, are others.
    """
    made: dict[int, nn.Module] = {}
    for path, part in list(module.named_modules(remove_duplicate=False)):
        if type(part) is kind:
            owner, _, name = path.rpartition(".")
            new = made.setdefault(id(part), make(part))
            setattr(module.get_submodule(owner), name, new)
