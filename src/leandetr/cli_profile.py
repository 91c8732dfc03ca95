"""The verb that tells where the parameters, multiply-adds and time of a model go."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leandetr.errors import RecipeError

if TYPE_CHECKING:
    from leandetr.evaluation.counting import Tally
    from leandetr.evaluation.profile import Profile


Model = Annotated[
    str, typer.Argument(help="A recipe (see list), a YAML file, a model folder or a run.")
]
Size = Annotated[
    str | None, typer.Option(metavar="HxW", help="Height and width of the network's input.")
]
Convention = Annotated[
    str | None,
    typer.Option(help="Count as papers do: 850x1040, 800x1066, 800x1280, coco:FILE.json."),
]
Sampling = Annotated[
    str | None, typer.Option(help="What of sampling counts: all, grid, key-aware or none.")
]
Norms = Annotated[
    bool | None, typer.Option("--norms/--no-norms", help="Count layer and group norms.")
]
Elementwise = Annotated[
    bool | None,
    typer.Option("--elementwise/--no-elementwise", help="Count work on single elements."),
]
Unread = Annotated[
    bool | None,
    typer.Option("--unread/--no-unread", help="Count what only official code computes."),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, ...")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, or bfloat16, which is optimised; --fast chooses.")
]
Fast = Annotated[bool, typer.Option("--fast", help="Time the optimised model.")]
Batch = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Passes = Annotated[int, typer.Option(min=1, help="Forward passes that are timed.")]
Json = Annotated[Path | None, typer.Option(help="Also write all figures here.")]
Markdown = Annotated[Path | None, typer.Option(help="Also write the table here.")]
Picture = Annotated[Path | None, typer.Option(help="Also draw: .png, .svg or .pdf.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")]


def profile(
    model: Model,
    size: Size = None,
    convention: Convention = None,
    sampling: Sampling = None,
    norms: Norms = None,
    elementwise: Elementwise = None,
    unread: Unread = None,
    device: Device = "auto",
    dtype: Dtype = None,
    fast: Fast = False,
    batch: Batch = 1,
    passes: Passes = 10,
    json: Json = None,
    markdown: Markdown = None,
    picture: Picture = None,
    overwrite: Overwrite = False,
) -> None:
    """Tell what a model costs, part by part.

    Parameters, multiply-adds, latency, memory, and how near it comes to the machine's best.
    """
    from leandetr.evaluation.profile import How
    from leandetr.evaluation.profile import profile as run
    from leandetr.evaluation.profile_picture import format_of
    from leandetr.files import make_room, refuse_existing

    outputs = [path for path in (json, markdown, picture) if path is not None]
    refuse_existing(outputs, overwrite=overwrite)
    if picture is not None:
        format_of(picture)
    make_room(outputs)
    switches = {"sampling": sampling, "norms": norms, "elementwise": elementwise, "unread": unread}
    found = run(
        model,
        None if size is None else _sides(size),
        convention=convention,
        tally=_tally(convention, switches),
        how=How(device, dtype or _dtype(device, fast), batch=batch, passes=passes, fast=fast),
    )
    _show(found)
    _write(found, json=json, markdown=markdown, picture=picture)
    if outputs:
        typer.echo(f"written to {', '.join(map(str, outputs))}")


def _write(
    found: "Profile", *, json: Path | None, markdown: Path | None, picture: Path | None
) -> None:
    """The files that were asked for."""
    from leandetr.evaluation import profile_picture, profile_text
    from leandetr.files import write_json, write_text

    if json is not None:
        write_json(json, found.to_dict())
    if markdown is not None:
        write_text(markdown, profile_text.markdown(found))
    if picture is not None:
        profile_picture.draw(found, picture)


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


def _tally(convention: str | None, switches: dict[str, Any]) -> "Tally":
    """What the convention counts, with the switches that were typed."""
    from leandetr.evaluation.conventions import tally_of

    typed = {name: value for name, value in switches.items() if value is not None}
    return replace(tally_of(convention), **typed)


def _dtype(device: str, fast: bool) -> str:
    """What `--fast` of the other verbs chooses for the device; float32 without it."""
    if not fast:
        return "float32"
    from leandetr.evaluation.machine import device_of
    from leandetr.models.optimise import best_dtype

    return str(best_dtype(device_of(device))).removeprefix("torch.")


def _sides(size: str) -> tuple[int, int]:
    """`800x1066` as height and width. Raises `RecipeError` for anything else."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if found is None or not min(int(found[1]), int(found[2])):
        raise RecipeError(
            f"expected --size as HEIGHTxWIDTH in pixels; got '{size}'; type --size 800x1066"
        )
    return int(found[1]), int(found[2])
