"""What an optimised model has in place of parts of the model it was made from."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.models.decoders import Decoder
from leandetr.models.heads import PredictionHeads
from leandetr.models.necks import CellWaves
from leandetr.nn.affine import affine
from leandetr.nn.grid import may_be_padded
from leandetr.types import Decoded, FeatureMaps, Images, Queries, Tokens

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
        return affine(x.to(self.weight.dtype), self.weight, self.bias)


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
