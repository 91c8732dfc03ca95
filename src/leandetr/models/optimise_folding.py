"""Batch norm folded into the convolution before it: the same numbers, one pass less."""

import torch
from torch import nn

from leandetr.models.backbones.residual import FrozenBatchNorm

Norm = FrozenBatchNorm | nn.BatchNorm2d
NORMS = (FrozenBatchNorm, nn.BatchNorm2d)
"""Norms whose statistics are fixed numbers in evaluation. What other libraries derive from them and
from convolutions does more: an activation behind the norm, padding of its own."""


def fold_norms(module: nn.Module) -> int:
    """Fold every norm that follows a convolution within `module`; says how many were folded.

    A norm is known to follow a convolution by its name, `bn1` after `conv1` as in torchvision, or
    by its place in an `nn.Sequential`; any other stays, and so do classes derived from both. An
    `nn.Identity` takes its place.
    """
    folded = 0
    for owner in module.modules():
        for first, second in _pairs(owner):
            conv, norm = getattr(owner, first), getattr(owner, second)
            if type(conv) is nn.Conv2d and type(norm) in NORMS and _is_a_line(conv, norm):
                setattr(owner, first, _folded(conv, norm))
                setattr(owner, second, nn.Identity())
                folded += 1
    return folded


def _pairs(owner: nn.Module) -> list[tuple[str, str]]:
    """Names of children that come right after each other."""
    names = [name for name, _ in owner.named_children()]
    if type(owner).forward is nn.Sequential.forward:
        return list(zip(names[:-1], names[1:], strict=True))
    numbers = [name.removeprefix("conv") for name in names if name.startswith("conv")]
    pairs = [(f"conv{n}", f"bn{n}") for n in numbers if f"bn{n}" in names]
    return [(conv, norm) for conv, norm in pairs if names.index(conv) < names.index(norm)]


def _is_a_line(conv: nn.Conv2d, norm: Norm) -> bool:
    """Whether the norm scales and shifts what the convolution makes by fixed numbers."""
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return all(one is not None and len(one) == conv.out_channels for one in numbers)


def _folded(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    """A convolution with a bias that does what both did; worked out in double precision."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    start = 0 if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() + (start - norm.running_mean.double()) * scale
    with torch.device(conv.weight.device):
        both = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # pyright: ignore[reportArgumentType]
            conv.stride,  # pyright: ignore[reportArgumentType]
            conv.padding,  # pyright: ignore[reportArgumentType]
            conv.dilation,  # pyright: ignore[reportArgumentType]
            conv.groups,
            padding_mode=conv.padding_mode,
            dtype=conv.weight.dtype,
        )
    with torch.no_grad():
        both.weight.copy_(weight)
        assert both.bias is not None
        both.bias.copy_(bias)
    return both.requires_grad_(False)
