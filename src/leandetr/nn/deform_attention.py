"""The two attention modules of the family: projections around the sampling operators.

Both ask with `query` (position already added) around `reference` and read `memory`; `attend`
is all that encoders and decoders know of them.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr import ops
from leandetr.nn.attention import check_heads
from leandetr.nn.grid import may_be_padded
from leandetr.ops.reference import key_weights
from leandetr.ops.reference_at import locate, share_out
from leandetr.types import Look, Shapes


@runtime_checkable
class SampledAttention(Protocol):
    """What a layer may know of its attention."""

    def __call__(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Float[Tensor, "N Q C"]:
        """What each query gathers from `memory` around its reference."""
        ...

    def look(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Look:
        """Where each query looks and how much it takes from there; carries no gradient."""
        ...


class Offsets(nn.Module):
    """Predicts where each head looks: offsets around a reference point or inside a box.

    With `shared`, one set of offsets serves all levels, each in its own cells (`same_loc` of
    IDEA-Research/Lite-DETR).
    """

    def __init__(
        self, dim: int, *, heads: int, levels: int, points: int, shared: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.levels = levels
        self.points = points
        self.own_levels = 1 if shared else levels
        self.linear = nn.Linear(dim, heads * self.own_levels * points * 2)
        self._start_as_star()

    def _start_as_star(self) -> None:
        """Heads look along rays at equal angles, point p at distance p + 1."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        rays = torch.stack((angles.cos(), angles.sin()), dim=-1)
        rays = rays / rays.abs().amax(dim=-1, keepdim=True)  # M 2
        distances = torch.arange(1, self.points + 1, dtype=rays.dtype)
        star = rays[:, None, None] * distances[:, None]  # M 1 P 2
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(star.expand(-1, self.own_levels, -1, -1).flatten())

    def forward(self, query: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q M own P 2"]:
        """Offsets as `locate` takes them; `own` is 1 when levels share them."""
        return rearrange(
            self.linear(query),
            "N Q (M L P xy) -> N Q M L P xy",
            M=self.heads,
            P=self.points,
            xy=2,
        )


class DeformAttention(nn.Module):
    """Multi-scale deformable attention: Deformable DETR (arXiv 2010.04159), section 4.1.

    The weights of the samples are predicted from the query alone.
    """

    def __init__(
        self, dim: int, *, heads: int, levels: int, points: int, shared_offsets: bool = False
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.offsets = Offsets(
            dim, heads=heads, levels=levels, points=points, shared=shared_offsets
        )
        self.weights = nn.Linear(dim, heads * levels * points)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        _start_evenly(self.value, self.output)

    def forward(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Float[Tensor, "N Q C"]:
        """What each query gathers from `memory`; padded tokens count as zero."""
        value = _project(self.value, memory, padding, self.offsets.heads)
        offsets, logits = self.offsets(query), self._logits(query)
        return self.output(ops.deform_attn_at(value, shapes, reference, offsets, logits))

    @torch.no_grad()
    def look(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Look:
        """Where each query looks and how much it takes from there; `memory` plays no part."""
        locations = locate(reference, self.offsets(query), shapes)
        return Look(locations, share_out(self._logits(query), self.offsets.points))

    def _logits(self, query: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q M LP"]:
        """Their softmax says how much of each sample a query takes."""
        return rearrange(self.weights(query), "N Q (M LP) -> N Q M LP", M=self.offsets.heads)


class KeyAwareAttention(nn.Module):
    """Key-aware deformable attention: Lite DETR (arXiv 2303.07335), section 3.4.

    The weights come from comparing the query with the sampled keys. With `own_key` keys have a
    projection of their own; without it the projected value is the key, as in every released model
    (`proj_key=False`: IDEA-Research/Lite-DETR:config/DINO/coco_transformer.py:23).
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        levels: int,
        points: int,
        shared_offsets: bool = False,
        own_key: bool = False,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.offsets = Offsets(
            dim, heads=heads, levels=levels, points=points, shared=shared_offsets
        )
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim) if own_key else None
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        _start_evenly(self.query, self.value, self.output)
        if self.key is not None:
            _start_evenly(self.key)

    def forward(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Float[Tensor, "N Q C"]:
        """What each query gathers from `memory`; a padded token has logit 0 and value 0."""
        value = _project(self.value, memory, padding, self.offsets.heads)
        asked, key = self._asked(query), value
        if self.key is not None:
            key = _project(self.key, memory, padding, self.offsets.heads)
        offsets = self.offsets(query)
        return self.output(ops.key_aware_attn_at(asked, key, value, shapes, reference, offsets))

    @torch.no_grad()
    def look(
        self,
        query: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L R"],
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Look:
        """Where each query looks, and how well the keys there fit it."""
        key = _project(self.key or self.value, memory, padding, self.offsets.heads)
        locations = locate(reference, self.offsets(query), shapes)
        return Look(locations, key_weights(self._asked(query), key, shapes, locations))

    def _asked(self, query: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q M D"]:
        return rearrange(self.query(query), "N Q (M D) -> N Q M D", M=self.offsets.heads)


def sampled_attention(
    dim: int,
    *,
    heads: int,
    levels: int,
    points: int,
    key_aware: bool,
    shared_offsets: bool = False,
    own_key: bool = False,
) -> DeformAttention | KeyAwareAttention:
    """The attention module that a config asks for; `own_key` counts only with `key_aware`."""
    sizes = {"heads": heads, "levels": levels, "points": points, "shared_offsets": shared_offsets}
    if key_aware:
        return KeyAwareAttention(dim, **sizes, own_key=own_key)
    return DeformAttention(dim, **sizes)


def _project(
    linear: nn.Module, memory: Float[Tensor, "N S C"], padding: Bool[Tensor, "N S"], heads: int
) -> Float[Tensor, "N S M D"]:
    """Project all tokens and zero the padded ones, after the bias, as official code does."""
    projected = linear(memory)
    if may_be_padded(padding):
        projected = projected.masked_fill(padding[..., None], 0.0)
    return rearrange(projected, "N S (M D) -> N S M D", M=heads)


def _start_evenly(*layers: nn.Linear) -> None:
    """Xavier weights and zero biases (fundamentalvision/Deformable-DETR, _reset_parameters)."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
