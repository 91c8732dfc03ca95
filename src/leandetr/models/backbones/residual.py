"""Residual blocks and stages (arXiv 1512.03385, figure 5), with frozen or trained batch norm."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.nn.remade import remade

Norm = Callable[[int], nn.Module]
"""Builds a normalisation layer for so many channels."""


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics, weight and bias are fixed numbers, in training too.

    Official detectors freeze the norms of a pretrained ResNet, for batches of one or two images
    say little about statistics (facebookresearch/detr:models/backbone.py, FrozenBatchNorm2d).
    No `num_batches_tracked` is kept.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps

    def forward(self, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Scale and shift each channel."""
        return F.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def line(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Scale and shift of each channel: what the four numbers of one come to."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


NORMS: dict[str, Norm] = {"frozen": FrozenBatchNorm, "batch": nn.BatchNorm2d}
"""What the `norm` of a config can be."""


def normed(
    conv: nn.Conv2d, norm: nn.Module, features: Float[Tensor, "N C H W"]
) -> Float[Tensor, "N D _ _"]:
    """A convolution without bias and the norm behind it.

    A frozen norm is a scale and a shift. In training it goes into the convolution's weights: no
    pass over the features is made for it, and nothing is kept for the way back. Elsewhere the two
    stay apart, in the order of official code; `Detector.optimise` folds them once and for all.
    """
    if not (isinstance(norm, FrozenBatchNorm) and torch.is_grad_enabled()):
        return norm(conv(features))
    scale, shift = norm.line()
    plain, scale = conv.weight, scale[:, None, None, None]
    weight = plain * scale
    assert not isinstance(conv.padding, str)
    how = (conv.stride, conv.padding, conv.dilation, conv.groups)
    with remade(weight, lambda: plain * scale, plain):
        return F.conv2d(features, weight, shift, *how)


def shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """The way past a residual branch: nothing, or a 1x1 convolution where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))


def beside(way: nn.Module, features: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
    """The features past a residual branch; `way` is what `shortcut` made."""
    if not isinstance(way, nn.Sequential):
        return way(features)
    conv, norm = way
    assert isinstance(conv, nn.Conv2d)
    return normed(conv, norm, features)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18 and 34."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = norm(width)
        self.downsample = shortcut(inputs, width, stride, norm)

    def forward(self, features: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
        """The features plus what the two convolutions make of them."""
        branch = F.relu(normed(self.conv1, self.bn1, features), inplace=True)
        branch = normed(self.conv2, self.bn2, branch)
        return F.relu(branch.add_(beside(self.downsample, features)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: the block of ResNet-50 and deeper.

    The 3x3 convolution carries the stride, as in torchvision; the paper strides the first 1x1.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.downsample = shortcut(inputs, outputs, stride, norm)

    def forward(self, features: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
        """The features plus what the three convolutions make of them."""
        branch = F.relu(normed(self.conv1, self.bn1, features), inplace=True)
        branch = F.relu(normed(self.conv2, self.bn2, branch), inplace=True)
        branch = normed(self.conv3, self.bn3, branch)
        return F.relu(branch.add_(beside(self.downsample, features)), inplace=True)


Block = type[BasicBlock] | type[Bottleneck]


@dataclass(frozen=True)
class StagePlan:
    """One stage: `blocks` blocks of `width`; the first has the stride, the later ones dilate."""

    width: int
    blocks: int
    stride: int
    norm: Norm
    dilation: int = 1


def residual_stages(block: Block, inputs: int, plans: Iterable[StagePlan]) -> list[nn.Sequential]:
    """The stages, each fed by the one before, the first by `inputs` channels.

    The first block of a dilated stage keeps dilation 1, as with `previous_dilation` in
    pytorch/vision:torchvision/models/resnet.py, ResNet._make_layer.
    """
    stages = []
    for plan in plans:
        parts = []
        for index in range(plan.blocks):
            stride, dilation = (plan.stride, 1) if index == 0 else (1, plan.dilation)
            parts.append(
                block(inputs, plan.width, stride=stride, dilation=dilation, norm=plan.norm)
            )
            inputs = plan.width * block.expansion
        stages.append(nn.Sequential(*parts))
    return stages
