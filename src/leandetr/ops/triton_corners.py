"""What the GPU kernels share on the device: where a sample falls, its four corners, its gradients.

A program answers BLOCK queries of one head of one image. A tile of BLOCK x CHANNELS values is held
in registers, a row of channels across neighbouring lanes, so that a corner of a sample is one
16-byte load a lane: at 32 channels in single precision a row is one 128-byte line. What belongs
to a query alone (its location, its corners, its weights) is computed once for the lanes of a row.
Programs are numbered queries first, then heads, then images: what runs together reads one head of
one image, a few megabytes, which stay in the second cache however large the batch is.

Coordinates are clamped before they become whole numbers; a corner outside is never read.

Names in capitals are known when a kernel is compiled: HEADS; WIDTH channels of a head; CHANNELS,
the next power of two; LANE values side by side in a lane at most; LEVELS; POINTS; SAMPLES, at least
LEVELS x POINTS; AROUND, 0 for ready locations or the width of the references; OWN levels of
offsets; REAL, the precision of the arithmetic; WIDE for offsets of 64 bits; ORDERED for sums in
whole numbers.
"""
# pyright: reportMissingImports=false

from typing import no_type_check

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.0e38)
"""Below every logit, and finite: the difference of two infinities would be NaN."""

# fmt: off


@triton.jit
@no_type_check
def program(queries, HEADS: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Image, head and queries of this program, and which of the queries there are."""
    number = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK)
    query = (number % blocks) * BLOCK + tl.arange(0, BLOCK)
    head = (number // blocks) % HEADS
    image = number // (blocks * HEADS)
    if WIDE:
        image = image.to(tl.int64)
    return image, head, image * queries + query, query < queries


@triton.jit
@no_type_check
def row_of_channels(
    row, head, live, HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    LANE: tl.constexpr,
):
    """Offsets of every query's channels, and which of them there are."""
    channels = tl.arange(0, CHANNELS)[None, :]
    at = ((row * HEADS + head) * WIDTH)[:, None] + channels
    return tl.max_contiguous(at, (1, LANE)), live[:, None] & (channels < WIDTH)


@triton.jit
@no_type_check
def extent(levels, level, WIDE: tl.constexpr):
    """Height, width and first token of a level."""
    start = tl.load(levels + 3 * level + 2)
    if WIDE:
        start = start.to(tl.int64)
    return tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), start


@triton.jit
@no_type_check
def locate(
    where, around, row, head, live, level, point, height, width,
    HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
    AROUND: tl.constexpr, OWN: tl.constexpr, REAL: tl.constexpr,
):
    """Column and row of the pixel before a sample of every query, and the shares of the ones after.

    `where` has locations, or offsets around the points or boxes of `around`.
    """
    own = level if OWN > 1 else 0
    spot = (((row * HEADS + head) * OWN + own) * POINTS + point) * 2
    x = tl.load(where + spot, mask=live, other=0.0).to(REAL)
    y = tl.load(where + spot + 1, mask=live, other=0.0).to(REAL)
    if AROUND == 0:
        x = x * width
        y = y * height
    else:
        centre = around + (row * LEVELS + level) * AROUND
        if AROUND == 4:
            x *= tl.load(centre + 2, mask=live, other=0.0).to(REAL) * (0.5 / POINTS) * width
            y *= tl.load(centre + 3, mask=live, other=0.0).to(REAL) * (0.5 / POINTS) * height
        x += tl.load(centre, mask=live, other=0.0).to(REAL) * width
        y += tl.load(centre + 1, mask=live, other=0.0).to(REAL) * height
    left, right = split(x - 0.5, width)
    top, low = split(y - 0.5, height)
    return left, top, right, low


@triton.jit
@no_type_check
def split(x, length):
    """The pixel before x, and the share of the pixel after it; nothing is within reach of -2."""
    x = tl.minimum(tl.maximum(x, -2.0), length + 1.0)
    before = tl.floor(x)
    return before.to(tl.int32), x - before


@triton.jit
@no_type_check
def shares(right, low, weight):
    """How much of a weighed sample each of its four corners is."""
    high = weight * (1.0 - low)
    low = weight * low
    return (1.0 - right) * high, right * high, (1.0 - right) * low, right * low


@triton.jit
@no_type_check
def corner(
    x, y, height, width, live,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Offsets of a corner's channels from the level's first token, and which of them there are."""
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & live
    token = y * width + x
    if WIDE:
        token = token.to(tl.int64)
    channels = tl.arange(0, CHANNELS)[None, :]
    there = inside[:, None]
    if WIDTH != CHANNELS:
        there = there & (channels < WIDTH)
    at = token[:, None] * (HEADS * WIDTH) + channels
    return tl.max_contiguous(at, (1, LANE)), there


@triton.jit
@no_type_check
def gather(
    plane, left, top, height, width, live,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    WIDE: tl.constexpr, REAL: tl.constexpr,
):
    """The four corners of a sample of every query, zero where they lie outside."""
    at, there = corner(left, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    one = tl.load(plane + at, mask=there, other=0.0)
    at, there = corner(left + 1, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    two = tl.load(plane + at, mask=there, other=0.0)
    at, there = corner(left, top + 1, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    three = tl.load(plane + at, mask=there, other=0.0)
    at, there = corner(left + 1, top + 1, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    four = tl.load(plane + at, mask=there, other=0.0)
    return one.to(REAL), two.to(REAL), three.to(REAL), four.to(REAL)


@triton.jit
@no_type_check
def blend(one, two, three, four, right, low, weight):
    """The weighed sample between four corners."""
    first, second, third, fourth = shares(right, low, weight)
    upper = one * first[:, None] + two * second[:, None]
    return upper + (three * third[:, None] + four * fourth[:, None])


@triton.jit
@no_type_check
def probe(vector, one, two, three, four, right, low, height, width, AROUND: tl.constexpr):
    """A vector's product with a sample, and how it changes as the sample moves right and down.

    By location; by pixel around points. Four sums over the channels yield all three.
    """
    one = tl.sum(vector * one, axis=1)
    two = tl.sum(vector * two, axis=1)
    three = tl.sum(vector * three, axis=1)
    four = tl.sum(vector * four, axis=1)
    first, second, third, fourth = shares(right, low, 1.0)
    product = one * first + two * second + three * third + four * fourth
    across = (two - one) * (1.0 - low) + (four - three) * low
    down = (three - one) * (1.0 - right) + (four - two) * right
    if AROUND != 2:
        across *= width
        down *= height
    return product, across, down


@triton.jit
@no_type_check
def add(plane, at, there, what, factor, ORDERED: tl.constexpr):
    """Add to the gradient of a corner. ORDERED: in whole numbers, whose sum knows no order."""
    if ORDERED:
        whole = (what.to(tl.float64) * factor).to(tl.int64)
        tl.atomic_add(plane + at, whole, mask=there, sem="relaxed")
    else:
        tl.atomic_add(plane + at, what, mask=there, sem="relaxed")


@triton.jit
@no_type_check
def scatter(
    plane, what, left, top, right, low, weight, height, width, live, factor,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, LANE: tl.constexpr,
    WIDE: tl.constexpr, ORDERED: tl.constexpr,
):
    """Give each of the four corners its share of the gradient of a weighed sample."""
    first, second, third, fourth = shares(right, low, weight)
    at, there = corner(left, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    add(plane, at, there, what * first[:, None], factor, ORDERED)
    at, there = corner(left + 1, top, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    add(plane, at, there, what * second[:, None], factor, ORDERED)
    at, there = corner(left, top + 1, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    add(plane, at, there, what * third[:, None], factor, ORDERED)
    at, there = corner(left + 1, top + 1, height, width, live, HEADS, WIDTH, CHANNELS, LANE, WIDE)
    add(plane, at, there, what * fourth[:, None], factor, ORDERED)


@triton.jit
@no_type_check
def online(peak, mass, logit):
    """One logit more in a softmax: its peak and mass, the logit's power, how the others fade."""
    higher = tl.maximum(peak, logit)
    fade = tl.exp(peak - higher)
    power = tl.exp(logit - higher)
    return higher, mass * fade + power, power, fade


@triton.jit
@no_type_check
def put(tile, columns, index, found):
    """The tile with one column filled in."""
    return tl.where(columns[None, :] == index, found[:, None], tile)


@triton.jit
@no_type_check
def take(tile, columns, index):
    """One column of the tile, a number a query."""
    return tl.sum(tl.where(columns[None, :] == index, tile, 0.0), axis=1)


@triton.jit
@no_type_check
def every_sample(
    row, head, live, HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Offsets of all samples of every query, and which of them there are."""
    columns = tl.arange(0, SAMPLES)[None, :]
    at = ((row * HEADS + head) * (LEVELS * POINTS))[:, None] + columns
    return at, live[:, None] & (columns < LEVELS * POINTS)


@triton.jit
@no_type_check
def store_places(by_place, at, across, down, there):
    """Both coordinates' gradients of all samples of every query."""
    tl.store(by_place + 2 * at, across, mask=there)
    tl.store(by_place + 2 * at + 1, down, mask=there)
