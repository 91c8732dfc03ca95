"""Verbs that hold models against each other: yours on your data, and those of the papers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from leandetr.evaluation.compare import Comparison
    from leandetr.evaluation.tables import CountedTable, Progress

Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(help="Model folders, runs, shipped models, hf:owner/name, or recipes."),
    ],
    data: Annotated[Path, typer.Option(help="Folder with annotations/ and images/.")],
    split: Annotated[str, typer.Option(help="Which split to score on.")] = "val",
    out: Annotated[Path | None, typer.Option(help="Also write tables and the picture.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Images before the first that counts.")] = 2,
    device: Device = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="Optimise the models first.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> None:
    """Hold accuracy against multiply-adds, time and memory, for several models on your data.

    One image at a time, models taking turns. A model that cannot be used is told at the end.
    """
    import sys

    from leandetr.evaluation.compare import compare as run
    from leandetr.evaluation.compare_files import OUTPUTS, write
    from leandetr.files import refuse_existing

    if out is not None:
        refuse_existing([out / name for name in OUTPUTS], overwrite=overwrite)
    done = run(
        models,
        data,
        split=split,
        limit=limit,
        device=device,
        fast=fast,
        warmup=warmup,
        progress=sys.stderr.isatty(),
    )
    _show(done)
    if out is not None and done.models:
        write(done, out, overwrite=overwrite)
        typer.echo(f"written to {out}")
    if done.failed:
        raise typer.Exit(1 if done.models else 2)


def tables(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tables such as lite-4; all of them without a name.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times each model is run.")] = 3,
    time: Annotated[bool, typer.Option("--time/--no-time", help="Run the models.")] = True,
    device: Device = "auto",
    write: Annotated[
        Path | None, typer.Option(help="Markdown page whose marked part is replaced.")
    ] = None,
) -> None:
    """Rebuild the efficiency tables of the papers: published, counted alike, one way for all.

    Counting takes about two minutes, running all models some more; --no-time only counts.
    """
    from leandetr.evaluation import tables_text
    from leandetr.evaluation.tables import COMMON_SIZE, count_tables, presets_of
    from leandetr.evaluation.tables_time import forward_times, measured_on
    from leandetr.files import make_room

    if write is not None:
        tables_text.around_marked(write)
        make_room([write])
    with _working() as progress:
        counted = count_tables(names or (), progress)
        times: dict[str, float] = {}
        if time:
            times = forward_times(
                presets_of(counted), COMMON_SIZE, rounds=rounds, device=device, progress=progress
            )
    machine = measured_on(device, rounds) if time else ""
    for table in counted:
        _print_table(table, times)
    if machine:
        typer.echo(f"times: {machine}")
    if write is not None:
        tables_text.replace_marked(write, tables_text.markdown(counted, times, machine))
        typer.echo(f"written to {write}")


def _show(done: "Comparison") -> None:
    """The table of a comparison, and its notes."""
    from leandetr.evaluation import compare_text

    if done.models:
        typer.echo(compare_text.heading(done))
        wide_console().print(compare_text.table(done))
    for note in compare_text.notes(done):
        typer.echo(note)


def _print_table(counted: "CountedTable", times: dict[str, float]) -> None:
    from rich.table import Table
    from rich.text import Text

    from leandetr.evaluation.tables_text import cells, notes, titles

    drawn = Table(title=counted.printed.title, title_justify="left", header_style="bold")
    first, *others = titles(counted, times)
    drawn.add_column(first, overflow="fold")
    for title in others:
        drawn.add_column(title, justify="right")
    for row in counted.rows:
        drawn.add_row(*(Text(cell.strip("*")) for cell in cells(counted, row, times)))
    console = wide_console()
    console.print(drawn)
    for note in notes(counted):
        typer.echo(f"- {note}")
    typer.echo("")


@contextmanager
def _working() -> "Iterator[Progress]":
    """A line on a terminal that says which model is at work."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("counting") as status:
        yield status.update


def wide_console() -> "Console":
    """The terminal; into a file or a pipe, lines of any length."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)
