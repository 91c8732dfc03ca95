"""All presets at a glance: what each costs, and what its paper states."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from leandetr.recipes.assemble import PRESETS, list_models
from leandetr.recipes.published import PUBLISHED, Published

COSTS = Path(__file__).with_name("costs.json")
"""Written by `tools/write_costs.py`: counting takes seconds a preset, reading it takes none."""


@dataclass(frozen=True)
class Line:
    """One preset. `parameters` and `gmacs` were counted here, `published` was not measured here."""

    name: str
    about: str
    parameters: int
    gmacs: float
    published: Published | None


def overview(pattern: str = "*") -> list[Line]:
    """The presets that match a shell pattern, by name."""
    return [_line(name) for name in list_models(pattern)]


def table(lines: list[Line]) -> str:
    """The lines as text, a row a preset, and how to read them."""
    width = max((len(line.name) for line in lines), default=0)
    rows = [f"{'':<{width}}  {'params':>7}  {'GMACs':>6}  {'AP':>4}*  {'epochs':>6}  about"]
    for line in lines:
        stated = ("-", "-")
        if line.published is not None:
            stated = (f"{line.published.ap:.1f}", str(line.published.epochs))
        rows.append(
            f"{line.name:<{width}}  {line.parameters / 1e6:>6.1f}M  {line.gmacs:>6.1f}  "
            f"{stated[0]:>5}  {stated[1]:>6}  {line.about}"
        )
    return "\n".join(rows) + "\n" + NOTE


NOTE = """
Parameters and multiply-adds are counted here, for one picture of 4:3 at the preset's own short
side (800 x 1066 for all but the nano sizes). * AP is COCO val2017 AP after so many epochs as
published by the paper or its repository, not measured here."""


def _line(name: str) -> Line:
    counted = _costs()[name]
    about = (PRESETS[name].__doc__ or "").strip().split("\n")[0].split(" Published:")[0]
    return Line(name, about, counted["parameters"], counted["gmacs"], PUBLISHED.get(name))


@cache
def _costs() -> dict[str, dict]:
    return json.loads(COSTS.read_text(encoding="utf-8"))
