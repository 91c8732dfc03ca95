"""A small call of every operator: whether its numbers are right, and how long it takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leandetr.ops.backend import use_backend
from leandetr.ops.deform_attn import deform_attn
from leandetr.ops.deform_attn_at import deform_attn_at
from leandetr.ops.key_aware_attn import key_aware_attn
from leandetr.ops.key_aware_attn_at import key_aware_attn_at
from leandetr.types import Shapes

SHAPES: Shapes = ((40, 40), (20, 20), (10, 10), (5, 5))
QUERIES, HEADS, WIDTH, POINTS = 300, 8, 32, 4
ROUNDS = 5
TOLERANCE = 1e-4
"""Difference to the reference, over one and the largest number, from which numbers are wrong:
ten times what rounding in single precision makes."""

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Trial:
    """Forward and backward of one operator; times are the shortest of some, in milliseconds.

    `error` is why it did not run at all, and then the numbers are NaN.
    """

    operator: str
    device: str
    milliseconds: float
    reference_milliseconds: float
    difference: float
    error: str = ""

    @property
    def ratio(self) -> float:
        """How many times faster than the reference."""
        return self.reference_milliseconds / self.milliseconds

    @property
    def agrees(self) -> bool:
        """Whether the numbers are right; not a number is not."""
        return self.difference <= TOLERANCE


def try_operators(device: str = "cpu") -> list[Trial]:
    """All operators on a device, each against the reference in one run."""
    leaves = _inputs(device)
    return [_tried(name, device, call, leaves) for name, call in _calls(leaves).items()]


def _inputs(device: str) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in SHAPES)
    levels = len(SHAPES)
    drawn = {
        "value": torch.randn(1, tokens, HEADS, WIDTH, generator=random),
        "query": torch.randn(1, QUERIES, HEADS, WIDTH, generator=random),
        "reference": torch.rand(1, QUERIES, levels, 2, generator=random),
        "offsets": torch.randn(1, QUERIES, HEADS, levels, POINTS, 2, generator=random),
        "logits": torch.randn(1, QUERIES, HEADS, levels * POINTS, generator=random),
        "locations": torch.rand(1, QUERIES, HEADS, levels, POINTS, 2, generator=random),
        "weights": torch.rand(1, QUERIES, HEADS, levels, POINTS, generator=random) / POINTS,
    }
    return {name: tensor.to(device).requires_grad_() for name, tensor in drawn.items()}


def _calls(t: dict[str, Tensor]) -> dict[str, Call]:
    value, where = t["value"], (t["reference"], t["offsets"])
    return {
        "deform_attn": lambda: deform_attn(value, SHAPES, t["locations"], t["weights"]),
        "deform_attn_at": lambda: deform_attn_at(value, SHAPES, *where, t["logits"]),
        "key_aware_attn": lambda: key_aware_attn(t["query"], value, value, SHAPES, t["locations"]),
        "key_aware_attn_at": lambda: key_aware_attn_at(t["query"], None, value, SHAPES, *where),
    }


def _tried(name: str, device: str, call: Call, leaves: dict[str, Tensor]) -> Trial:
    """One operator; what breaks down is a finding, and the others are still tried."""
    try:
        return _try(name, device, call, leaves)
    except Exception as error:  # noqa: BLE001 - compilers and drivers raise what they like
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return Trial(name, device, math.nan, math.nan, math.nan, error=reason)


def _try(name: str, device: str, call: Call, leaves: dict[str, Tensor]) -> Trial:
    found, exact = _answers("auto", call, leaves), _answers("reference", call, leaves)
    seconds: dict[str, list[float]] = {"auto": [], "reference": []}
    for _ in range(ROUNDS):
        for backend, spans in seconds.items():
            began = time.perf_counter()
            _answers(backend, call, leaves)
            if device != "cpu":
                torch.cuda.synchronize()
            spans.append(time.perf_counter() - began)
    return Trial(
        operator=name,
        device=device,
        milliseconds=1000 * min(seconds["auto"]),
        reference_milliseconds=1000 * min(seconds["reference"]),
        difference=_difference(found, exact),
    )


def _difference(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest one, over one and the largest number; NaN where any number is."""
    pairs = zip(found, exact, strict=True)
    each = [(one - other).abs().max() / (1 + other.abs().max()) for one, other in pairs]
    return torch.stack(each).max().item()  # Python's max passes over a NaN


def _answers(backend: str, call: Call, leaves: dict[str, Tensor]) -> list[Tensor]:
    """Output, and the gradients of what the call read."""
    with torch.enable_grad(), use_backend(backend):
        output = call()
        grads = torch.autograd.grad(
            output, list(leaves.values()), torch.ones_like(output), allow_unused=True
        )
    return [output.detach(), *(grad for grad in grads if grad is not None)]
