"""Key-aware deformable attention from raw offsets: location arithmetic inside."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandetr.ops import reference_at
from leandetr.ops.backend import calls_operator, refuse_second_derivative
from leandetr.ops.deform_attn import flat, paired, settled
from leandetr.ops.deform_attn_at import samples_at
from leandetr.ops.key_aware_attn import answer_like_query, gradients_like_inputs, multiply_adds
from leandetr.ops.transforms import is_transformed
from leandetr.types import Shapes


def key_aware_attn_at(
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"] | None,
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
) -> Float[Tensor, "N Q M*D"]:
    """`key_aware_attn` at `offsets` around `reference`; without `key` the value is the key.

    Offsets are those of `deform_attn_at`.
    Source: Lite DETR (arXiv 2303.07335), section 3.4.
    """
    own = None if key is value else key
    if calls_operator(value) and not is_transformed(query, own, value, reference, offsets):
        return _op(query, own, value, flat(shapes), reference, offsets)
    return reference_at.key_aware_attn_at(query, own, value, shapes, reference, offsets)


@torch.library.custom_op(
    "leandetr::key_aware_attn_at",
    mutates_args=(),
    schema="(Tensor query, Tensor? key, Tensor value, SymInt[] shapes, Tensor reference, "
    "Tensor offsets) -> Tensor",
)
def _op(
    query: Tensor, key: Tensor | None, value: Tensor, shapes: list[int], *where: Tensor
) -> Tensor:
    answer = reference_at.key_aware_attn_at(query, key, value, paired(shapes), *where)
    return answer.contiguous()


_op.register_fake(answer_like_query)


@torch.library.custom_op(
    "leandetr::key_aware_attn_at_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor? key, Tensor value, SymInt[] shapes, "
    "Tensor reference, Tensor offsets, bool moves) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward_op(
    grad: Tensor, query: Tensor, key: Tensor | None, value: Tensor, shapes: list[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key (empty when shared), value, reference (if it `moves`), offsets."""
    *where, moves = rest
    by_query, by_key, by_value, by_reference, by_offset = reference_at.key_aware_attn_at_backward(
        grad, query, key, value, paired(shapes), *where
    )
    asked = settled(by_query, value), settled(by_key, value), settled(by_value, value)
    return *asked, settled(by_reference if moves else None, where[0]), settled(by_offset, value)


@_backward_op.register_fake
def _backward_fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *given, moves = inputs
    *asked, by_reference, by_offset = gradients_like_inputs(*given)
    return *asked, by_reference if moves else by_reference.new_empty(0), by_offset


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    query, key, value, ctx.shapes, reference, offsets = inputs
    ctx.shared = key is None
    own = () if key is None else (key,)
    ctx.save_for_backward(query, value, reference, offsets, *own)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, value, reference, offsets, *own = ctx.saved_tensors
    key, moves = own[0] if own else None, ctx.needs_input_grad[4]
    grads = _backward_op(
        grad.contiguous(), query, key, value, ctx.shapes, reference, offsets, moves
    )
    by_key, by_reference = None if ctx.shared else grads[1], grads[3] if moves else None
    return grads[0], by_key, grads[2], None, by_reference, grads[4]


_op.register_autograd(_backward, setup_context=_remember)
_backward_op.register_autograd(refuse_second_derivative)


@register_flop_formula(torch.ops.leandetr.key_aware_attn_at)
def _flops(query_shape, key_shape, value_shape, shapes, reference_shape, offsets_shape, **_) -> int:
    sampled = samples_at(offsets_shape, reference_shape, value_shape)
    return 2 * multiply_adds(key_shape) * sampled


@register_flop_formula(torch.ops.leandetr.key_aware_attn_at_backward)
def _backward_flops(grad_shape, *shapes, **_) -> int:
    *given, _moves = shapes
    return 2 * _flops(*given)
