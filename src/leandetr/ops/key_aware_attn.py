"""Key-aware deformable attention: dispatch, custom operator, fake, autograd, FLOP formula."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandetr.ops import reference
from leandetr.ops.backend import calls_operator, refuse_second_derivative
from leandetr.ops.deform_attn import empty, flat, paired, samples, settled
from leandetr.ops.transforms import is_transformed
from leandetr.types import Shapes

MULTIPLY_ADDS_A_SAMPLE = 10
"""Four to interpolate the key, one for its logit, four to interpolate the value, one to weigh."""
MULTIPLY_ADDS_A_SHARED_SAMPLE = 6
"""The same with one interpolation for both."""


def key_aware_attn(
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"],
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> Float[Tensor, "N Q M*D"]:
    """Attention of each query over the keys and values sampled at its `locations`.

    Locations are (x, y) in (0,1) of each padded level; a sample outside has logit 0, value 0,
    and stays in the softmax. Pass the same tensor as key and value to sample it only once.
    Source: Lite DETR (arXiv 2303.07335), section 3.4.
    """
    if calls_operator(value) and not is_transformed(query, key, value, locations):
        own = None if key is value else key
        return _op(query, own, value, flat(shapes), locations)
    return reference.key_aware_attn(query, key, value, shapes, locations)


@torch.library.custom_op("leandetr::key_aware_attn", mutates_args=())
def _op(
    query: Tensor, key: Tensor | None, value: Tensor, shapes: list[int], locations: Tensor
) -> Tensor:
    own = value if key is None else key
    return reference.key_aware_attn(query, own, value, paired(shapes), locations).contiguous()


@_op.register_fake
def answer_like_query(query: Tensor, _: Tensor | None, value: Tensor, *rest: Any) -> Tensor:
    """What the operator returns: a row a query, in the precision of the value."""
    images, queries, heads, width = query.shape
    return value.new_empty(images, queries, heads * width)


@torch.library.custom_op("leandetr::key_aware_attn_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: list[int],
    locations: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key (empty when shared), value and locations, by recomputation."""
    by_query, by_key, *rest = reference.key_aware_attn_backward(
        grad, query, key, value, paired(shapes), locations
    )
    by_value, by_location = rest
    asked = settled(by_query, value), settled(by_key, value), settled(by_value, value)
    return *asked, settled(by_location, value)


@_backward_op.register_fake
def gradients_like_inputs(
    grad: Tensor, query: Tensor, key: Tensor | None, value: Tensor, _: Any, *where: Tensor
) -> tuple[Tensor, ...]:
    """What the backward operator returns: a gradient for each tensor, empty for a shared key."""
    by_key = value.new_empty(0) if key is None else empty(key)
    return empty(query), by_key, empty(value), *(empty(each) for each in where)


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    query, key, value, ctx.shapes, locations = inputs
    ctx.shared = key is None
    ctx.save_for_backward(query, value, locations, *(() if key is None else (key,)))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, value, locations, *own = ctx.saved_tensors
    key = own[0] if own else None
    grads = _backward_op(grad.contiguous(), query, key, value, ctx.shapes, locations)
    return grads[0], None if ctx.shared else grads[1], grads[2], None, grads[3]


_op.register_autograd(_backward, setup_context=_remember)
_backward_op.register_autograd(refuse_second_derivative)


def multiply_adds(key_shape: tuple | None) -> int:
    """A sample's multiply-adds for each channel, with a key of its own or without."""
    return MULTIPLY_ADDS_A_SHARED_SAMPLE if key_shape is None else MULTIPLY_ADDS_A_SAMPLE


@register_flop_formula(torch.ops.leandetr.key_aware_attn)
def _flops(query_shape, key_shape, value_shape, shapes, locations_shape, **_) -> int:
    return 2 * multiply_adds(key_shape) * samples(locations_shape, value_shape)


@register_flop_formula(torch.ops.leandetr.key_aware_attn_backward)
def _backward_flops(grad_shape, *shapes, **_) -> int:
    return 2 * _flops(*shapes)
