"""What a run writes down: a row of metrics.csv an epoch, curves.png, and what trackers keep."""

import csv
import io
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from leandetr.files import whole, write_text
from leandetr.training.criterion import Losses
from leandetr.training.trackers import Trackers, open_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from leandetr.evaluation.coco import CocoScores

log = logging.getLogger(__name__)

METRICS = "metrics.csv"


class Means:
    """Running means of every loss term, kept on the device until asked for."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, losses: Losses) -> None:
        """Count one batch."""
        names = ("total", *losses.names)
        values = torch.cat((losses.total.detach()[None], losses.values))
        self._sums[names] = self._sums.get(names, torch.zeros_like(values)) + values
        self._counts[names] = self._counts.get(names, 0) + 1

    def all(self) -> dict[str, float]:
        """Mean of each term over the batches that had it."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, values in self._sums.items():
            for name, value in zip(names, values.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        return {name: value / counts[name] for name, value in sums.items()}


def mean_over_processes(accelerator: "Accelerator", terms: dict[str, float]) -> dict[str, float]:
    """The mean of each term over the processes that have it; all of them must ask."""
    if accelerator.num_processes == 1:
        return terms
    from accelerate.utils import gather_object

    everywhere: dict[str, list[float]] = {}
    for name, value in (pair for one in gather_object([terms]) for pair in one.items()):
        everywhere.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in everywhere.items()}


@dataclass(frozen=True)
class Row:
    """One line of metrics.csv. Losses are means over the epoch, of the last layer and unweighted.

    Scores are empty where there is no validation; `minutes` are of training and validation so far.
    """

    epoch: int
    step: int
    minutes: float
    lr: float
    skipped: int
    loss: float
    labels: float
    boxes: float
    giou: float
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def build_row(
    terms: dict[str, float],
    scores: "CocoScores | None",
    *,
    epoch: int,
    step: int,
    seconds: float,
    lr: float,
    skipped: int,
) -> Row:
    """A row from the means of the terms and the scores of an epoch; NaN where there are none."""
    last = {name.split("/")[0]: value for name, value in terms.items() if "/main/" in name}
    losses = {name: last.get(name, math.nan) for name in ("labels", "boxes", "giou")}
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    ap = {name: math.nan if scores is None else getattr(scores, name) for name in names}
    return Row(
        epoch=epoch,
        step=step,
        minutes=seconds / 60,
        lr=lr,
        skipped=skipped,
        loss=terms.get("total", math.nan),
        **losses,
        **ap,
    )


class Record:
    """The files of a run in `folder`; rows of epochs from `start` on are written anew.

    `trackers` get every number, too; without any given, TensorBoard does.
    """

    def __init__(self, folder: Path, start: int = 0, *, trackers: Trackers | None = None) -> None:
        self.folder = folder
        self.path = folder / METRICS
        self.rows: list[Row] = [row for row in read_rows(self.path) if row.epoch <= start]
        self._trackers = trackers or open_trackers((), folder, {})
        self._can_draw = True

    def add(self, row: Row, terms: dict[str, float]) -> None:
        """Write the row, draw the curves, and pass everything to the trackers."""
        self.rows.append(row)
        _write(self.path, self.rows)
        if self._can_draw:
            self._can_draw = _draw(self.rows, self.folder / "curves.png")
        self._trackers.log(dict(_numbers(row, terms)), row.step)

    def close(self) -> None:
        """End what trackers write."""
        self._trackers.close()


def _numbers(row: Row, terms: dict[str, float]) -> Iterable[tuple[str, float]]:
    for name, value in terms.items():
        yield f"loss/{name}", value
    for name in ("lr", "skipped", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"):
        if not math.isnan(value := getattr(row, name)):
            yield f"validation/{name}" if name.startswith("ap") else name, value


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.csv; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> Row:
    values = {f.name: float(line[f.name] or "nan") for f in fields(Row)}
    whole = {name: int(values.pop(name)) for name in ("epoch", "step", "skipped")}
    return Row(**cast(Any, whole | values))


def _write(path: Path, rows: Sequence[Row]) -> None:
    names = [f.name for f in fields(Row)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_plain(getattr(row, name)) for name in names] for row in rows)
    write_text(path, text.getvalue())


def _plain(value: int | float) -> str | int:
    if isinstance(value, int):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw loss and AP over epochs; False if matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("no curves.png without matplotlib; type: pip install 'leandetr[train]'")
        return False
    figure = Figure(figsize=(9, 3.5))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.15, top=0.9)
    left, right = figure.subplots(1, 2)
    left.plot([row.epoch for row in rows], [row.loss for row in rows], marker=".")
    left.set(title="training loss", xlabel="epoch")
    scored = [row for row in rows if not math.isnan(row.ap)]
    for name in ("ap", "ap50"):
        values = [getattr(row, name) for row in scored]
        right.plot([row.epoch for row in scored], values, marker=".", label=name.upper())
    right.set(title="validation", xlabel="epoch", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with whole(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return True
