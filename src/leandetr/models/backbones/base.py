"""What every backbone is: normalised images in, feature maps out, finest level first."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.registry import Registry
from leandetr.types import FeatureMaps, Images

backbones = Registry("backbone")
"""Backbone configs by public name; decorate one with `@backbones.register("name")`."""


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` that turns images into feature maps; `channels` are those of each map."""

    channels: tuple[int, ...]

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest level first, each with the image's padding at its own size."""
        ...


@runtime_checkable
class BackboneConfig(Protocol):
    """A frozen dataclass that builds a backbone.

    `architecture` and `weights` together name public pretrained weights; `weights` is None for a
    backbone that starts from random numbers.
    """

    @property
    def architecture(self) -> str:
        """The name under which pretrained weights are listed, such as `resnet50`."""
        ...

    @property
    def weights(self) -> str | None:
        """Which pretrained weights of the architecture, such as `imagenet`."""
        ...

    def build(self) -> nn.Module:
        """The backbone, with random weights."""
        ...


@runtime_checkable
class OwnWeights(Protocol):
    """A backbone config that gets its pretrained weights itself: another library keeps them."""

    def load_weights(self, backbone: nn.Module) -> str:
        """Fill what `build` returned; says what was loaded. Raises `NetworkUnavailable`."""
        ...


def pixel_by_pixel(pixels: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """The same pixels, the channels of each side by side in memory, where that is faster.

    It is on a CPU: maps then stay so from layer to layer, and oneDNN's convolutions take a
    quarter less time. What is exported or compiled is left as it came, and so is what gradients
    are worked out for: there the weights decide, which `leandetr train` lays out so as well.
    """
    left = pixels.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if left:
        return pixels
    return pixels.contiguous(memory_format=torch.channels_last)


def with_padding(maps: Sequence[Float[Tensor, "N _ _ _"]], images: Images) -> FeatureMaps:
    """The maps with the padding of the full-size images at each map's size.

    Nearest interpolation of the full-size mask, as in facebookresearch/detr:models/backbone.py,
    BackboneBase.forward: a cell is padding when the pixel at its top left corner is.
    """
    full = images.padding[None].to(torch.float32)
    padding = tuple(
        F.interpolate(full, size=level.shape[-2:], mode="nearest")[0].to(torch.bool)
        for level in maps
    )
    return FeatureMaps(tuple(maps), padding)


def check_outputs(outputs: tuple[int, ...], stages: int) -> None:
    """Raise `RecipeError` unless `outputs` are ascending indices of a backbone's stages."""
    ascending = all(before < after for before, after in pairwise(outputs))
    inside = all(0 <= index < stages for index in outputs)
    if not outputs or not ascending or not inside:
        raise RecipeError(
            f"backbone outputs are indices of its {stages} stages, finest first and each once, "
            f"got {outputs}; for the last three type outputs={tuple(range(stages))[-3:]}"
        )
