"""The verb that tells where the parameters, multiply-adds and time of a model go."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leandetr.errors import RecipeError

if TYPE_CHECKING:
    from leandetr.evaluation.counting import Tally
    from leandetr.evaluation.profile import Profile


def profile(
    model: Annotated[
        str, typer.Argument(help="A recipe (see list), a YAML file, a model folder or a run.")
    ],
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Height and width of the network's input.")
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(help="Count as papers do: 850x1040, 800x1066, 800x1280, coco:FILE.json."),
    ] = None,
    sampling: Annotated[
        str | None, typer.Option(help="What of sampling counts: all, grid, key-aware or none.")
    ] = None,
    norms: Annotated[
        bool | None, typer.Option("--norms/--no-norms", help="Count layer and group norms.")
    ] = None,
    elementwise: Annotated[
        bool | None,
        typer.Option("--elementwise/--no-elementwise", help="Count work on single elements."),
    ] = None,
    unread: Annotated[
        bool | None,
        typer.Option("--unread/--no-unread", help="Count what only official code computes."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16 (optimised).")] = "float32",
    fast: Annotated[bool, typer.Option("--fast", help="Time the optimised model.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    passes: Annotated[int, typer.Option(min=1, help="Forward passes that are timed.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Also write all figures here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table here.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw: .png, .svg or .pdf.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> None:
    """Tell what a model costs, part by part.

    Parameters, multiply-adds, latency, memory, and how near it comes to the machine's best.
    """
    from leandetr.evaluation import profile_text
    from leandetr.evaluation.profile import How
    from leandetr.evaluation.profile import profile as run
    from leandetr.files import refuse_existing, write_json, write_text

    outputs = [path for path in (json, markdown, picture) if path is not None]
    refuse_existing(outputs, overwrite=overwrite)
    found = run(
        model,
        None if size is None else _sides(size),
        convention=convention,
        tally=_tally(
            convention, sampling=sampling, norms=norms, elementwise=elementwise, unread=unread
        ),
        how=How(device=device, dtype=dtype, batch=batch, passes=passes, fast=fast),
    )
    _show(found)
    if json is not None:
        write_json(json, found.to_dict())
    if markdown is not None:
        write_text(markdown, profile_text.markdown(found))
    if picture is not None:
        from leandetr.evaluation.profile_picture import draw

        draw(found, picture)
    if outputs:
        typer.echo(f"written to {', '.join(map(str, outputs))}")


def _show(found: "Profile") -> None:
    """The table on a terminal; into a file or a pipe, lines of any length."""
    from rich.console import Console

    from leandetr.evaluation import profile_text

    console = Console()
    typer.echo(profile_text.heading(found))
    wide = console if console.is_terminal else Console(width=200)
    wide.print(profile_text.table(found))
    for note in profile_text.notes(found):
        typer.echo(note)


def _tally(convention: str | None, **switches: str | bool | None) -> "Tally":
    """What the convention counts, with the switches that were typed."""
    from leandetr.evaluation.conventions import tally_of

    typed = {name: value for name, value in switches.items() if value is not None}
    return replace(tally_of(convention), **typed)  # pyright: ignore[reportArgumentType]


def _sides(size: str) -> tuple[int, int]:
    """`800x1066` as height and width. Raises `RecipeError` for anything else."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if found is None or not min(int(found[1]), int(found[2])):
        raise RecipeError(
            f"expected --size as HEIGHTxWIDTH in pixels; got '{size}'; type --size 800x1066"
        )
    return int(found[1]), int(found[2])
