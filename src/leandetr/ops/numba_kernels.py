"""The sampling operators in numba, for machines without the built library.

An operator works on one head of one image, so that callers spread heads over threads. Arrays are
flat, of one floating type, and hold what csrc/abi.h says; `sizes` are queries, heads, points and
head width, `rows` are where the head's rows of key and value begin and how far apart they are.
Compiled on first use, some seconds each; then numba keeps it on disk, and
looks at this file only to see whether it is still right: so nothing compiled stands elsewhere.

A sample's four corners are numbered upper left, upper right, lower left, lower right. A corner
outside its map is not read at all, so that Inf and NaN there do no harm.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numba  # pyright: ignore[reportMissingImports]
import numpy as np

ALL_INSIDE = 0b1111
POSITIVE = (1 << 48) - 1
"""Tells the compiler that an index is not below zero; numba would count such from the end."""


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code, without what tests wrap around it; never -ffast-math.

    Numba counts references to the arrays of every call, so a call has work for a whole query.
    Where it finds no folder to keep code in, as in a read-only container, each process compiles.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
    plain = inspect.unwrap(function)
    try:
        return numba.njit(plain, cache=True, **options)
    except RuntimeError:
        return numba.njit(plain, **options)


@compiled
def split(place, side):
    """Pixel to the left of a place in (0,1), and how far beyond it; NaN and Inf give NaN."""
    given = place * side - 0.5
    pixel = given if given > -2 else -2.0
    pixel = pixel if pixel < side + 1 else side + 1.0
    corner = np.floor(pixel)
    beyond = pixel - corner if abs(given) < np.inf else np.nan  # isfinite: x - x, which is 0 here
    return np.int64(corner), beyond


@compiled
def place_samples(where, first, sides, points, cells, between, shares):
    """Fill what follows from the locations of one query and head.

    cells: token of the first corner, width of the map, bits of corners inside, height of the map;
    between: how far beyond the first corner, in x and y; shares: what each corner adds.
    """
    start = 0
    for level in range(len(sides) // 2):
        high, wide = sides[2 * level], sides[2 * level + 1]
        for s in range(level * points, (level + 1) * points):
            left, fx = split(where[first + 2 * s], wide)
            top, fy = split(where[first + 2 * s + 1], high)
            across = (0 <= left < wide) * 0b0101 | (-1 <= left < wide - 1) * 0b1010
            down = (0 <= top < high) * 0b0011 | (-1 <= top < high - 1) * 0b1100
            cells[s, 0], cells[s, 1] = start + top * wide + left, wide
            cells[s, 2], cells[s, 3] = across & down, high
            between[s, 0], between[s, 1] = fx, fy
            shares[s, 0], shares[s, 1] = (1 - fx) * (1 - fy), fx * (1 - fy)
            shares[s, 2], shares[s, 3] = (1 - fx) * fy, fx * fy
        start += high * wide


@compiled
def row_of(token, wide, corner, first, stride):
    """Where the row of a corner begins."""
    return (first + (token + corner % 2 + corner // 2 * wide) * stride) & POSITIVE


@compiled
def gather(rows, first, stride, cells, shares, weights, own, to, at, step, width):
    """Adds each sample, times its weight, to `width` numbers; samples go `step` numbers apart."""
    width &= POSITIVE
    for s in range(len(cells)):
        token, wide, inside, weight = cells[s, 0], cells[s, 1], cells[s, 2], weights[own + s]
        here = (at + s * step) & POSITIVE
        if inside == ALL_INSIDE:
            a, b = row_of(token, wide, 0, first, stride), row_of(token, wide, 1, first, stride)
            c, d = row_of(token, wide, 2, first, stride), row_of(token, wide, 3, first, stride)
            wa, wb = weight * shares[s, 0], weight * shares[s, 1]
            wc, wd = weight * shares[s, 2], weight * shares[s, 3]
            for i in range(width):
                upper = wa * rows[a + i] + wb * rows[b + i]
                to[here + i] += upper + (wc * rows[c + i] + wd * rows[d + i])
            continue
        for corner in range(4):
            share = weight * shares[s, corner]
            if inside >> corner & 1:
                row = row_of(token, wide, corner, first, stride)
                for i in range(width):
                    to[here + i] += share * rows[row + i]
            elif np.isnan(share):
                for i in range(width):
                    to[here + i] = share


@compiled
def dots(rows, first, stride, cells, vector, at, width, found):
    """Products of a vector and the row of each corner of each sample."""
    at, width = at & POSITIVE, width & POSITIVE
    for s in range(len(cells)):
        token, wide, inside = cells[s, 0], cells[s, 1], cells[s, 2]
        for corner in range(4):
            total = found.dtype.type(0)
            if inside >> corner & 1:
                row = row_of(token, wide, corner, first, stride)
                for i in range(width):
                    total += vector[at + i] * rows[row + i]
            found[s, corner] = total


@compiled
def spread(rows, first, stride, cells, shares, weights, own, vector, at, width):
    """Adds a vector, times the sample's weight, to the row of each corner by its share."""
    at, width = at & POSITIVE, width & POSITIVE
    for s in range(len(cells)):
        token, wide, inside, weight = cells[s, 0], cells[s, 1], cells[s, 2], weights[own + s]
        for corner in range(4):
            if inside >> corner & 1:
                row = row_of(token, wide, corner, first, stride)
                share = weight * shares[s, corner]
                for i in range(width):
                    rows[row + i] += share * vector[at + i]


@compiled
def blend(shares, found, to, first):
    """What the corners of each sample say together."""
    for s in range(len(found)):
        upper = shares[s, 0] * found[s, 0] + shares[s, 1] * found[s, 1]
        to[first + s] = upper + (shares[s, 2] * found[s, 2] + shares[s, 3] * found[s, 3])


@compiled
def write_slopes(cells, between, found, weights, own, to):
    """Gradients of the samples' locations, given the pull at each corner."""
    for s in range(len(cells)):
        a, b, c, d = found[s, 0], found[s, 1], found[s, 2], found[s, 3]
        fx, fy, weight = between[s, 0], between[s, 1], weights[s]
        to[2 * (own + s)] = weight * cells[s, 1] * ((b - a) + fy * ((d - c) - (b - a)))
        to[2 * (own + s) + 1] = weight * cells[s, 3] * ((c - a) + fx * ((d - b) - (c - a)))


@compiled
def softmax(logits):
    """In place: shares that add up to one."""
    top, total = logits.max(), logits.dtype.type(0)
    for s in range(len(logits)):
        logits[s] = np.exp(logits[s] - top)
        total += logits[s]
    for s in range(len(logits)):
        logits[s] /= total


@compiled
def pull_logits(shares, pulls):
    """The gradient of the logits, given shares of one and the pull at each; in place of it."""
    mean = pulls.dtype.type(0)
    for s in range(len(pulls)):
        mean += shares[s] * pulls[s]
    for s in range(len(pulls)):
        pulls[s] = shares[s] * (pulls[s] - mean)


@compiled
def scratch(samples, like):
    """Cells, how far between them, shares and products of the samples of a query."""
    return (
        np.empty((samples, 4), np.int64),
        np.empty((samples, 2), like.dtype),
        np.empty((samples, 4), like.dtype),
        np.empty((samples, 4), like.dtype),
    )


@compiled
def deform_attn(image, head, rows, sizes, sides, value, where, weights, output):
    """The sum of samples, each times its weight."""
    (queries, heads, points, width), (first, stride) = sizes, rows
    count = len(sides) // 2 * points
    cells, between, shares, _ = scratch(count, value)
    for q in range(queries):
        asked = (image * queries + q) * heads + head
        at, own = asked * width, asked * count
        place_samples(where, own * 2, sides, points, cells, between, shares)
        output[at : at + width] = 0
        gather(value, first, stride, cells, shares, weights, own, output, at, 0, width)


@compiled
def deform_attn_backward(
    image, head, rows, sizes, sides, value, where, weights, grad, to_value, to_where, to_weights
):
    """Its gradients; that of the value starts as zeros."""
    (queries, heads, points, width), (first, stride) = sizes, rows
    count = len(sides) // 2 * points
    cells, between, shares, found = scratch(count, value)
    for q in range(queries):
        asked = (image * queries + q) * heads + head
        at, own = asked * width, asked * count
        place_samples(where, own * 2, sides, points, cells, between, shares)
        dots(value, first, stride, cells, grad, at, width, found)
        blend(shares, found, to_weights, own)
        write_slopes(cells, between, found, weights[own : own + count], own, to_where)
        spread(to_value, first, stride, cells, shares, weights, own, grad, at, width)


@compiled
def key_aware_attn(image, head, rows, sizes, sides, query, key, value, shared, where, output):
    """The sum of sampled values, each as much as its key fits; pass the value as its own key."""
    (queries, heads, points, width), (first, stride) = sizes, rows
    count = len(sides) // 2 * points
    cells, between, shares, _ = scratch(count, value)
    scale = value.dtype.type(1 / np.sqrt(width))
    logits, ones = np.empty(count, value.dtype), np.ones(count, value.dtype)
    mixed = np.empty(count * width, value.dtype)
    for q in range(queries):
        asked = (image * queries + q) * heads + head
        at = asked * width & POSITIVE
        place_samples(where, asked * count * 2, sides, points, cells, between, shares)
        mixed[:] = 0
        gather(key, first, stride, cells, shares, ones, 0, mixed, 0, width, width)
        for s in range(count):
            total, row = value.dtype.type(0), s * width & POSITIVE
            for i in range(width & POSITIVE):
                total += query[at + i] * mixed[row + i]
            logits[s] = total * scale
        softmax(logits)
        output[at : at + width] = 0
        if shared:
            for s in range(count):
                row = s * width & POSITIVE
                for i in range(width & POSITIVE):
                    output[at + i] += logits[s] * mixed[row + i]
        else:
            gather(value, first, stride, cells, shares, logits, 0, output, at, 0, width)


@compiled
def key_aware_attn_backward(
    image, head, rows, sizes, sides, query, key, value, where, grad, grads, to_where
):
    """Its gradients; those of query, key and value start as zeros, and may be one array."""
    (queries, heads, points, width), (first, stride) = sizes, rows
    to_query, to_key, to_value = grads
    count = len(sides) // 2 * points
    cells, between, shares, found = scratch(count, value)
    fits, logits, pulls = (
        np.empty_like(found),
        np.empty(count, value.dtype),
        np.empty(count, value.dtype),
    )
    ones, scale = np.ones(count, value.dtype), value.dtype.type(1 / np.sqrt(width))
    for q in range(queries):
        asked = (image * queries + q) * heads + head
        at, own = asked * width, asked * count
        place_samples(where, own * 2, sides, points, cells, between, shares)
        dots(key, first, stride, cells, query, at, width, fits)
        dots(value, first, stride, cells, grad, at, width, found)
        fits *= scale
        blend(shares, fits, logits, 0)
        blend(shares, found, pulls, 0)
        softmax(logits)
        pull_logits(logits, pulls)
        for s in range(count):
            for corner in range(4):
                found[s, corner] = logits[s] * found[s, corner] + pulls[s] * fits[s, corner]
        write_slopes(cells, between, found, ones, own, to_where)
        pulls *= scale
        gather(key, first, stride, cells, shares, pulls, 0, to_query, at, 0, width)
        spread(to_key, first, stride, cells, shares, pulls, 0, query, at, width)
        spread(to_value, first, stride, cells, shares, logits, 0, grad, at, width)
