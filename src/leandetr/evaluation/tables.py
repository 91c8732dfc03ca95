"""The efficiency tables of the papers, counted again.

    counted = count_tables(["lite-4", "dino-1"])
    counted[0].rows[0].difference                # -0.0002: as the paper counts, and in parts of one

What papers print is in `recipes/published_costs.py`. Every row is counted twice: as its paper
counts, to see that the model is the paper's; and in one way for all tables, to compare at last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from leandetr.errors import RecipeError
from leandetr.evaluation.conventions import CONVENTIONS, Convention
from leandetr.evaluation.counting import Counts, Tally, count
from leandetr.recipes.assemble import recipe
from leandetr.recipes.published_costs import PRINTED_TABLES, PrintedRow, PrintedTable
from leandetr.registry import did_you_mean

COMMON_SIZE = (800, 1066)
COMMON = Tally()
"""One way for all: convolutions, matrix products, attention and sampling, of what is computed."""

_DETREX = replace(CONVENTIONS["850x1040"].tally, sampling="none")
"""detectron2's counter as detrex uses it: compiled sampling is unseen (tools/analyze_model.py)."""

_LEAN = replace(CONVENTIONS["850x1040"].tally, unread=False)
"""fvcore, without what official code computes and nobody reads: Sparse DETR's sparse rows."""

WAYS: dict[str, Convention] = CONVENTIONS | {
    name: Convention(name, ((size, 1),), tally, about)
    for name, size, tally, about in (
        ("850x1040, no sampling", (850, 1040), _DETREX, "detrex, Focus-DETR"),
        ("800x1066, lean", (800, 1066), _LEAN, "Sparse DETR, the rows below 100 %"),
    )
}
"""How the papers count, by the names that `published_costs` uses."""

Progress = Callable[[str], None]
"""Told the preset that is worked on."""


@dataclass(frozen=True)
class CountedRow:
    """A printed row beside our counts, in billions; None where there is no preset.

    `gmacs` and `encoder` are counted as the paper does, `bare_encoder` without sampling, `common`
    in the way that all tables share (see `COMMON`).
    """

    printed: PrintedRow
    gmacs: float | None = None
    encoder: float | None = None
    bare_encoder: float | None = None
    common: float | None = None

    @property
    def difference(self) -> float | None:
        """How far ours is from the print, as a part of it."""
        return None if self.gmacs is None else self.gmacs / self.printed.gmacs - 1


@dataclass(frozen=True)
class CountedTable:
    """A printed table and its rows, counted."""

    printed: PrintedTable
    rows: tuple[CountedRow, ...]


def choose_tables(keys: Sequence[str]) -> tuple[PrintedTable, ...]:
    """The tables called so, all for none. Raises `RecipeError` with the near names."""
    known = {table.key: table for table in PRINTED_TABLES}
    for key in keys:
        if key not in known:
            raise RecipeError(f"no table '{key}'; {did_you_mean(key, known)}")
    return tuple(known[key] for key in keys) or PRINTED_TABLES


def count_tables(keys: Sequence[str] = (), progress: Progress | None = None) -> list[CountedTable]:
    """Count every row of the tables called so, of all for none. Takes seconds a row."""
    seen: dict[tuple[str, tuple[int, int]], Counts] = {}

    def counts_of(preset: str, size: tuple[int, int]) -> Counts:
        if (preset, size) not in seen:
            if progress is not None:
                progress(preset)
            seen[preset, size] = count(recipe(preset), size)
        return seen[preset, size]

    return [
        CountedTable(table, tuple(_counted(row, table, counts_of) for row in table.rows))
        for table in choose_tables(keys)
    ]


def count_row(row: PrintedRow, table: PrintedTable) -> CountedRow:
    """Count one row of a table."""
    return _counted(row, table, lambda preset, size: count(recipe(preset), size))


def presets_of(tables: Sequence[CountedTable]) -> list[str]:
    """The presets in the tables, each once."""
    named = (row.printed.preset for table in tables for row in table.rows)
    return list(dict.fromkeys(preset for preset in named if preset is not None))


def common_of(tables: Sequence[CountedTable]) -> dict[str, float]:
    """The count in the common way, by preset."""
    rows = (row for table in tables for row in table.rows)
    return {r.printed.preset: r.common for r in rows if r.printed.preset and r.common is not None}


def _counted(
    row: PrintedRow, table: PrintedTable, counts_of: Callable[[str, tuple[int, int]], Counts]
) -> CountedRow:
    if row.preset is None:
        return CountedRow(row)
    way = WAYS[row.convention or table.convention]
    ((size, _),) = way.sizes
    counts = counts_of(row.preset, size)
    return CountedRow(
        row,
        gmacs=counts.gmacs(way.tally),
        encoder=counts.gmacs(way.tally, stage="encoder"),
        bare_encoder=counts.gmacs(replace(way.tally, sampling="none"), stage="encoder"),
        common=counts_of(row.preset, COMMON_SIZE).gmacs(COMMON),
    )
