"""Time, bandwidth and memory of the sampling operators on a GPU: kernels against the reference.

    python -m benchmarks.gpu                          # a minute or two, most of it compiling
    python -m benchmarks.gpu --write docs/benchmarks.md

Encoder: every token of an 800x1333 image asks. Decoder: 300 and 900 queries. `local` looks a few
cells around each token, as trained models do; `uniform` anywhere, the worst case. Bandwidth counts
the corners that are read (and, backward, added to), whichever cache they come from: what a kernel
needs if nothing is reused. A figure is the median of repeated calls between CUDA events.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.machine import describe
from benchmarks.page import put
from leandetr.ops import reference, triton_deform, triton_key_aware

SHAPES = ((100, 167), (50, 84), (25, 42), (13, 21))
HEADS, WIDTH, POINTS = 8, 32, 4
TOKENS = sum(height * width for height, width in SHAPES)
SPREAD = 4.0
"""Cells: the standard deviation of a local offset."""
WARM, ROUNDS = 5, 30


class Inputs(NamedTuple):
    """What both operators take, ready and raw."""

    value: Tensor
    key: Tensor
    query: Tensor
    reference: Tensor
    offsets: Tensor
    logits: Tensor
    locations: Tensor
    weights: Tensor


def draw(images: int, queries: int, pattern: str, dtype: torch.dtype) -> Inputs:
    """Random inputs on the GPU; places and logits stay in single precision."""
    levels = len(SHAPES)
    if queries == TOKENS:
        points = torch.cat([_centres(height, width) for height, width in SHAPES])
    else:
        points = torch.rand(queries, 2)
    points = points.expand(images, queries, 2)[:, :, None].expand(-1, -1, levels, -1)
    sides = torch.tensor([[width, height] for height, width in SHAPES], dtype=torch.float32)
    size = (images, queries, HEADS, levels, POINTS, 2)
    if pattern == "local":
        offsets = SPREAD * torch.randn(size)
    else:
        offsets = (torch.rand(size) - points[:, :, None, :, None]) * sides[:, None]
    logits = torch.randn(images, queries, HEADS, levels * POINTS)
    return Inputs(
        torch.randn(images, TOKENS, HEADS, WIDTH, dtype=dtype),
        torch.randn(images, TOKENS, HEADS, WIDTH, dtype=dtype),
        torch.randn(images, queries, HEADS, WIDTH, dtype=dtype),
        points.contiguous(),
        offsets,
        logits,
        points[:, :, None, :, None] + offsets / sides[:, None],
        logits.softmax(-1).unflatten(-1, (levels, POINTS)),
    )


def _centres(height: int, width: int) -> Tensor:
    """(x, y) of all cells, row by row."""
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return grid.flatten(0, 1).flip(-1)


class Work(NamedTuple):
    """One operator: the same call by kernel and by reference, forward and backward."""

    name: str
    gathers: int
    kernel: Callable[[Inputs], Tensor]
    kernel_backward: Callable[[Tensor, Inputs], object]
    reference: Callable[[Inputs], Tensor]
    reference_backward: Callable[[Tensor, Inputs], object]


def works() -> list[Work]:
    """The four operators; the fused ones are held against reference and arithmetic."""
    kernel, own = triton_key_aware, (triton_key_aware.forward, triton_key_aware.backward)
    return [
        Work(
            "deform_attn",
            1,
            lambda i: triton_deform.forward(i.value, SHAPES, i.locations, i.weights),
            lambda g, i: triton_deform.backward(g, i.value, SHAPES, i.locations, i.weights),
            lambda i: reference.deform_attn(i.value, SHAPES, i.locations, i.weights),
            lambda g, i: reference.deform_attn_backward(g, i.value, SHAPES, i.locations, i.weights),
        ),
        Work(
            "deform_attn_at",
            1,
            lambda i: triton_deform.forward_at(i.value, SHAPES, i.reference, i.offsets, i.logits),
            lambda g, i: triton_deform.backward_at(
                g, i.value, SHAPES, i.reference, i.offsets, i.logits
            ),
            lambda i: reference.deform_attn(i.value, SHAPES, places(i), shares(i)),
            lambda g, i: reference.deform_attn_backward(g, i.value, SHAPES, places(i), shares(i)),
        ),
        Work(
            "key_aware_attn, own key",
            2,
            lambda i: own[0](i.query, i.key, i.value, SHAPES, i.locations),
            lambda g, i: own[1](g, i.query, i.key, i.value, SHAPES, i.locations),
            lambda i: reference.key_aware_attn(i.query, i.key, i.value, SHAPES, i.locations),
            lambda g, i: reference.key_aware_attn_backward(
                g, i.query, i.key, i.value, SHAPES, i.locations
            ),
        ),
        Work(
            "key_aware_attn_at, shared key",
            1,
            lambda i: kernel.forward_at(i.query, None, i.value, SHAPES, i.reference, i.offsets),
            lambda g, i: kernel.backward_at(
                g, i.query, None, i.value, SHAPES, i.reference, i.offsets
            ),
            lambda i: reference.key_aware_attn(i.query, i.value, i.value, SHAPES, places(i)),
            lambda g, i: reference.key_aware_attn_backward(
                g, i.query, None, i.value, SHAPES, places(i)
            ),
        ),
    ]


def places(inputs: Inputs) -> Tensor:
    """The location arithmetic that fused kernels spare."""
    sides = torch.tensor([[w, h] for h, w in SHAPES], dtype=inputs.offsets.dtype)
    return inputs.reference[:, :, None, :, None] + inputs.offsets / sides[:, None]


def shares(inputs: Inputs) -> Tensor:
    """The softmax that fused kernels spare."""
    return inputs.logits.softmax(-1).unflatten(-1, (len(SHAPES), POINTS))


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call on the GPU, after some that do not count."""
    for _ in range(WARM):
        call()
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def extra_mebibytes(call: Callable[[], object]) -> float:
    """What a call takes above what was held before, at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 2**20


def row(work: Work, inputs: Inputs, where: str, dtype: torch.dtype) -> str:
    """A line of the table."""
    forward, slow = (
        functools.partial(work.kernel, inputs),
        functools.partial(work.reference, inputs),
    )
    answer = forward()
    torch.testing.assert_close(answer.float(), slow().float(), atol=5e-2, rtol=5e-2)
    both = functools.partial(work.kernel_backward, torch.randn_like(answer), inputs)
    slow_both = functools.partial(work.reference_backward, torch.randn_like(answer), inputs)
    ahead, behind = milliseconds(forward), milliseconds(both)
    slow_ahead, slow_behind = milliseconds(slow), milliseconds(slow_both)
    read = 4 * work.gathers * inputs.locations[..., 0].numel() * WIDTH
    speed = read * inputs.value.element_size() / ahead / 1e6
    added = (read * (inputs.value.element_size() + 4)) / behind / 1e6
    cells = [
        work.name, where, str(dtype).removeprefix("torch."),
        f"{ahead:.3f}", f"{slow_ahead / ahead:.1f}x", f"{speed:.0f}",
        f"{behind:.3f}", f"{slow_behind / behind:.1f}x", f"{added:.0f}",
        f"{(slow_ahead + slow_behind) / (ahead + behind):.1f}x",
        f"{extra_mebibytes(forward):.0f}", f"{extra_mebibytes(slow):.0f}",
        f"{extra_mebibytes(both):.0f}", f"{extra_mebibytes(slow_both):.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def chosen() -> str:
    """The size of program that each kernel took, by kind of launch."""
    kernels = {
        "deform_attn": triton_deform._forward,
        "deform_attn backward": triton_deform._backward,
        "key_aware_attn": triton_key_aware._forward,
        "key_aware_attn backward": triton_key_aware.add_gradients,
    }
    lines = []
    for name, kernel in kernels.items():
        picks = [f"{c.kwargs['WORK']}/{c.num_warps}" for c in kernel.cache.values()]
        lines.append(f"{name} {', '.join(sorted(set(picks)))}")
    return "Values/warps of a program, as chosen by timing: " + "; ".join(lines) + "."


def report(images: int) -> str:
    """Everything, as Markdown."""
    lines = [
        "| operator | queries, pattern | storage | forward ms | of reference | GB/s | backward ms "
        "| of reference | GB/s | both | forward MiB | reference | backward MiB | reference |",
        "|---|---|---|" + "---:|" * 11,
    ]
    plans = [(TOKENS, "local"), (TOKENS, "uniform"), (300, "local"), (900, "local")]
    with torch.inference_mode(), torch.device("cuda"):
        for dtype in (torch.float32, torch.bfloat16):
            for queries, pattern in plans:
                torch.manual_seed(0)
                inputs = draw(images, queries, pattern, dtype)
                lines += [row(w, inputs, f"{queries} {pattern}", dtype) for w in works()]
    return (
        f"Measured by `python -m benchmarks.gpu` on {describe()}; {images} image(s), {TOKENS} "
        f"tokens, {HEADS} heads of {WIDTH}, {len(SHAPES)} levels of {POINTS} points; median of "
        f"{ROUNDS} calls.\n\n" + "\n".join(lines) + f"\n\n{chosen()}"
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    text = report(options.images)
    print(text)
    if options.write:
        put(options.write, "gpu", text)


if __name__ == "__main__":
    main()
