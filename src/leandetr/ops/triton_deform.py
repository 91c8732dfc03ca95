"""Deformable attention on the GPU, in Triton: `deform_attn` and `deform_attn_at`.

Forward: a program walks through the levels and points of its queries, gathers the four corners of
each sample, and adds them up in registers; with offsets and logits given, the location arithmetic
and the softmax happen on the way and are never stored.

Backward: a program gathers the same corners again (nothing but the inputs is kept for it). A
sample's weight and location gradients are sums over the channels of a row, within a warp; they
are collected in tiles, a column a sample, and stored in one piece. Value gradients are added to a
buffer in single precision by atomics, four channels at once where the GPU can: the order of the
additions, and so the last bits, change from run to run. Under
`torch.use_deterministic_algorithms` they are added as 64-bit whole numbers instead, which takes
twice the memory and gives the same bits every time.
"""
# pyright: reportMissingImports=false

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from leandetr.ops import triton_launch as host
from leandetr.ops.triton_corners import (
    blend,
    every_sample,
    extent,
    gather,
    locate,
    probe,
    program,
    put,
    row_of_channels,
    scatter,
    store_places,
)
from leandetr.types import Shapes


def forward(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """What `deform_attn` computes."""
    return _run_forward(value, shapes, None, locations, weights)


def forward_at(
    value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """What `deform_attn_at` computes."""
    return _run_forward(value, shapes, reference, offsets, logits)


def backward(
    grad: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights."""
    by_value, by_place, by_weight = _run_backward(grad, value, shapes, None, locations, weights)
    return by_value, by_place.to(locations.dtype), by_weight.view_as(weights)


def backward_at(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    moves: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, reference (empty unless it `moves`), offsets and logits."""
    by_value, by_place, by_logit = _run_backward(grad, value, shapes, reference, offsets, logits)
    by_reference, by_offset = host.from_places(by_place, shapes, reference, offsets, moves)
    return by_value, by_reference, by_offset, by_logit


def _run_forward(
    value: Tensor, shapes: Shapes, around: Tensor | None, where: Tensor, weights: Tensor
) -> Tensor:
    images, queries, heads = where.shape[:3]
    output = value.new_empty(images, queries, heads * value.shape[-1])
    if output.numel():
        value, given = value.contiguous(), host.sizes(shapes, around, where, value.shape[-1])
        inputs = (
            value,
            host.table(shapes, value.device),
            host.straight(around),
            where.contiguous(),
        )
        given["LANE"] = host.lane(value, weights)
        exact = host.real(value, around, where, weights)
        tensors = (*inputs, weights.contiguous(), output)
        host.launch(_forward, value, tensors, queries=queries, exact=exact, given=given)
    return output


def _run_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Shapes,
    around: Tensor | None,
    where: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the value, of where each sample fell, and of the weights."""
    images, queries, heads, _, points, _ = where.shape
    exact = host.real(grad, value, around, where, weights)
    by_place = where.new_zeros((images, queries, heads, len(shapes), points, 2), dtype=exact)
    value, weights = value.contiguous(), weights.contiguous()
    by_weight = torch.zeros_like(weights)
    if not grad.numel() or not by_weight.numel():
        return torch.zeros_like(value), by_place, by_weight

    def largest() -> Tensor:
        most = grad.abs().max()
        return most if around is not None else most * weights.abs().max()

    by_value = host.sums(value, exact, queries * len(shapes) * points, largest)
    inputs = (grad.contiguous(), value, host.table(shapes, value.device), host.straight(around))
    results = (by_value.buffer, by_value.factor, by_place, by_weight)
    given = host.sizes(shapes, around, where, value.shape[-1])
    given["ORDERED"] = by_value.factor is not None
    tensors = (*inputs, where.contiguous(), weights, *results)
    host.launch(_backward, value, tensors, queries=queries, exact=exact, given=given)
    return by_value.result(value), by_place, by_weight


# fmt: off


@host.tuned(host.FORWARD)
@triton.jit(do_not_specialize=["queries", "tokens", "crowd"])
@no_type_check
def _forward(
    value, levels, around, where, weights, output, queries, tokens, crowd,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, REAL: tl.constexpr, WIDE: tl.constexpr, WORK: tl.constexpr,
):
    BLOCK: tl.constexpr = WORK // CHANNELS if WORK > CHANNELS else 1
    image, head, row, live = program(queries, HEADS, BLOCK, WIDE)
    plane = value + (image * tokens * HEADS + head) * WIDTH
    share = weights + (row * HEADS + head) * (LEVELS * POINTS)
    if AROUND > 0:
        peak, part, _ = _softmax(
            weights, row, head, live, HEADS, LEVELS, POINTS, SAMPLES, REAL
        )
    total = tl.zeros([BLOCK, CHANNELS], REAL)
    for level in range(LEVELS):
        height, width, start = extent(levels, level, WIDE)
        here = plane + start * (HEADS * WIDTH)
        for point in range(POINTS):
            left, top, right, low = locate(
                where, around, row, head, live, level, point, height, width,
                HEADS, LEVELS, POINTS, AROUND, OWN, REAL,
            )
            one, two, three, four = gather(
                here, left, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL
            )
            weight = tl.load(share + level * POINTS + point, mask=live, other=0.0).to(REAL)
            if AROUND > 0:
                weight = tl.exp(weight - peak) * part
            total += blend(one, two, three, four, right, low, weight)
    at, there = row_of_channels(row, head, live, HEADS, WIDTH, CHANNELS, LANE)
    tl.store(output + at, total.to(output.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _softmax(
    logits, row, head, live, HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
    SAMPLES: tl.constexpr, REAL: tl.constexpr,
):
    """Greatest logit of every query, one by the sum of the exponentials, and all the weights."""
    at, there = every_sample(row, head, live, HEADS, LEVELS, POINTS, SAMPLES)
    found = tl.load(logits + at, mask=there, other=0.0).to(REAL)
    found = tl.where(tl.arange(0, SAMPLES)[None, :] < LEVELS * POINTS, found, float("-inf"))
    peak = tl.max(found, axis=1)
    powers = tl.exp(found - peak[:, None])
    part = 1.0 / tl.sum(powers, axis=1)
    return peak, part, powers * part[:, None]


@host.tuned(host.BACKWARD, zeroed=("by_value",))
@triton.jit(do_not_specialize=["queries", "tokens", "crowd"])
@no_type_check
def _backward(
    grad, value, levels, around, where, weights, by_value, factor, by_place, by_weight,
    queries, tokens, crowd,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, REAL: tl.constexpr, WIDE: tl.constexpr, ORDERED: tl.constexpr,
    WORK: tl.constexpr,
):
    BLOCK: tl.constexpr = WORK // CHANNELS if WORK > CHANNELS else 1
    LANE: tl.constexpr = 4 if CHANNELS > 4 else CHANNELS
    image, head, row, live = program(queries, HEADS, BLOCK, WIDE)
    at, there = row_of_channels(row, head, live, HEADS, WIDTH, CHANNELS, LANE)
    pulled = tl.load(grad + at, mask=there, other=0.0).to(REAL)
    scale = tl.load(factor) if ORDERED else 1.0
    peak, part = 0.0, 1.0
    if AROUND > 0:
        peak, part, evenly = _softmax(
            weights, row, head, live, HEADS, LEVELS, POINTS, SAMPLES, REAL
        )
    begin = (image * tokens * HEADS + head) * WIDTH
    by_share, by_x, by_y = _walk(
        pulled, value + begin, by_value + begin, scale, levels, around, where, weights, peak, part,
        row, head, live, HEADS, WIDTH, CHANNELS, LANE, LEVELS, POINTS, SAMPLES, AROUND, OWN,
        REAL, WIDE, ORDERED, BLOCK,
    )
    if AROUND > 0:
        by_share = evenly * (by_share - tl.sum(evenly * by_share, axis=1)[:, None])
    at, there = every_sample(row, head, live, HEADS, LEVELS, POINTS, SAMPLES)
    tl.store(by_weight + at, by_share.to(by_weight.dtype.element_ty), mask=there)
    store_places(by_place, at, by_x, by_y, there)


@triton.jit
@no_type_check
def _walk(
    pulled, plane, by_plane, scale, levels, around, where, weights, peak, part, row, head, live,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, REAL: tl.constexpr, WIDE: tl.constexpr, ORDERED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scatter the value's gradient; gradients of all weights, and of both coordinates."""
    share = weights + (row * HEADS + head) * (LEVELS * POINTS)
    columns = tl.arange(0, SAMPLES)
    by_share = tl.zeros([BLOCK, SAMPLES], REAL)
    by_x = tl.zeros([BLOCK, SAMPLES], REAL)
    by_y = tl.zeros([BLOCK, SAMPLES], REAL)
    for level in range(LEVELS):
        height, width, start = extent(levels, level, WIDE)
        here = start * (HEADS * WIDTH)
        for point in range(POINTS):
            left, top, right, low = locate(
                where, around, row, head, live, level, point, height, width,
                HEADS, LEVELS, POINTS, AROUND, OWN, REAL,
            )
            one, two, three, four = gather(
                plane + here, left, top, height, width, live,
                HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL,
            )
            index = level * POINTS + point
            weight = tl.load(share + index, mask=live, other=0.0).to(REAL)
            if AROUND > 0:
                weight = tl.exp(weight - peak) * part
            scatter(
                by_plane + here, pulled, left, top, right, low, weight, height, width, live,
                scale, HEADS, WIDTH, CHANNELS, LANE, WIDE, ORDERED,
            )
            product, across, down = probe(
                pulled, one, two, three, four, right, low, height, width, AROUND
            )
            by_share = put(by_share, columns, index, product)
            by_x = put(by_x, columns, index, across * weight)
            by_y = put(by_y, columns, index, down * weight)
    return by_share, by_x, by_y
