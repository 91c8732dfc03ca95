"""How long the parts of a detector work, how fast the machine multiplies, what a process holds."""

import contextlib
import ctypes
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leandetr.evaluation.memory import peak_memory
from leandetr.evaluation.parts import OUTSIDE, Part, watched
from leandetr.models.detector import Detector
from leandetr.types import Images

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells what a process holds, and forgets the most it held."""
SQUARE = {"cpu": 2048, "cuda": 8192}
"""Sides of the matrices whose product is the machine's best; smaller elsewhere."""


@dataclass(frozen=True)
class Spread:
    """Seconds: half of the passes took less than `median`, a tenth less than `p10`."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(seconds: list[float]) -> "Spread":
        """The spread of at least one measurement, linear between two of them."""
        if len(seconds) == 1:
            return Spread(seconds[0], seconds[0], seconds[0])
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        return Spread(statistics.median(seconds), tenths[0], tenths[-1])


class Clock:
    """Notes when which part goes to work, on the device that works."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[Part, Any]] = []

    def start(self) -> None:
        """Begin a pass; what no part does is `OUTSIDE`."""
        self._marks = []
        if self._cuda:
            torch.cuda.synchronize()
        self.change(OUTSIDE)

    def change(self, part: Part) -> None:
        """Another part goes to work."""
        self._marks.append((part, self._now()))

    def stop(self) -> dict[Part, float]:
        """End the pass: seconds of each part, which add up to the whole."""
        self.change(OUTSIDE)
        if self._cuda:
            torch.cuda.synchronize()
        spent: dict[Part, float] = {}
        for (part, began), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            passed = began.elapsed_time(ended) / 1000 if self._cuda else ended - began
            spent[part] = spent.get(part, 0.0) + passed
        return spent

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def multiply_rate(device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
    """A measurement: billions of multiply-adds a second of one large square matrix product."""
    side = SQUARE.get(device.type, 1024)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    clock = Clock(device)

    def measure() -> float:
        clock.start()
        torch.mm(left, right)
        return side**3 / 1e9 / sum(clock.stop().values())

    measure()
    return measure


@dataclass(frozen=True)
class Measured:
    """Seconds of each part in each pass, and the machine's rate measured right after that pass.

    `peak` and `held` are bytes: see `peak_memory` and `process_memory`.
    """

    passes: tuple[dict[Part, float], ...]
    rates: tuple[float, ...]
    peak: int
    held: int | None

    def seconds(self, part: Part | None = None) -> list[float]:
        """How long a part took in each pass; None is the whole."""
        if part is None:
            return [sum(one.values()) for one in self.passes]
        return [one.get(part, 0.0) for one in self.passes]

    def share(self, gmacs: float, part: Part | None = None) -> float | None:
        """The rate at which `gmacs` were done beside the machine's, median of all passes.

        None where nothing was to be done.
        """
        if gmacs == 0:
            return None
        pairs = zip(self.seconds(part), self.rates, strict=True)
        return statistics.median([gmacs / (seconds * rate) for seconds, rate in pairs])


def measure(
    model: Detector, images: Images, *, passes: int, warm_up: int, dtype: torch.dtype
) -> Measured:
    """Time `passes` forward passes with post-processing, after some that do not count.

    Passes and large matrix products, these in `dtype`, take turns, so that whoever else is busy on
    the machine slows both alike. Memory is measured in passes of its own, before.
    """
    device = images.pixels.device
    sizes = [(images.pixels.shape[-2], images.pixels.shape[-1])] * len(images.pixels)

    def detect() -> None:
        model.detect(images, sizes)

    detect()
    peak = peak_memory(detect, device)
    held = process_memory(detect) if device.type == "cpu" else None
    clock = Clock(device)
    rate = multiply_rate(device, dtype)
    spent, rates = [], []
    with watched(model, clock.change):
        for index in range(warm_up + passes):
            clock.start()
            detect()
            seconds = clock.stop()
            if index >= warm_up:
                spent.append(seconds)
                rates.append(rate())
    return Measured(tuple(spent), tuple(rates), peak, held)


def process_memory(work: Callable[[], Any]) -> int | None:
    """Bytes that the process holds at most during `work`, on top of what it held before.

    Scratch space inside operators is part of it. None where it is not told: outside Linux.
    """
    if not _forget_peak():
        return None
    held = _kilobytes("VmRSS")
    work()
    return max(_kilobytes("VmHWM") - held, 0) * 1024


def _forget_peak() -> bool:
    """Hand back what is free, and forget the most that was held; False where that cannot be."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # what another C library keeps,
        ctypes.CDLL(None).malloc_trim(0)  # it keeps before and after
    try:
        CLEAR.write_text("5", encoding="ascii")
        return _kilobytes("VmHWM") > 0
    except (OSError, LookupError):
        return False


def _kilobytes(key: str) -> int:
    """A line of the process's status. Raises `LookupError` where there is none."""
    found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    if found is None:
        raise LookupError(key)
    return int(found[1])
