"""The papers' tables as Markdown: what is printed, what we count, and one column for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from leandetr.errors import OutputExists
from leandetr.evaluation.tables import COMMON_SIZE, CountedRow, CountedTable, common_of
from leandetr.files import write_text

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

Times = Mapping[str, float]
"""Milliseconds by preset; empty where nothing was timed."""


def markdown(tables: Sequence[CountedTable], times: Times, machine: str) -> str:
    """All tables, one below the other; `machine` says how `times` were measured."""
    parts = [f"Times: {machine}."] if times else []
    return "\n\n".join([*parts, *(_table(one, times) for one in tables)])


def titles(table: CountedTable, times: Times) -> list[str]:
    """The columns of a table: those that something is printed in."""
    size = "x".join(map(str, COMMON_SIZE))
    encoders = ["encoder, published", "ours", "ours, no sampling"] if _has_encoders(table) else []
    fps = [f"published fps ({table.printed.fps_on})"] if table.printed.fps_on else []
    timed = ["ms here"] if times else []
    total = ["model", "published", "ours, counted alike", "difference"]
    return [*total, *encoders, *fps, f"ours, one way for all ({size})", *timed]


def cells(table: CountedTable, row: CountedRow, times: Times) -> list[str]:
    """One row as text, in the order of `titles`."""
    printed = row.printed
    name = printed.label if printed.preset is None else f"{printed.label} (`{printed.preset}`)"
    encoders = [
        _number(printed.encoder, ".4g"),
        _number(row.encoder, ".1f"),
        _number(row.bare_encoder, ".1f"),
    ]
    return [
        name,
        _number(printed.gmacs, ".4g"),
        _number(row.gmacs, ".1f"),
        _difference(row),
        *(encoders if _has_encoders(table) else []),
        *([_number(printed.fps, ".3g")] if table.printed.fps_on else []),
        _number(row.common, ".1f"),
        *([_number(times.get(printed.preset or ""), ".0f")] if times else []),
    ]


def around_marked(page: Path) -> str:
    """The page as it is, with its markers; only these where there is none yet.

    Raises `OutputExists` for a file that has no markers.
    """
    before = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    if BEGIN not in before or END not in before:
        raise OutputExists(
            f"{page}: expected a page with the lines {BEGIN} and {END}, whose content is "
            "replaced, and found none; add them, or choose another file with --write"
        )
    return before


def replace_marked(page: Path, text: str) -> None:
    """Put `text` between the markers of a page, or make a page of it.

    Raises `OutputExists` for a file that has no markers.
    """
    head, _, rest = around_marked(page).partition(BEGIN)
    tail = rest.partition(END)[2]
    write_text(page, f"{head}{BEGIN}\n{text}\n{END}{tail}")


def _table(table: CountedTable, times: Times) -> str:
    columns = titles(table, times)
    lines = [f"## {table.printed.title}", "", f"Published: {table.printed.source}."]
    lines += ["", f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += [f"| {' | '.join(cells(table, row, times))} |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(table))])


def notes(table: CountedTable) -> list[str]:
    """What a reader of the table has to know."""
    common = common_of([table])
    saving = "?"
    if {"focus-detr-r50", "dino-r50"} <= set(common):
        saving = f"{100 * (1 - common['focus-detr-r50'] / common['dino-r50']):.0f}"
    return [note.replace("{focus_saving}", saving) for note in table.printed.notes]


def _has_encoders(table: CountedTable) -> bool:
    return any(row.printed.encoder is not None for row in table.rows)


def _difference(row: CountedRow) -> str:
    """In percent; bold where the way of counting is known and agrees."""
    if row.difference is None:
        return "-"
    text = f"{100 * row.difference:+.1f} %"
    return f"**{text}**" if row.printed.agrees else text


def _number(value: float | int | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)
