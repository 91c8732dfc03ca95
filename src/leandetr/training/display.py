"""What a run shows while it runs: a bar in a terminal, plain lines elsewhere, a log file always."""

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0
"""Least time between two plain lines."""


@dataclass(frozen=True)
class Moment:
    """Where a run is: `epoch` of `epochs` and `batch` of `batches`, both from 1.

    `most` is how many seconds it may still take, if it was given a time.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    ap: float | None  # of the last validation, in 0..1
    most: float = math.inf

    @property
    def done(self) -> int:
        """Steps behind."""
        return (self.epoch - 1) * self.batches + self.batch

    def text(self, left: float) -> str:
        """One line; `left` is the time left in seconds."""
        ap = "" if self.ap is None else f"  AP {100 * self.ap:.1f}"
        return (
            f"epoch {self.epoch}/{self.epochs}  {self.batch}/{self.batches}  "
            f"loss {self.loss:.3f}{ap}  {duration(left)} left"
        )


@runtime_checkable
class Display(Protocol):
    """Shows every step; opened with `show`."""

    def step(self, moment: Moment) -> None:
        """Called after every step."""
        ...


class Clock:
    """Estimates the time left from the pace since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: int | None = None

    def left(self, moment: Moment) -> float:
        """Seconds left at the pace so far, validations counted in, or the time that is given."""
        if self._first is None:
            self._first = moment.done - 1
        pace = (time.monotonic() - self._started) / (moment.done - self._first)
        return min(pace * (moment.epochs * moment.batches - moment.done), moment.most)


class Lines:
    """A line in the log now and then."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._next = time.monotonic() + QUIET_SECONDS

    def step(self, moment: Moment) -> None:
        """Write a line if the last one is long enough ago."""
        left = self._clock.left(moment)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + QUIET_SECONDS
            log.info(moment.text(left))


class Bar:
    """A bar at the bottom of the terminal."""

    def __init__(self, progress: Any) -> None:
        self._clock = Clock()
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def step(self, moment: Moment) -> None:
        """Move the bar."""
        self._progress.update(
            self._task,
            description=moment.text(self._clock.left(moment)),
            completed=moment.done,
            total=moment.epochs * moment.batches,
        )


@contextmanager
def show(folder: Path, *, main: bool = True) -> Iterator[Display]:
    """A display for a run in `folder`, and the messages of leandetr in it and in train.log.

    Processes other than the `main` one say nothing.
    """
    logger = logging.getLogger("leandetr")
    level = logger.level
    if not main:
        yield Lines()
        return
    with _front() as (display, handler):
        file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.setLevel(logging.INFO)
        for one in (handler, file):
            logger.addHandler(one)
        try:
            yield display
        finally:
            for one in (handler, file):
                logger.removeHandler(one)
                one.close()
            logger.setLevel(level)


@contextmanager
def _front() -> Iterator[tuple[Display, logging.Handler]]:
    """The bar and its messages on a terminal, plain lines on anything else."""
    if not sys.stderr.isatty():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        yield Lines(), handler
        return
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress), RichHandler(console=console, show_path=False, show_level=False)


def duration(seconds: float) -> str:
    """`1 h 05 min`, `12 min` or `40 s`."""
    if math.isnan(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
