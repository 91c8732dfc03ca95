"""The host's side of the GPU kernels: how a launch is made, and what becomes of its gradients."""
# pyright: reportMissingImports=false

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from leandetr.types import Shapes

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether Triton runs its kernels in Python, on the tensors of any device: for tests."""

TRIAL = ((64, 1),)
"""What the interpreter runs: it cannot measure."""

FORWARD = TRIAL if INTERPRETED else ((128, 1), (512, 4), (1024, 4), (2048, 8))
"""(values a program holds, its warps) to choose from: 4 or 8 values a lane, one or two loads.
Small programs fill the GPU with a decoder's few queries; large ones share corners in the first
cache where neighbouring queries look at the same place, as in an encoder."""

BACKWARD = TRIAL if INTERPRETED else ((128, 1), (256, 2), (512, 4), (1024, 8))
"""The same for backward kernels: 4 values a lane, what one atomic adds; more would take registers
from the warps that hide its latency."""

SMALL = 2**31
"""From here on an offset takes 64 bits."""

ROOM = 2.0**62
"""What sums of whole numbers of 64 bits may reach."""


KIND = ("crowd", "CHANNELS", "LEVELS", "POINTS", "HEADS", "AROUND", "SHARED", "ORDERED")
"""Arguments that make two launches differ in kind, where a kernel has them."""


def tuned(choices: tuple[tuple[int, int], ...], *, zeroed: tuple[str, ...] = ()) -> Any:
    """A decorator that times the choices once for each kind of launch and keeps the fastest.

    `zeroed` names what the kernel adds to, to be cleared between trials.
    """

    def decorate(kernel: Any) -> Any:
        return triton.autotune(
            configs=[triton.Config({"WORK": work}, num_warps=warps) for work, warps in choices],
            key=[name for name in KIND if name in kernel.arg_names],  # Triton 3.9 knows no others
            reset_to_zero=list(zeroed),
        )(kernel)

    return decorate


@functools.lru_cache(maxsize=256)
def table(shapes: Shapes, device: torch.device) -> Tensor:
    """Height, width and first token of each level, where the kernels can read them."""
    rows, start = [], 0
    for height, width in shapes:
        rows.append((height, width, start))
        start += height * width
    with torch.inference_mode(mode=False):
        return torch.tensor(rows, dtype=torch.int32, device=device).reshape(-1, 3)


def power(number: int) -> int:
    """The next power of two: the sides of a tile are such."""
    return int(triton.next_power_of_2(max(number, 1)))


def lane(value: Tensor, beside: Tensor) -> int:
    """Values side by side in a lane: as many as make 16 bytes of the wider of both tensors."""
    most = 16 // max(value.element_size(), beside.element_size())
    return min(most, power(value.shape[-1]))


def sizes(shapes: Shapes, around: Tensor | None, where: Tensor, width: int) -> dict[str, int]:
    """What both operators' kernels know of their sizes when they are compiled.

    A tile with a column a sample has as many columns as there are channels, at least: laid out
    like the channels in registers, it needs no exchange between the lanes.
    """
    samples = power(len(shapes) * where.shape[4])
    return {
        "LEVELS": len(shapes),
        "POINTS": where.shape[4],
        "AROUND": 0 if around is None else around.shape[-1],
        "OWN": where.shape[3],
        "SAMPLES": max(samples, power(width)),
    }


def straight(tensor: Tensor | None) -> Tensor | None:
    """The tensor as kernels read it: contiguous."""
    return None if tensor is None else tensor.contiguous()


def launch(
    kernel: Any, value: Tensor, tensors: tuple, *, queries: int, exact: torch.dtype, given: dict
) -> None:
    """Start as many programs as there are blocks of queries, heads and images.

    They read and write `tensors`, compute in `exact`, and know `given` when they are compiled.
    """
    images, tokens, heads, width = value.shape
    channels = power(width)

    def grid(choice: dict) -> tuple[int]:
        return (images * heads * int(triton.cdiv(queries, max(choice["WORK"] // channels, 1))),)

    fixed = {
        "HEADS": heads,
        "WIDTH": width,
        "CHANNELS": channels,
        "WIDE": max(t.numel() for t in tensors if t is not None) >= SMALL,
        "REAL": tl.float64 if exact == torch.float64 else tl.float32,
        **given,
    }
    crowd = max(images * queries * heads, 1).bit_length() // 4  # chosen anew for 16 times as many
    if value.device.type != "cuda":
        kernel[grid](*tensors, queries, tokens, crowd, **fixed)
        return
    with torch.cuda.device(value.device):
        kernel[grid](*tensors, queries, tokens, crowd, **fixed)


def real(*tensors: Tensor | None) -> torch.dtype:
    """What is computed in: double precision where any input has it, else single."""
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


@dataclass(frozen=True)
class Sums:
    """The gradient of a map while programs add to it; `factor` makes whole numbers of reals."""

    buffer: Tensor
    factor: Tensor | None = None

    def result(self, like: Tensor) -> Tensor:
        """The sums as a gradient of `like`."""
        if self.factor is None:
            return self.buffer.to(like.dtype)
        return (self.buffer / self.factor).to(like.dtype)


def sums(like: Tensor, dtype: torch.dtype, terms: int, largest: Callable[[], Tensor]) -> Sums:
    """Zeros to add at most `terms` numbers to, none beyond `largest()` in size.

    Under `torch.use_deterministic_algorithms` they are whole numbers, whose sum is the same in
    any order, as fine as 62 bits allow. A bound that is not finite makes every sum NaN.
    """
    shape, device = like.shape, like.device
    if not torch.are_deterministic_algorithms_enabled():
        return Sums(torch.zeros(shape, dtype=dtype, device=device))
    bound = largest().double().clamp_min(1e-200) * terms
    factor = torch.where(bound.isfinite(), ROOM / bound, torch.nan)
    return Sums(torch.zeros(shape, dtype=torch.int64, device=device), factor.reshape(1))


def from_places(
    by_place: Float[Tensor, "N Q M L P 2"],
    shapes: Shapes,
    reference: Float[Tensor, "N Q L R"],
    offsets: Float[Tensor, "N Q M own P 2"],
    moves: bool,
) -> tuple[Tensor, Float[Tensor, "N Q M own P 2"]]:
    """Gradients of reference (empty unless it `moves`) and offsets, given those of the places.

    By pixel around points, by location in boxes: what the kernels yield. `own` is 1 where the
    levels share their offsets.
    """
    around_points = reference.shape[-1] == 2
    half = 0.5 / offsets.shape[4]
    by_reference = reference.new_empty(0)
    if moves:
        by_reference = by_place.sum(dim=(2, 4))  # N Q L 2
        if around_points:
            by_reference = by_reference * table(shapes, by_place.device)[:, :2].flip(1)
        else:
            by_box = (by_place * offsets).sum(dim=(2, 4)) * half
            by_reference = torch.cat((by_reference, by_box), dim=-1)
    by_offset = by_place
    if not around_points:
        by_offset = by_place * (reference[:, :, None, :, None, 2:] * half)
    if offsets.shape[3] == 1:
        by_offset = by_offset.sum(dim=3, keepdim=True)
    return by_reference.to(reference.dtype), by_offset.to(offsets.dtype)
