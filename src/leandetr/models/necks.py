"""From feature maps to tokens: one width for all levels, extra coarse levels, positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.nn.grid import valid_ratio
from leandetr.nn.position import sine_grid
from leandetr.registry import Registry, at_least_one
from leandetr.types import FeatureMaps, Images, Tokens

necks = Registry("neck")

DETR_TEMPERATURE = 10000.0
"""Temperature of DETR's position embedding (facebookresearch/detr:models/position_encoding.py)."""

NORM_GROUPS = 32
"""Groups of the norm after each projection (Deformable DETR), of two channels at least.

A group of one channel would have nothing to compare on a map of one cell.
"""


@necks.register("channel-mapper")
@dataclass(frozen=True)
class ChannelMapperConfig:
    """Deformable family: 1x1 projections, and stride-2 convolutions for levels beyond the last.

    `temperature` and `offset` shape the position embedding: 20 and 0 in DINO, 10000 and -0.5 in
    Deformable DETR.
    """

    levels: int = 4
    temperature: float = 20.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        at_least_one(self, "neck", "levels")
        if self.temperature <= 0:
            raise RecipeError(
                f"expected a neck.temperature above 0; got {self.temperature}; "
                "type neck.temperature=20 as in DINO, or 10000 as in Deformable DETR"
            )

    def build(self, dim: int, channels: Sequence[int]) -> nn.Module:
        """The neck for a backbone with `channels` (finest first)."""
        return ChannelMapper(
            dim,
            channels,
            levels=self.levels,
            temperature=self.temperature,
            offset=self.offset,
        )


class ChannelMapper(nn.Module):
    """Projects every map to `dim` channels and rolls all levels into one row of tokens."""

    def __init__(
        self,
        dim: int,
        channels: Sequence[int],
        *,
        levels: int,
        temperature: float,
        offset: float,
    ) -> None:
        super().__init__()
        if levels < len(channels):
            raise RecipeError(
                f"expected at least {len(channels)} levels, as many as the backbone's outputs; "
                f"got {levels}; type neck.levels={len(channels)} or drop backbone outputs"
            )
        _check_waves(dim)
        extra = levels - len(channels)
        inputs = [channels[-1], *[dim] * (extra - 1)] if extra else []
        self.project = nn.ModuleList(_projection(width, dim, size=1) for width in channels)
        self.extend = nn.ModuleList(_projection(width, dim, size=3) for width in inputs)
        self.level_embedding = nn.Parameter(torch.empty(levels, dim))
        self.waves = CellWaves(temperature, offset)
        nn.init.normal_(self.level_embedding)

    def forward(self, features: FeatureMaps, images: Images) -> Tokens:
        """Tokens of all levels; extra levels take the padding of the whole image."""
        maps = [layer(x) for layer, x in zip(self.project, features.maps, strict=True)]
        padding = list(features.padding)
        coarse = features.maps[-1]
        for layer in self.extend:
            coarse = layer(coarse)
            maps.append(coarse)
            padding.append(shrink(images.padding, coarse))
        position = [
            self.waves(hole, x) + embedding
            for x, hole, embedding in zip(maps, padding, self.level_embedding, strict=True)
        ]
        return _roll(maps, position, padding)


@necks.register("single-level")
@dataclass(frozen=True)
class SingleLevelConfig:
    """DETR and Conditional DETR: the only map of the backbone through a 1x1 convolution."""

    levels: ClassVar[int] = 1

    def build(self, dim: int, channels: Sequence[int]) -> nn.Module:
        """The neck for a backbone with one map."""
        if len(channels) != 1:
            raise RecipeError(
                f"expected one map of the backbone, got {len(channels)}; "
                "type backbone.outputs=[3] for the last one, or neck=channel-mapper"
            )
        return SingleLevel(dim, channels[0])


class SingleLevel(nn.Module):
    """Projects one map to `dim` channels, without a norm; positions are plain sines."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        _check_waves(dim)
        self.project = nn.Conv2d(channels, dim, 1)
        self.waves = CellWaves(DETR_TEMPERATURE, 0.0)

    def forward(self, features: FeatureMaps, images: Images) -> Tokens:
        """The cells of the map as tokens."""
        x, hole = self.project(features.maps[0]), features.padding[0]
        return _roll([x], [self.waves(hole, x)], [hole])


class CellWaves(nn.Module):
    """The sine embedding of every cell of a map; see `sine_grid`."""

    def __init__(self, temperature: float, offset: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.offset = offset

    def forward(
        self, padding: Bool[Tensor, "N H W"], like: Float[Tensor, "N C H W"]
    ) -> Float[Tensor, "N HW C"]:
        """Counted in single precision at least, and given in that of `like`."""
        grid = sine_grid(
            padding,
            like.shape[1],
            temperature=self.temperature,
            offset=self.offset,
            dtype=torch.promote_types(like.dtype, torch.float32),
        )
        return grid.flatten(1, 2).to(like.dtype)


def _check_waves(dim: int) -> None:
    """Raise `RecipeError` unless the width can hold sines and cosines of rows and columns."""
    if dim % 4:
        raise RecipeError(
            "expected a dim that is a multiple of 4 (sines and cosines of rows and columns); "
            f"got {dim}; type dim={dim + -dim % 4}"
        )


def _roll(
    maps: Sequence[Float[Tensor, "N C _ _"]],
    position: Sequence[Float[Tensor, "N _ C"]],
    padding: Sequence[Bool[Tensor, "N _ _"]],
) -> Tokens:
    """The cells of all maps in one row; shares in single precision at least."""
    precise = torch.promote_types(maps[0].dtype, torch.float32)
    return Tokens(
        features=torch.cat([rearrange(x, "N C H W -> N (H W) C") for x in maps], dim=1),
        position=torch.cat(list(position), dim=1),
        padding=torch.cat([hole.flatten(1) for hole in padding], dim=1),
        valid_ratios=torch.stack([valid_ratio(hole, precise) for hole in padding], 1),
        shapes=tuple((x.shape[-2], x.shape[-1]) for x in maps),
    )


def shrink(padding: Bool[Tensor, "N H W"], like: Float[Tensor, "N C h w"]) -> Bool[Tensor, "N h w"]:
    """The image's padding at the size of a map: nearest, as official code does."""
    return F.interpolate(padding[None].float(), size=like.shape[-2:])[0].to(torch.bool)


def _projection(inputs: int, dim: int, *, size: int) -> nn.Sequential:
    """Convolution and group norm: 1x1, or 3x3 of stride 2."""
    convolution = nn.Conv2d(inputs, dim, size, stride=2 if size == 3 else 1, padding=size // 2)
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    groups = next((n for n in range(min(NORM_GROUPS, dim // 2), 0, -1) if dim % n == 0), 1)
    return nn.Sequential(convolution, nn.GroupNorm(groups, dim))
