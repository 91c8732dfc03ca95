"""How near we come to the official numbers: every comparison of a golden test is written down.

While a test has a golden case open, each `torch.testing.assert_close` and `pytest.approx` that
holds is measured. `tools/write_parity.py` makes docs/parity.md out of what one run measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import golden_data


@dataclass
class Nearness:
    """Of all numbers of a case: how many were compared, and the one nearest to its tolerance."""

    numbers: int = 0
    difference: float = 0.0
    allowed: float = 0.0

    def add(self, numbers: int, difference: float, allowed: float) -> None:
        """One comparison: `allowed` is the tolerance where the difference uses most of it."""
        self.numbers += numbers
        if not self.allowed or difference * self.allowed > self.difference * allowed:
            self.difference, self.allowed = difference, allowed

    def merge(self, other: "Nearness") -> None:
        """The comparisons of another test of the same case."""
        self.add(other.numbers, other.difference, other.allowed)


measured: dict[str, Nearness] = {}
"""By case, what the running test has compared so far."""


def as_json(nearness: dict[str, Nearness]) -> dict[str, dict[str, float]]:
    """What a worker hands over, and what the report is made of."""
    return {name: asdict(one) for name, one in sorted(nearness.items())}


def merge(into: dict[str, Nearness], more: dict[str, dict[str, float]]) -> None:
    """Add what `as_json` gave elsewhere."""
    for name, one in more.items():
        into.setdefault(name, Nearness()).merge(Nearness(**one))


def note(numbers: int, difference: float, allowed: float) -> None:
    """Write a comparison down for the case that the running test opened first."""
    if golden_data.opened:
        name = golden_data.opened[0]
        measured.setdefault(name, Nearness()).add(numbers, difference, allowed)


def _tensors(got: Any, expected: Any, atol: float | None, rtol: float | None) -> None:
    if not isinstance(expected, Tensor) or not isinstance(got, Tensor) or not expected.numel():
        return
    wide = expected.detach().to(torch.float64)
    gap = (got.detach().to(torch.float64) - wide).abs().nan_to_num(0.0, posinf=0.0)
    allowed = (atol or 0.0) + (rtol or 0.0) * wide.abs().nan_to_num(0.0, posinf=0.0)
    worst = (gap / allowed.clamp(min=1e-30)).argmax()
    note(expected.numel(), float(gap.flatten()[worst]), float(allowed.flatten()[worst]))


def _watched_close(original: Callable[..., None]) -> Callable[..., None]:
    def assert_close(actual: Any, expected: Any, **how: Any) -> None:
        original(actual, expected, **how)
        if golden_data.opened and how.get("atol") is not None:
            _tensors(actual, expected, how["atol"], how.get("rtol"))

    return assert_close


class _Watched:
    """What `pytest.approx` gives for numbers, and keeps a record of what they were equal to."""

    def __init__(self, inner: Any, expected: Sequence[float], tolerances: Sequence[float]) -> None:
        self.inner, self.expected, self.tolerances = inner, expected, tolerances

    def __eq__(self, other: object) -> bool:
        same = self.inner == other
        if same:
            got = other if isinstance(other, list | tuple) else [other]
            for one, wanted, allowed in zip(got, self.expected, self.tolerances, strict=True):
                if not math.isnan(wanted):
                    note(1, abs(float(one) - wanted), float(allowed))
        return same

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self.inner)


def _watched_approx(original: Callable[..., Any]) -> Callable[..., Any]:
    def approx(expected: Any, *args: Any, **how: Any) -> Any:
        inner = original(expected, *args, **how)
        numbers = expected if isinstance(expected, list | tuple) else [expected]
        if not golden_data.opened or not all(isinstance(one, int | float) for one in numbers):
            return inner
        tolerances = [original(one, *args, **how).tolerance for one in numbers]
        return _Watched(inner, [float(one) for one in numbers], tolerances)

    return approx


def watch() -> None:
    """Start to measure, once a process."""
    torch.testing.assert_close = _watched_close(torch.testing.assert_close)
    pytest.approx = _watched_approx(pytest.approx)
