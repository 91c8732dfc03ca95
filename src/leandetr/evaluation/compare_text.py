"""A comparison as text: a table for the terminal, Markdown, CSV, JSON."""

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from leandetr.evaluation.compare import Compared, Comparison

if TYPE_CHECKING:
    from rich.table import Table

SCORES = ("ap", "ap50", "ap_small", "ap_medium", "ap_large")
HEADINGS = ("AP", "AP50", "AP small", "medium", "large")
COSTS = ("GMACs", "ms", "p10 to p90", "MiB", "params")
UNTRAINED = "* random weights: a recipe has no others, so its accuracy says nothing and is left out"
FRONT = "a dot: no other model is as accurate for fewer multiply-adds, or in less time"


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row of text a model: name, scores in percent, costs."""
    fronts = {cost: comparison.front(cost) for cost in ("gmacs", "ms")}

    def dotted(model: Compared, cost: str, text: str) -> str:
        return f"• {text}" if model in fronts[cost] else text

    return [
        (
            model.name + ("" if model.scores else " *"),
            *(_percent(getattr(model.scores, name, math.nan)) for name in SCORES),
            dotted(model, "gmacs", _three(model.gmacs)),
            dotted(model, "ms", _three(model.ms)),
            f"{_three(model.ms_low)} to {_three(model.ms_high)}",
            _three(model.mebibytes),
            f"{model.parameters / 1e6:.1f}M",
        )
        for model in comparison.models
    ]


def heading(comparison: Comparison) -> str:
    """What the models were compared on, and where."""
    images = f"{comparison.images} image{'s' * (comparison.images != 1)}"
    return (
        f"{comparison.data}: {images}, {comparison.boxes} boxes, one image at a time, "
        f"models taking turns; {comparison.machine}"
    )


def table(comparison: Comparison) -> "Table":
    """The models as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold", pad_edge=False)
    drawn.add_column("model", overflow="fold")
    for title in (*HEADINGS, *COSTS):
        drawn.add_column(title, justify="right", no_wrap=True)
    for row in rows(comparison):
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def notes(comparison: Comparison) -> list[str]:
    """What a reader of the table has to know, and the models that are not in it."""
    lines = [FRONT] if comparison.front("ms") else []
    lines += [UNTRAINED] if any(model.scores is None for model in comparison.models) else []
    return lines + [f"left out: {one.name}: {one.reason}" for one in comparison.failed]


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with its notes."""
    titles = ("model", *HEADINGS, *COSTS)
    lines = [heading(comparison), "", f"| {' | '.join(titles)} |"]
    lines.append("|---|" + "---:|" * (len(titles) - 1))
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows(comparison))
    lines += [f"| {' | '.join(row)} |" for row in escaped]
    lines += [f"\n{_sentence(note)}" for note in notes(comparison)]
    return "\n".join(lines) + "\n"


def _sentence(note: str) -> str:
    """A note as a paragraph of Markdown, where a star at the front would make a list of it."""
    whole = note[0].upper() + note[1:] + ("" if note.endswith("?") else ".")
    return f"\\{whole}" if whole.startswith("*") else whole


def as_csv(comparison: Comparison) -> str:
    """A row a model with all digits; scores in 0..1, empty where there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [_plain(model) for model in comparison.models]
    writer.writerow(plain[0] if plain else ["name"])
    writer.writerows(row.values() for row in plain)
    return text.getvalue()


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Ready for JSON; `on_front` names the costs for which a model is on the front."""
    fronts = {cost: comparison.front(cost) for cost in ("gmacs", "ms", "mebibytes")}
    return {
        "data": comparison.data,
        "images": comparison.images,
        "boxes": comparison.boxes,
        "machine": comparison.machine,
        "models": [
            _plain(model) | {"on_front": [cost for cost, front in fronts.items() if model in front]}
            for model in comparison.models
        ],
        "failed": [{"name": one.name, "reason": one.reason} for one in comparison.failed],
    }


def _plain(model: Compared) -> dict[str, Any]:
    scores = {} if model.scores is None else model.scores.to_dict()
    return {
        "name": model.name,
        "trained": model.scores is not None,
        **{name: scores.get(name) for name in SCORES},
        "gmacs": round(model.gmacs, 4),
        "ms": round(model.ms, 3),
        "ms_p10": round(model.ms_low, 3),
        "ms_p90": round(model.ms_high, 3),
        "mebibytes": round(model.mebibytes, 2),
        "parameters": model.parameters,
    }


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _three(value: float) -> str:
    """Three digits, or all those before the point."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(digits, 3)}f}"
