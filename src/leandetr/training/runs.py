"""Runs side by side: what they reached, what they cost, and in which settings they differ."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leandetr.errors import LeanDetrError, MissingExtra, TrainingError
from leandetr.recipes.codec import load_yaml, to_dict
from leandetr.training.about import RECIPE, RUN, read_about
from leandetr.training.record import METRICS, Row, read_rows

ALIKE = ("name",)
"""Settings that say nothing."""


@dataclass(frozen=True)
class Run:
    """One run as its folder tells it; `recipe` is flat, `path: value`."""

    name: str
    rows: tuple[Row, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Row | None:
        """The epoch of the best validation."""
        scored = [row for row in self.rows if not math.isnan(row.ap)]
        return max(scored, key=lambda row: row.ap, default=None)


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """The runs in and below a folder, best first, and a sentence for each that cannot be read.

    Raises `TrainingError` if there is none at all.
    """
    runs, complaints = [], []
    for path in sorted(root.rglob(METRICS)):
        try:
            runs.append(_read(path.parent, root))
        except (LeanDetrError, OSError, ValueError) as error:
            complaints.append(f"{path.parent}: {error}")
    if not runs and not complaints:
        raise TrainingError(
            f"{root}: expected runs, folders with {METRICS}, here or further down; found none; "
            "leandetr train --out makes one"
        )
    return sorted(runs, key=lambda run: -(run.best.ap if run.best else -1.0)), complaints


def _read(folder: Path, root: Path) -> Run:
    recipe, about = folder / RECIPE, folder / RUN
    return Run(
        name=str(folder.relative_to(root)) if folder != root else folder.resolve().name,
        rows=tuple(read_rows(folder / METRICS)),
        recipe=flat(to_dict(load_yaml(recipe.read_text(encoding="utf-8"))))
        if recipe.exists()
        else {},
        about=read_about(folder) if about.exists() else {},
    )


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    if not isinstance(tree, dict):
        return {path: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{path}.{key}" if path else str(key))
    return found


def settings_that_differ(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings in which the runs differ, each with its value in every run."""
    paths = {path: None for run in runs for path in run.recipe if path not in ALIKE}
    found = {path: [run.recipe.get(path) for run in runs] for path in paths}
    return {path: values for path, values in found.items() if any(v != values[0] for v in values)}


COLUMNS: dict[str, Callable[[Run, Row], str]] = {
    "AP": lambda run, best: _hundredth(best.ap),
    "AP50": lambda run, best: _hundredth(best.ap50),
    "AP75": lambda run, best: _hundredth(best.ap75),
    "best epoch": lambda run, best: str(best.epoch),
}


def table(runs: Sequence[Run]) -> str:
    """A line a run, best first, and below it the settings in which they differ."""
    import io

    from rich.console import Console
    from rich.table import Table

    results = Table(box=None, pad_edge=False)
    for name in ("run", *COLUMNS, "epochs", "minutes", "images", "commit"):
        results.add_column(name, justify="left" if name in ("run", "commit") else "right")
    for run in runs:
        last = run.rows[-1] if run.rows else None
        cells = [tell(run, run.best) if run.best else "" for tell in COLUMNS.values()]
        cells += [str(last.epoch), f"{last.minutes:.0f}"] if last else ["0", ""]
        data, sessions = run.about.get("data"), run.about.get("sessions")
        cells.append(str(data[0]["images"]) if data else "")
        cells.append(str(sessions[-1].get("commit") or "")[:10] if sessions else "")
        results.add_row(run.name, *cells)
    console = Console(file=io.StringIO(), width=200)
    console.print(results)
    if differing := settings_that_differ(runs):
        console.print()
        console.print(_settings(runs, differing))
    return console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]


def _settings(runs: Sequence[Run], differing: dict[str, list[Any]]) -> Any:
    from rich.table import Table

    settings = Table("setting", *(run.name for run in runs), box=None, pad_edge=False)
    for path, values in differing.items():
        settings.add_row(path, *("" if value is None else str(value) for value in values))
    return settings


def _hundredth(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw loss and AP of all runs over their epochs. Raises `MissingExtra` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("a picture of runs", "matplotlib", "train") from error
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in runs:
        epochs = [row.epoch for row in run.rows]
        (line,) = left.plot(epochs, [row.loss for row in run.rows], label=run.name)
        scored = [row for row in run.rows if not math.isnan(row.ap)]
        right.plot(
            [row.epoch for row in scored],
            [100 * row.ap for row in scored],
            color=line.get_color(),
            marker="." if len(scored) < 30 else "",
        )
        if run.best is not None:
            right.plot(run.best.epoch, 100 * run.best.ap, "o", color=line.get_color(), mfc="white")
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.set(title="validation AP (best circled)", xlabel="epoch", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(len(runs), 4), frameon=False)
    figure.savefig(path, dpi=120)
