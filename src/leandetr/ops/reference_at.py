"""The fused operators in plain PyTorch: location arithmetic and softmax around `reference.py`.

Gradients are written out for the same reason as there.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from leandetr.ops import reference as ready
from leandetr.types import Shapes

BOX_SHARE = 0.5
"""An offset of `points` steps reaches half the box (Deformable DETR, 4-wide references)."""


def locate(
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    shapes: Shapes,
) -> Float[Tensor, "N Q M L P 2"]:
    """Sampling locations in (0,1) of each padded level; `own` is L, or 1 when levels share.

    Offsets count cells around a point and shares of the box inside a box.
    Source: Deformable DETR (arXiv 2010.04159), section 4.1 and appendix A.4.
    """
    reference, offsets = ready.exact(reference, offsets)
    centre = reference[:, :, None, :, None, :2]  # N Q 1 L 1 2
    if reference.shape[-1] == 2:
        return centre + offsets / _sides(offsets, shapes)
    return centre + offsets / offsets.shape[-2] * reference[:, :, None, :, None, 2:] * BOX_SHARE


def _sides(like: Tensor, shapes: Shapes) -> Float[Tensor, "L 1 2"]:
    """(width, height) of each level, 1 for none; sizes stay symbolic in an export."""
    one = like.new_ones(())
    sides = [torch.stack((one * w, one * h)) for h, w in shapes]
    return torch.stack(sides)[:, None].clamp(min=1)


def locate_backward(
    grad: Float[Tensor, "N Q M L P 2"],
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    shapes: Shapes,
) -> tuple[Float[Tensor, "N Q L R"], Float[Tensor, "N Q M own P 2"]]:
    """Gradients of reference and offsets."""
    types = reference.dtype, offsets.dtype
    grad, reference, offsets = ready.exact(grad, reference, offsets)
    by_reference = grad.sum(dim=(2, 4))  # N Q L 2
    if reference.shape[-1] == 2:
        by_offsets = grad / _sides(offsets, shapes)
    else:
        share = BOX_SHARE / offsets.shape[-2]
        by_offsets = grad * reference[:, :, None, :, None, 2:] * share
        by_box = (grad * offsets * share).sum(dim=(2, 4))
        by_reference = torch.cat((by_reference, by_box), dim=-1)
    if offsets.shape[3] == 1:
        by_offsets = by_offsets.sum(dim=3, keepdim=True)
    return by_reference.to(types[0]), by_offsets.to(types[1])


def share_out(logits: Float[Tensor, "N Q M LP"], points: int) -> Float[Tensor, "N Q M L {points}"]:
    """Softmax over levels and points together."""
    (logits,) = ready.exact(logits)
    return rearrange(logits.softmax(dim=-1), "N Q M (L P) -> N Q M L P", P=points)


def deform_attn_at(
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    logits: Float[Tensor, "N Q M LP"],
) -> Float[Tensor, "N Q M*D"]:
    """`deform_attn` at offsets around a reference, weighed by the softmax of logits."""
    weights = share_out(logits, offsets.shape[-2])
    return ready.deform_attn(value, shapes, locate(reference, offsets, shapes), weights)


def deform_attn_at_backward(
    grad: Float[Tensor, "N Q C"],
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    logits: Float[Tensor, "N Q M LP"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, reference, offsets and logits."""
    weights = share_out(logits, offsets.shape[-2])
    locations = locate(reference, offsets, shapes)
    by_value, by_location, by_weight = ready.deform_attn_backward(
        grad, value, shapes, locations, weights
    )
    pulled = (by_weight - (by_weight * weights).sum(dim=(3, 4), keepdim=True)) * weights
    by_logit = rearrange(pulled, "N Q M L P -> N Q M (L P)").to(logits.dtype)
    return by_value, *locate_backward(by_location, reference, offsets, shapes), by_logit


def key_aware_attn_at(
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"] | None,
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
) -> Float[Tensor, "N Q M*D"]:
    """`key_aware_attn` at offsets around a reference; without `key` the value is the key."""
    own = value if key is None else key
    return ready.key_aware_attn(query, own, value, shapes, locate(reference, offsets, shapes))


def key_aware_attn_at_backward(
    grad: Float[Tensor, "N Q C"],
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"] | None,
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of query, key (None when shared), value, reference and offsets."""
    by_query, by_key, by_value, by_location = ready.key_aware_attn_backward(
        grad, query, key, value, shapes, locate(reference, offsets, shapes)
    )
    return by_query, by_key, by_value, *locate_backward(by_location, reference, offsets, shapes)
