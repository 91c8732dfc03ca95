"""Gradients of key-aware attention on the GPU, in Triton.

Two walks in one program, nothing kept from the forward pass. The first gathers the
corners once and reduces them to what all gradients are made of: a sample's logit, its product
with the gradient, and how both change with its location, in tiles with a column a sample. The
query's gradient needs the sampled keys themselves, which a second running softmax adds up as they
pass. Then the softmax is whole, location gradients are stored in one piece, and the second walk,
without any gathering, adds each sample's share to the gradients of keys and values by atomics in
single precision: the order of the additions, and so the last bits, change from run to run. Under
`torch.use_deterministic_algorithms` they are added as 64-bit whole numbers instead, which takes
twice the memory and gives the same bits every time.
"""
# pyright: reportMissingImports=false

from typing import no_type_check

import triton
import triton.language as tl

from leandetr.ops import triton_launch as host
from leandetr.ops.triton_corners import (
    LOWEST,
    blend,
    every_sample,
    extent,
    gather,
    locate,
    online,
    probe,
    program,
    put,
    row_of_channels,
    scatter,
    store_places,
    take,
)

# fmt: off


@host.tuned(host.BACKWARD, zeroed=("by_key", "by_value"))
@triton.jit(do_not_specialize=["queries", "tokens", "crowd"])
@no_type_check
def add_gradients(
    grad, query, key, value, levels, around, where, by_query, by_key, by_value, factor, by_place,
    queries, tokens, crowd,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, SHARED: tl.constexpr, ROOT: tl.constexpr, REAL: tl.constexpr,
    WIDE: tl.constexpr, ORDERED: tl.constexpr, WORK: tl.constexpr,
):
    """Both walks."""
    BLOCK: tl.constexpr = WORK // CHANNELS if WORK > CHANNELS else 1
    LANE: tl.constexpr = 4 if CHANNELS > 4 else CHANNELS
    image, head, row, live = program(queries, HEADS, BLOCK, WIDE)
    begin = (image * tokens * HEADS + head) * WIDTH
    at, there = row_of_channels(row, head, live, HEADS, WIDTH, CHANNELS, LANE)
    asked = tl.load(query + at, mask=there, other=0.0).to(REAL) * ROOT
    pulled = tl.load(grad + at, mask=there, other=0.0).to(REAL)
    share, by_logit, by_asked, across, down = _gather_walk(
        asked, pulled, key + begin, value + begin, levels, around, where, row, head, live,
        HEADS, WIDTH, CHANNELS, LANE, LEVELS, POINTS, SAMPLES, AROUND, OWN, SHARED, REAL, WIDE,
        BLOCK,
    )
    tl.store(by_query + at, (by_asked * ROOT).to(by_query.dtype.element_ty), mask=there)
    spot, known = every_sample(row, head, live, HEADS, LEVELS, POINTS, SAMPLES)
    store_places(by_place, spot, across, down, known)
    scale = tl.load(factor) if ORDERED else 1.0
    _scatter_walk(
        asked, pulled, share, by_logit, by_key + begin, by_value + begin, scale, levels, around,
        where, row, head, live, HEADS, WIDTH, CHANNELS, LANE, LEVELS, POINTS, SAMPLES, AROUND,
        OWN, SHARED, REAL, WIDE, ORDERED,
    )


@triton.jit
@no_type_check
def _gather_walk(
    asked, pulled, key, value, levels, around, where, row, head, live,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, SHARED: tl.constexpr, REAL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All weights and gradients of logits, gradients of the scaled query and of the places."""
    logits = tl.full([BLOCK, SAMPLES], float("-inf"), REAL)
    nothing = tl.zeros([BLOCK, SAMPLES], REAL)
    by_share, key_x, key_y, value_x, value_y = nothing, nothing, nothing, nothing, nothing
    keys = tl.zeros([BLOCK, CHANNELS], REAL)
    pulled_keys = keys
    peak = tl.full([BLOCK], LOWEST, REAL)
    mass = tl.zeros([BLOCK], REAL)
    for level in range(LEVELS):
        height, width, start = extent(levels, level, WIDE)
        here = start * (HEADS * WIDTH)
        for point in range(POINTS):
            index = level * POINTS + point
            left, top, right, low = locate(
                where, around, row, head, live, level, point, height, width,
                HEADS, LEVELS, POINTS, AROUND, OWN, REAL,
            )
            sampled, logit, product, key_x, key_y, value_x, value_y = _compare(
                asked, pulled, key + here, value + here, left, top, right, low, height, width,
                live, key_x, key_y, value_x, value_y, index,
                HEADS, WIDTH, CHANNELS, LANE, SAMPLES, AROUND, SHARED, REAL, WIDE,
            )
            peak, mass, share, fade = online(peak, mass, logit)
            keys = keys * fade[:, None] + share[:, None] * sampled
            pulled_keys = pulled_keys * fade[:, None] + (share * product)[:, None] * sampled
            logits = put(logits, tl.arange(0, SAMPLES), index, logit)
            by_share = put(by_share, tl.arange(0, SAMPLES), index, product)
    share = tl.exp(logits - peak[:, None]) / mass[:, None]
    mean = tl.sum(share * by_share, axis=1)[:, None]
    by_logit = share * (by_share - mean)
    by_asked = (pulled_keys - mean * keys) / mass[:, None]
    across = by_logit * key_x + share * value_x
    return share, by_logit, by_asked, across, by_logit * key_y + share * value_y


@triton.jit
@no_type_check
def _compare(
    asked, pulled, key, value, left, top, right, low, height, width, live,
    key_x, key_y, value_x, value_y, index,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    SAMPLES: tl.constexpr, AROUND: tl.constexpr, SHARED: tl.constexpr, REAL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """A sampled key, its product with the query, the value's with the gradient, and their slopes.

    The slopes become one column more of the tiles.
    """
    columns = tl.arange(0, SAMPLES)
    one, two, three, four = gather(
        key, left, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL
    )
    sampled = blend(one, two, three, four, right, low, 1.0)
    logit, across, down = probe(asked, one, two, three, four, right, low, height, width, AROUND)
    key_x = put(key_x, columns, index, across)
    key_y = put(key_y, columns, index, down)
    if not SHARED:
        one, two, three, four = gather(
            value, left, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE, REAL
        )
    product, across, down = probe(
        pulled, one, two, three, four, right, low, height, width, AROUND
    )
    value_x = put(value_x, columns, index, across)
    value_y = put(value_y, columns, index, down)
    return sampled, logit, product, key_x, key_y, value_x, value_y


@triton.jit
@no_type_check
def _scatter_walk(
    asked, pulled, share, by_logit, by_key, by_value, scale, levels, around, where,
    row, head, live,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, SAMPLES: tl.constexpr, AROUND: tl.constexpr,
    OWN: tl.constexpr, SHARED: tl.constexpr, REAL: tl.constexpr, WIDE: tl.constexpr,
    ORDERED: tl.constexpr,
):
    """Add every sample's share to the gradients of keys and values."""
    for level in range(LEVELS):
        height, width, start = extent(levels, level, WIDE)
        here = start * (HEADS * WIDTH)
        for point in range(POINTS):
            left, top, right, low = locate(
                where, around, row, head, live, level, point, height, width,
                HEADS, LEVELS, POINTS, AROUND, OWN, REAL,
            )
            index = level * POINTS + point
            for_value = pulled * take(share, tl.arange(0, SAMPLES), index)[:, None]
            for_key = asked * take(by_logit, tl.arange(0, SAMPLES), index)[:, None]
            if SHARED:
                for_value += for_key
            else:
                scatter(
                    by_key + here, for_key, left, top, right, low, 1.0, height, width, live,
                    scale, HEADS, WIDTH, CHANNELS, LANE, WIDE, ORDERED,
                )
            scatter(
                by_value + here, for_value, left, top, right, low, 1.0, height, width, live,
                scale, HEADS, WIDTH, CHANNELS, LANE, WIDE, ORDERED,
            )
