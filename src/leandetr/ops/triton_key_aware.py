"""Key-aware attention on the GPU, in Triton: `key_aware_attn` and `key_aware_attn_at`.

Forward, one pass: a program walks through the levels and points of its queries, gathers the four
corners of each sampled key, takes its logit, gathers the value (nothing more when the key is the
value), and keeps a running softmax: neither keys nor logits are ever stored.

The backward kernel is in `triton_key_aware_backward`.
"""
# pyright: reportMissingImports=false

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from leandetr.ops import triton_launch as host
from leandetr.ops.triton_corners import (
    LOWEST,
    blend,
    extent,
    gather,
    locate,
    online,
    program,
    row_of_channels,
)
from leandetr.ops.triton_key_aware_backward import add_gradients
from leandetr.types import Shapes


def forward(
    query: Tensor, key: Tensor | None, value: Tensor, shapes: Shapes, locations: Tensor
) -> Tensor:
    """What `key_aware_attn` computes; without a key, the value is the key."""
    return _run_forward((query, key, value), shapes, None, locations)


def forward_at(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor,
    offsets: Tensor,
) -> Tensor:
    """What `key_aware_attn_at` computes."""
    return _run_forward((query, key, value), shapes, reference, offsets)


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: Shapes,
    locations: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key (empty without one), value and locations."""
    *rest, by_place = _run_backward(grad, (query, key, value), shapes, None, locations)
    return rest[0], rest[1], rest[2], by_place.to(locations.dtype)


def backward_at(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor,
    offsets: Tensor,
    moves: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key (empty without one), value, reference and offsets.

    That of the reference is empty unless it `moves`.
    """
    *rest, by_place = _run_backward(grad, (query, key, value), shapes, reference, offsets)
    by_reference, by_offset = host.from_places(by_place, shapes, reference, offsets, moves)
    return rest[0], rest[1], rest[2], by_reference, by_offset


Asked = tuple[Tensor, Tensor | None, Tensor]
"""Query, key and value."""


def _run_forward(asked: Asked, shapes: Shapes, around: Tensor | None, where: Tensor) -> Tensor:
    query, _, value = asked
    images, queries, heads, width = query.shape
    output = value.new_empty(images, queries, heads * width)
    if output.numel():
        inputs = _inputs(asked, shapes, around, where)
        given = _sizes(asked, shapes, around, where)
        given["LANE"] = host.lane(value, query)
        exact = host.real(*asked, around, where)
        host.launch(_forward, value, (*inputs, output), queries=queries, exact=exact, given=given)
    return output


def _run_backward(
    grad: Tensor, asked: Asked, shapes: Shapes, around: Tensor | None, where: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the query, the key, the value, and of where each sample fell."""
    query, key, value = asked
    images, queries, heads, _, points, _ = where.shape
    exact = host.real(grad, *asked, around, where)
    by_query = torch.zeros_like(query, memory_format=torch.contiguous_format)
    by_place = where.new_zeros((images, queries, heads, len(shapes), points, 2), dtype=exact)
    nothing = value.new_empty(0)
    if not by_query.numel() or not by_place.numel():
        by_key = nothing if key is None else torch.zeros_like(key)
        return by_query, by_key, torch.zeros_like(value), by_place
    by_value = _sums(grad, asked, exact, len(shapes) * points)
    by_key = by_value if key is None else _sums(grad, asked, exact, len(shapes) * points)
    results = (by_query, by_key.buffer, by_value.buffer, by_value.factor, by_place)
    given = _sizes(asked, shapes, around, where)
    given["ORDERED"] = by_value.factor is not None
    inputs = (grad.contiguous(), *_inputs(asked, shapes, around, where))
    tensors = (*inputs, *results)
    host.launch(add_gradients, value, tensors, queries=queries, exact=exact, given=given)
    key_grad = nothing if key is None else by_key.result(key)
    return by_query, key_grad, by_value.result(value), by_place


def _sums(grad: Tensor, asked: Asked, exact: torch.dtype, samples: int) -> host.Sums:
    """Zeros to add gradients to: a weight is 1 at most, a logit's gradient twice a product."""
    query, _, value = asked

    def largest() -> Tensor:
        fit = 2 * value.abs().max() * query.abs().max() * query.shape[-1] ** 0.5
        return grad.abs().max() * (1 + fit.double())

    return host.sums(value, exact, query.shape[1] * samples, largest)


def _inputs(asked: Asked, shapes: Shapes, around: Tensor | None, where: Tensor) -> tuple:
    query, key, value = asked
    value = value.contiguous()
    own = value if key is None else key.contiguous()
    levels = host.table(shapes, value.device)
    return query.contiguous(), own, value, levels, host.straight(around), where.contiguous()


def _sizes(asked: Asked, shapes: Shapes, around: Tensor | None, where: Tensor) -> dict:
    width = asked[0].shape[-1]
    shared = {"SHARED": asked[1] is None, "ROOT": width**-0.5}
    return {**host.sizes(shapes, around, where, width), **shared}


# fmt: off


@host.tuned(host.FORWARD)
@triton.jit(do_not_specialize=["queries", "tokens", "crowd"])
@no_type_check
def _forward(
    query, key, value, levels, around, where, output, queries, tokens, crowd,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, SHARED: tl.constexpr, ROOT: tl.constexpr, REAL: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr,
):
    BLOCK: tl.constexpr = WORK // CHANNELS if WORK > CHANNELS else 1
    image, head, row, live = program(queries, HEADS, BLOCK, WIDE)
    begin = (image * tokens * HEADS + head) * WIDTH
    at, there = row_of_channels(row, head, live, HEADS, WIDTH, CHANNELS, LANE)
    asked = tl.load(query + at, mask=there, other=0.0).to(REAL) * ROOT
    total = tl.zeros([BLOCK, CHANNELS], REAL)
    peak = tl.full([BLOCK], LOWEST, REAL)
    mass = tl.zeros([BLOCK], REAL)
    for level in range(LEVELS):
        height, width, start = extent(levels, level, WIDE)
        here = begin + start * (HEADS * WIDTH)
        for point in range(POINTS):
            left, top, right, low = locate(
                where, around, row, head, live, level, point, height, width,
                HEADS, LEVELS, POINTS, AROUND, OWN, REAL,
            )
            one, two, three, four = gather(
                key + here, left, top, height, width, live,
                HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL,
            )
            sampled = blend(one, two, three, four, right, low, 1.0)
            logit = tl.sum(asked * sampled, axis=1)
            if not SHARED:
                one, two, three, four = gather(
                    value + here, left, top, height, width, live,
                    HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL,
                )
                sampled = blend(one, two, three, four, right, low, 1.0)
            peak, mass, share, fade = online(peak, mass, logit)
            total = total * fade[:, None] + share[:, None] * sampled
    tl.store(output + at, (total / mass[:, None]).to(output.dtype.element_ty), mask=there)
