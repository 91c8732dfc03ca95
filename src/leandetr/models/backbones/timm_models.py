"""Backbones of timm: `timm:NAME`."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from leandetr.errors import MissingExtra, RecipeError
from leandetr.models.backbones.adapters import (
    SIDE,
    check_adapter,
    choose,
    first_line,
    freeze,
    unreachable,
    unused,
)
from leandetr.models.backbones.base import backbones, with_padding
from leandetr.registry import did_you_mean
from leandetr.types import FeatureMaps, Images

ANY_SIZE = {"dynamic_img_size": True}
"""What timm's models of patches must be told; sides still have to be whole patches."""


@backbones.register("timm")
@dataclass(frozen=True)
class TimmConfig:
    """A model of timm by its name there, such as `convnext_tiny`; all of it is trained.

    `outputs`: indices of the strides 4, 8, 16 and 32 to return. `weights`: "pretrained" for those
    that timm publishes under the name (`resnet50.a1_in1k` names one of several), or None.
    """

    name: str
    outputs: tuple[int, ...] = (1, 2, 3)
    weights: str | None = None

    def __post_init__(self) -> None:
        check_adapter(self, "timm:resnet18")

    @property
    def architecture(self) -> str:
        """`timm:convnext_tiny` and so on."""
        return f"timm:{self.name}"

    def build(self) -> nn.Module:
        """The backbone, with random weights. Raises `RecipeError`, `MissingExtra`."""
        options = self._options()
        sketch = self._create(options)
        maps = sketch(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
        patches = ANY_SIZE.keys() <= options.keys()
        backbone = TimmBackbone(self._create(options, device="cpu"), pad=patches)
        freeze(backbone.model, unused(sketch, maps))
        return backbone

    def load_weights(self, backbone: nn.Module) -> str:
        """Fill what `build` returned with timm's weights. Raises `NetworkUnavailable`."""
        try:
            trained = self._create(self._options(), device="cpu", pretrained=True)
        except OSError as error:
            raise unreachable(self.architecture, error) from error
        backbone.get_submodule("model").load_state_dict(trained.state_dict())
        return f"timm's weights of {self.name}"

    def _options(self) -> dict[str, Any]:
        """What timm must be told: which maps, and that images are of any size."""
        sketch = self._create({})
        fixed = (getattr(sketch, "pretrained_cfg", None) or {}).get("fixed_input_size")
        strides = [info["reduction"] for info in sketch.feature_info.info]
        chosen = choose(strides, self.outputs, self.architecture)
        return {"out_indices": chosen} | (ANY_SIZE if fixed else {})

    def _create(
        self, options: dict[str, Any], *, device: str = "meta", pretrained: bool = False
    ) -> Any:
        timm = _timm(self.architecture)
        try:
            with torch.device(device):
                return timm.create_model(
                    self.name, features_only=True, pretrained=pretrained, **options
                )
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            known = self.name.split(".")[0] in timm.list_models()
            one_size = isinstance(error, TypeError) and ANY_SIZE.keys() <= options.keys()
            reason = "it takes images of one size only" if one_size else first_line(error)
            raise RecipeError(
                f"timm cannot make feature maps of '{self.name}' ({reason}); "
                f"{'choose another' if known else did_you_mean(self.name, timm.list_models())}"
            ) from error


class TimmBackbone(nn.Module):
    """The feature maps that a timm model gives; `channels` are theirs.

    With `pad`, images are zero-padded to whole cells of the coarsest map, and cells that lie in
    that padding alone are cut off again.
    """

    def __init__(self, model: Any, *, pad: bool) -> None:
        super().__init__()
        self.model = model
        self.channels = tuple(model.feature_info.channels())
        self.strides = tuple(model.feature_info.reduction())
        self.pad = pad
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first, each with the image's padding at its own size."""
        height, width = images.pixels.shape[-2:]
        pixels = images.pixels
        if self.pad:
            coarsest = self.strides[-1]
            pixels = F.pad(pixels, (0, -width % coarsest, 0, -height % coarsest))
        maps = self.model(pixels)
        if self.channels_last:
            maps = [rearrange(level, "n h w c -> n c h w").contiguous() for level in maps]
        if self.pad:
            maps = [
                level[:, :, : -(-height // stride), : -(-width // stride)]
                for level, stride in zip(maps, self.strides, strict=True)
            ]
        return with_padding(maps, images)


def _timm(architecture: str) -> ModuleType:
    """The module timm."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra(f"the backbone {architecture}", "timm", "timm") from error
    except (RuntimeError, OSError) as error:  # a torchvision that was built for another torch
        raise RecipeError(
            f"timm is installed but cannot be imported ({first_line(error)}); install torch and "
            "torchvision of one release for the same device"
        ) from error
    return timm
