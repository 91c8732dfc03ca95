"""Accuracy against cost for several models on one data set.

    done = compare(["runs/a", "runs/b", "dino-nano"], "data/cells", split="test")
    done.front("ms")                             # the models that no other one beats
    write(done, "compared")                      # in compare_files: tables and the picture

Every image goes through every model once, one after the other, and the same pass gives the boxes
that are scored and the times: accuracy and latency belong to the same model, in the same state.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leandetr.data.dataset import DetectionData, to_coco
from leandetr.errors import LeanDetrError
from leandetr.evaluation.coco import CocoScores, score
from leandetr.evaluation.contestant import Contestant, enter
from leandetr.evaluation.conventions import mean_counts
from leandetr.evaluation.evaluate import choose
from leandetr.evaluation.machine import describe, device_of
from leandetr.evaluation.turns import in_turn
from leandetr.models.detector import Detector
from leandetr.recipes.recipe import Recipe

COUNTED_SIZES = 8
"""Multiply-adds are averaged over so many of the image sizes that are most frequent."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """One model: what it costs for one image, and what it is worth.

    `gmacs` are billions of multiply-adds, averaged over the images as the model resizes them. `ms`
    is the median of milliseconds an image, a tenth of the images took less than `ms_low`, a tenth
    more than `ms_high`. `mebibytes` is the most memory that was in use beyond the weights, in the
    largest image. `scores` is None for random weights.
    """

    name: str
    parameters: int
    gmacs: float
    ms: float
    ms_low: float
    ms_high: float
    mebibytes: float
    scores: CocoScores | None


@dataclass(frozen=True)
class Failed:
    """A model that could not be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What came of it; `models` and `failed` in the order they were given."""

    data: str
    images: int
    boxes: int
    machine: str
    models: tuple[Compared, ...]
    failed: tuple[Failed, ...]

    def front(self, cost: str) -> tuple[Compared, ...]:
        """The models that are worth their `cost` (`gmacs`, `ms` or `mebibytes`), cheapest first.

        No other one has at least the same AP for less. Models without AP are left out.
        """
        scored = [m for m in self.models if m.scores is not None and m.scores.ap == m.scores.ap]
        front: list[Compared] = []
        for model in sorted(scored, key=lambda m: (getattr(m, cost), -_ap(m))):
            if not front or _ap(model) > _ap(front[-1]):
                front.append(model)
        return tuple(front)


def compare(
    models: Sequence[str],
    data: str | Path | DetectionData,
    *,
    split: str = "val",
    limit: int | None = None,
    device: str = "auto",
    fast: bool = False,
    warmup: int = 2,
    progress: bool = False,
) -> Comparison:
    """Score, time and count `models` (see `enter`) on a split of a data set.

    A model that cannot be used is in `failed`, the others go on. `limit` takes the first images
    only, `fast` optimises the models, `warmup` images go through every model before the first that
    counts. Raises `DataError` for data that cannot be used, and for images that cannot be read.
    """
    chosen = choose(data, split=split, limit=limit)
    place, failed = device_of(device), dict[str, str]()
    entered = _enter(models, partial(enter, data=chosen, device=place, fast=fast), failed)
    _take_turns(entered, min(warmup, len(chosen)), failed)
    for contestant in entered:
        contestant.forget()
    _take_turns(entered, len(chosen), failed, progress=progress)
    compared = _measure(entered, chosen, failed)
    return Comparison(
        data=chosen.name,
        images=len(chosen),
        boxes=chosen.boxes,
        machine=f"{'optimised models; ' if fast else ''}{describe(place)}",
        models=tuple(compared),
        failed=tuple(Failed(name, failed[name]) for name in models if name in failed),
    )


def mean_gmacs(model: Detector | Recipe, sizes: Sequence[tuple[int, int]]) -> float:
    """Billions of multiply-adds an image, averaged over the most frequent of `sizes`."""
    frequent = tuple(Counter(sizes).most_common(COUNTED_SIZES))
    return mean_counts(model, frequent).gmacs()


def _enter(
    names: Sequence[str], enter_one: Callable[[str], Contestant], failed: dict[str, str]
) -> list[Contestant]:
    """The models that can be used, each once."""
    entered = []
    for name in dict.fromkeys(names):
        try:
            entered.append(enter_one(name))
        except (LeanDetrError, OSError) as error:
            failed[name] = str(error)
    return entered


def _take_turns(
    contestants: list[Contestant], images: int, failed: dict[str, str], *, progress: bool = False
) -> None:
    """Every image through every model; one that breaks down is taken out of the list."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    steps = track(range(images), "comparing", console=console, disable=not progress, transient=True)
    for index in steps:
        for contestant in list(in_turn(contestants, index)):
            try:
                contestant.look(index)
            except (RuntimeError, ArithmeticError, MemoryError) as error:
                reason = " ".join(str(error).split())[:300]
                failed[contestant.name] = f"broke down in image {index + 1}: {reason}"
                contestants.remove(contestant)


def _measure(
    contestants: list[Contestant], data: DetectionData, failed: dict[str, str]
) -> list[Compared]:
    """What is known of each model in the end, but for those whose work nobody can count."""
    found = []
    for contestant in contestants:
        try:
            found.append(_measured(contestant, data))
        except LeanDetrError as error:
            failed[contestant.name] = str(error)
    return found


def _measured(contestant: Contestant, data: DetectionData) -> Compared:
    """What is known of a model after its last image."""
    found = contestant.found
    return Compared(
        name=contestant.name,
        parameters=contestant.parameters,
        gmacs=mean_gmacs(contestant.model.recipe, contestant.sizes()),
        ms=contestant.quantile(0.5),
        ms_low=contestant.quantile(0.1),
        ms_high=contestant.quantile(0.9),
        mebibytes=contestant.memory() / 2**20,
        scores=score(to_coco(data), found) if contestant.trained else None,
    )


def _ap(model: Compared) -> float:
    """AP in 0..1 of a model that has one."""
    assert model.scores is not None
    return model.scores.ap
