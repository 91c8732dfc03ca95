"""ResNet (arXiv 1512.03385) in torchvision's layout, and small relatives to train from scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from leandetr.errors import RecipeError
from leandetr.models.backbones.base import (
    backbones,
    check_outputs,
    pixel_by_pixel,
    with_padding,
)
from leandetr.models.backbones.pretrained import check_known
from leandetr.models.backbones.residual import (
    NORMS,
    BasicBlock,
    Block,
    Bottleneck,
    Norm,
    StagePlan,
    normed,
    residual_stages,
)
from leandetr.types import FeatureMaps, Images

LAYOUTS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
"""Depth -> block and blocks a stage (arXiv 1512.03385, table 1)."""


def pooled_stem(width: int, norm: Norm) -> dict[str, nn.Module]:
    """Stride 4 by a 7x7 convolution and max pooling, as in the paper."""
    return {
        "conv1": nn.Conv2d(3, width, 7, 2, 3, bias=False),
        "bn1": norm(width),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }


def light_stem(width: int, norm: Norm) -> dict[str, nn.Module]:
    """Stride 4 by two 3x3 convolutions: a third of the work of the paper's stem, nothing pooled."""
    half = width // 2
    return {
        "conv1": nn.Conv2d(3, half, 3, 2, 1, bias=False),
        "bn1": norm(half),
        "relu1": nn.ReLU(inplace=True),
        "conv2": nn.Conv2d(half, width, 3, 2, 1, bias=False),
        "bn2": norm(width),
        "relu2": nn.ReLU(inplace=True),
    }


class ResNet(nn.Module):
    """A stem and residual stages, named as in torchvision: `conv1`, `bn1`, `layer1` and so on.

    The maps of the stages `outputs` come out, finest first; `channels` are theirs.
    """

    def __init__(
        self,
        stem: Mapping[str, nn.Module],
        stages: Sequence[nn.Module],
        *,
        outputs: tuple[int, ...],
        channels: tuple[int, ...],
    ) -> None:
        super().__init__()
        for name, part in stem.items():
            self.add_module(name, part)
        for index, stage in enumerate(stages):
            self.add_module(f"layer{index + 1}", stage)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.channels = channels
        self._returned = frozenset(f"layer{index + 1}" for index in outputs)

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first, each with the image's padding at its own size."""
        features = pixel_by_pixel(images.pixels)
        maps = []
        conv = None
        for name, part in self.named_children():
            if isinstance(part, nn.Conv2d):
                conv = part  # the next child is its norm
                continue
            features = part(features) if conv is None else normed(conv, part, features)
            conv = None
            if name in self._returned:
                maps.append(features)
        return with_padding(maps, images)


@backbones.register("resnet")
@dataclass(frozen=True)
class ResNetConfig:
    """ResNet-18, 34, 50 or 101 as the official detectors use it.

    `outputs`: indices of layer1..layer4 to return; (1, 2, 3) are C3, C4, C5. `dilate_last` is DC5:
    layer4 dilates instead of striding. `norm` is "frozen" or "batch" (trained). `frozen_stages`:
    how many of (stem, layer1, layer2, ...) do not train, their norms being frozen whatever `norm`
    says; 2 as in facebookresearch/detr:models/backbone.py, BackboneBase. `weights`: "imagenet" or
    None.
    """

    depth: int = 50
    outputs: tuple[int, ...] = (1, 2, 3)
    dilate_last: bool = False
    norm: str = "frozen"
    frozen_stages: int = 2
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.depth not in LAYOUTS:
            raise RecipeError(f"ResNet depth is one of {sorted(LAYOUTS)}, got {self.depth}")
        if self.norm not in NORMS:
            raise RecipeError(f"ResNet norm is one of {sorted(NORMS)}, got '{self.norm}'")
        if not 0 <= self.frozen_stages <= 5:
            raise RecipeError(
                "frozen_stages counts stem, layer1, ..., layer4 and so is 0 to 5, "
                f"got {self.frozen_stages}"
            )
        check_outputs(self.outputs, 4)
        if self.dilate_last and 3 not in self.outputs:
            raise RecipeError(
                f"dilate_last changes layer4, but outputs are {self.outputs}; "
                "add 3 to outputs or type dilate_last=false"
            )
        check_known(self.architecture, self.weights)

    @property
    def architecture(self) -> str:
        """`resnet50` and so on."""
        return f"resnet{self.depth}"

    def build(self) -> nn.Module:
        """The backbone, with random weights; stages after the last output are left out."""
        block, blocks = LAYOUTS[self.depth]
        last = max(self.outputs)
        norms = [NORMS["frozen" if i < self.frozen_stages else self.norm] for i in range(last + 2)]
        stem = pooled_stem(64, norms[0])
        plans = [
            StagePlan(64 << i, blocks[i], min(i, 1) + 1, norms[i + 1]) for i in range(last + 1)
        ]
        if self.dilate_last:
            plans[-1] = StagePlan(512, blocks[-1], 1, norms[-1], dilation=2)
        stages = residual_stages(block, 64, plans)
        for part in [nn.ModuleDict(stem), *stages][: self.frozen_stages]:
            part.requires_grad_(False)
        channels = tuple((64 << i) * block.expansion for i in self.outputs)
        return ResNet(stem, stages, outputs=self.outputs, channels=channels)


@backbones.register("resnet-nano")
@dataclass(frozen=True)
class NanoResNetConfig:
    """A small residual net to train from scratch: basic blocks, trained norm, a light stem.

    Stage i has `blocks[i]` blocks of `widths[i]` channels at stride 4 * 2**i; `outputs` are
    indices of stages.
    """

    widths: tuple[int, ...] = (32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    outputs: tuple[int, ...] = (1, 2, 3)

    architecture: ClassVar[str] = "resnet-nano"
    weights: ClassVar[None] = None

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or min((*self.widths, *self.blocks), default=0) < 1:
            raise RecipeError(
                "a nano ResNet needs one width and one number of blocks a stage, all at least 1, "
                f"got widths {self.widths} and blocks {self.blocks}"
            )
        check_outputs(self.outputs, len(self.widths))

    def build(self) -> nn.Module:
        """The backbone, with random weights; stages after the last output are left out."""
        norm = NORMS["batch"]
        plans = [
            StagePlan(width, blocks, min(index, 1) + 1, norm)
            for index, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True))
        ][: max(self.outputs) + 1]
        stages = residual_stages(BasicBlock, self.widths[0], plans)
        channels = tuple(self.widths[index] for index in self.outputs)
        stem = light_stem(self.widths[0], norm)
        return ResNet(stem, stages, outputs=self.outputs, channels=channels)
