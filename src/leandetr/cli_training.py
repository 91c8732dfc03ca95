"""Verbs around training runs; `cli` lists them."""

from pathlib import Path
from typing import Annotated

import typer


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder with runs in it, or further down.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw the curves of all runs into this PNG.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> None:
    """Compare training runs: what they reached, and in which settings they differ."""
    from leandetr.files import refuse_existing
    from leandetr.training.runs import draw, find_runs, table

    if picture is not None:
        refuse_existing([picture], overwrite=overwrite)
    found, complaints = find_runs(folder)
    if found:
        typer.echo(table(found))
    if picture is not None and found:
        draw(found, picture)
        typer.echo(f"\ncurves: {picture}")
    for complaint in complaints:
        typer.echo(f"left out: {complaint}", err=True)
