"""Deformable attention from raw offsets and logits: location arithmetic and softmax inside."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leandetr.ops import reference_at
from leandetr.ops.backend import calls_operator, refuse_second_derivative
from leandetr.ops.deform_attn import MULTIPLY_ADDS_A_SAMPLE, empty, flat, paired, settled
from leandetr.ops.transforms import is_transformed
from leandetr.types import Shapes


def deform_attn_at(
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    logits: Float[Tensor, "N Q M LP"],
) -> Float[Tensor, "N Q M*D"]:
    """`deform_attn` at `offsets` around `reference`, weighed by the softmax of `logits`.

    Offsets count cells around a point (2-wide references) and, in units of half the box over P,
    inside a box (4-wide). Their own levels are L, or 1 when all levels share them.
    Source: Deformable DETR (arXiv 2010.04159), section 4.1 and appendix A.4.
    """
    if calls_operator(value) and not is_transformed(value, reference, offsets, logits):
        return _op(value, flat(shapes), reference, offsets, logits)
    return reference_at.deform_attn_at(value, shapes, reference, offsets, logits)


@torch.library.custom_op("leandetr::deform_attn_at", mutates_args=())
def _op(
    value: Tensor, shapes: list[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    sides = paired(shapes)
    return reference_at.deform_attn_at(value, sides, reference, offsets, logits).contiguous()


@_op.register_fake
def _fake(value: Tensor, _: Any, reference: Tensor, *rest: Tensor) -> Tensor:
    images, _, heads, width = value.shape
    return value.new_empty(images, reference.shape[1], heads * width)


@torch.library.custom_op("leandetr::deform_attn_at_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    value: Tensor,
    shapes: list[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    moves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, reference (empty unless it `moves`), offsets and logits."""
    by_value, by_reference, by_offset, by_logit = reference_at.deform_attn_at_backward(
        grad, value, paired(shapes), reference, offsets, logits
    )
    by_reference = settled(by_reference if moves else None, reference)
    return (
        settled(by_value, value),
        by_reference,
        settled(by_offset, value),
        settled(by_logit, value),
    )


@_backward_op.register_fake
def _backward_fake(
    grad: Tensor, value: Tensor, _: Any, reference: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    offsets, logits, moves = rest
    by_reference = empty(reference) if moves else reference.new_empty(0)
    return empty(value), by_reference, empty(offsets), empty(logits)


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    value, ctx.shapes, reference, offsets, logits = inputs
    ctx.save_for_backward(value, reference, offsets, logits)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, *rest = ctx.saved_tensors
    moves = ctx.needs_input_grad[2]
    grads = _backward_op(grad.contiguous(), value, ctx.shapes, *rest, moves)
    return grads[0], None, grads[1] if moves else None, grads[2], grads[3]


_op.register_autograd(_backward, setup_context=_remember)
_backward_op.register_autograd(refuse_second_derivative)


def samples_at(offsets_shape: tuple, reference_shape: tuple, value_shape: tuple) -> int:
    """How many channel values one call samples."""
    images, queries, heads, _, points, _ = offsets_shape
    return images * queries * heads * reference_shape[2] * points * value_shape[-1]


@register_flop_formula(torch.ops.leandetr.deform_attn_at)
def _flops(value_shape, shapes, reference_shape, offsets_shape, *_, **__) -> int:
    sampled = samples_at(offsets_shape, reference_shape, value_shape)
    return 2 * MULTIPLY_ADDS_A_SAMPLE * sampled


@register_flop_formula(torch.ops.leandetr.deform_attn_at_backward)
def _backward_flops(grad_shape, *shapes, **_) -> int:
    return 2 * _flops(*shapes)
