"""Multi-scale deformable attention: dispatch, custom operator, fake, autograd, FLOP formula."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandetr.ops import reference
from leandetr.ops.backend import calls_operator, refuse_second_derivative
from leandetr.ops.transforms import is_transformed
from leandetr.types import Shapes

MULTIPLY_ADDS_A_SAMPLE = 5
"""A channel of a sample takes four multiply-adds to interpolate and one to weigh."""


def deform_attn(
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
    weights: Float[Tensor, "N Q M L P"],
) -> Float[Tensor, "N Q M*D"]:
    """Sum of values sampled at `locations`, weighed by `weights`.

    Locations are (x, y) in (0,1) of each padded level; a sample outside counts as zero.
    Source: Deformable DETR (arXiv 2010.04159), eq. 3.
    """
    if calls_operator(value) and not is_transformed(value, locations, weights):
        return _op(value, flat(shapes), locations, weights)
    return reference.deform_attn(value, shapes, locations, weights)


def flat(shapes: Shapes) -> list[int]:
    """Shapes as the list of ints that an operator schema can hold."""
    return [side for shape in shapes for side in shape]


def paired(sides: list[int]) -> Shapes:
    """The inverse of `flat`."""
    return tuple(zip(sides[::2], sides[1::2], strict=True))


@torch.library.custom_op("leandetr::deform_attn", mutates_args=())
def _op(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    return reference.deform_attn(value, paired(shapes), locations, weights).contiguous()


@_op.register_fake
def _fake(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    images, _, heads, width = value.shape
    return value.new_empty(images, locations.shape[1], heads * width)


@torch.library.custom_op("leandetr::deform_attn_backward", mutates_args=())
def _backward_op(
    grad: Tensor, value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grads = reference.deform_attn_backward(grad, value, paired(shapes), locations, weights)
    return settled(grads[0], value), settled(grads[1], value), settled(grads[2], value)


@_backward_op.register_fake
def _backward_fake(
    grad: Tensor, value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty(value), empty(locations), empty(weights)


def empty(like: Tensor) -> Tensor:
    """What every operator returns for a tensor of this size: contiguous, whatever the strides."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def settled(grad: Tensor | None, like: Tensor) -> Tensor:
    """A gradient as operators return it: contiguous, and empty where there is none."""
    return like.new_empty(0) if grad is None else grad.contiguous()


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    value, ctx.shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grads = _backward_op(grad.contiguous(), value, ctx.shapes, locations, weights)
    return grads[0], None, grads[1], grads[2]


_op.register_autograd(_backward, setup_context=_remember)
_backward_op.register_autograd(refuse_second_derivative)


def samples(locations_shape: tuple, value_shape: tuple) -> int:
    """How many channel values one call samples."""
    images, queries, heads, levels, points, _ = locations_shape
    return images * queries * heads * levels * points * value_shape[-1]


@register_flop_formula(torch.ops.leandetr.deform_attn)
def _flops(value_shape, shapes, locations_shape, weights_shape, *, out_shape=None, **_) -> int:
    return 2 * MULTIPLY_ADDS_A_SAMPLE * samples(locations_shape, value_shape)


@register_flop_formula(torch.ops.leandetr.deform_attn_backward)
def _backward_flops(grad_shape, *shapes, **_) -> int:
    return 2 * _flops(*shapes)
