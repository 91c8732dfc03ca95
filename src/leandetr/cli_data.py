"""The verbs about data, `leandetr data ...` and `leandetr scenes`; `cli` lists them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leandetr.errors import OutputExists

if TYPE_CHECKING:
    from leandetr.data.derive import Written
    from leandetr.data.doctor import Report

app = typer.Typer(
    help="Look at data sets, convert, split and sample them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    list[Path],
    typer.Option(help="Folder in COCO, YOLO or Pascal VOC format, or data.yaml; repeatable."),
]
Sources = Annotated[
    list[Path], typer.Argument(help="One or more: folders, a data.yaml or a COCO JSON file.")
]
NewFolder = Annotated[Path, typer.Argument(help="A new folder.")]
Seed = Annotated[int, typer.Option(help="Another seed, other images.")]
To = Annotated[str | None, typer.Option(help="coco, yolo or voc; by default as it was.")]
Link = Annotated[bool, typer.Option("--link", help="Link to the images instead of copying them.")]


def scenes(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    train: Annotated[int, typer.Option(min=1, help="Scenes to train on.")] = 64,
    val: Annotated[int, typer.Option(min=1, help="Scenes to validate on.")] = 16,
    seed: Annotated[int, typer.Option(help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw synthetic scenes to train on.

    They hold many small objects of several classes, in COCO format.
    """
    from leandetr.data.scenes import write_scenes

    if out.exists() and any(out.iterdir()):
        raise OutputExists(f"{out}: expected a new folder, this one is not empty; choose another")
    write_scenes(out, train=train, val=val, seed=seed)
    typer.echo(f"{train} scenes to train on and {val} to validate on, in {out}")


@app.command("check")
def check(
    data: Sources,
    recipe: Annotated[
        str, typer.Option(help="Whose queries and image size the data has to fit.")
    ] = "lite-dino-nano",
    sheet: Annotated[Path | None, typer.Option(help="Also draw a contact sheet: a PNG.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures on the contact sheet.")] = 12,
    seed: Seed = 0,
    pixels: Annotated[
        bool | None,
        typer.Option("--pixels/--no-pixels", help="Decode every image; default: up to 5000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the sheet.")] = False,
) -> None:
    """Tell what is wrong with data before it is trained on, in words, numbers and a picture.

    Exit code 0: nothing stops training; 1: there are errors (with --strict also: warnings).
    """
    from leandetr.checkpoints.store import recipe_of
    from leandetr.data.doctor import check as look
    from leandetr.files import refuse_existing

    if sheet is not None:
        refuse_existing([sheet], overwrite=overwrite)
        _picture_format(sheet)
    chosen = recipe_of(recipe)
    queries = getattr(chosen.model.queries, "count", None)
    size = chosen.preprocess
    with _bar("looking") as watch:
        report = look(data, queries=queries, preprocess=size, pixels=pixels, watch=watch)
    _print(report, as_json=as_json)
    if sheet is not None and report.parts:
        _draw(report, sheet, " + ".join(path.resolve().name for path in data), (count, seed))
    if not report.ok(strict=strict):
        raise typer.Exit(1)


def _print(report: "Report", *, as_json: bool) -> None:
    import json

    from rich.console import Console

    from leandetr.data.report import show

    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
        return
    console = Console()
    show(report, console if console.is_terminal else Console(width=120))


def _draw(report: "Report", path: Path, title: str, pictures: tuple[int, int]) -> None:
    """Write a contact sheet of so many pictures, chosen by a seed."""
    from leandetr.data.report import contact
    from leandetr.data.sheet import sheet
    from leandetr.files import whole

    page = sheet(*contact(report, title, *pictures))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        page.save(partial, format=_picture_format(path), quality=85)
    typer.echo(f"contact sheet: {path}", err=True)


def _picture_format(path: Path) -> str:
    """The format a picture is saved in. Raises `BadParameter` for a suffix that has none."""
    from PIL import Image

    known = Image.registered_extensions()
    if path.suffix.lower() not in known:
        raise typer.BadParameter(f"{path}: expected a picture such as sheet.png or sheet.jpg")
    return known[path.suffix.lower()]


@contextmanager
def _bar(what: str) -> Iterator[Callable[[Sequence[Any]], Iterable[Any]]]:
    """A bar on a terminal; the function it gives is handed a list and yields its elements."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield lambda items: bar.track(items, description=what)


@app.command("convert")
def convert(
    data: Annotated[Path, typer.Argument(help="A folder, a data.yaml or a COCO JSON file.")],
    out: NewFolder,
    to: Annotated[str, typer.Option(help="coco, yolo or voc.")],
    link: Link = False,
) -> None:
    """Write a data set in another format.

    What cannot be read is left out, counted and told; then the exit code is 1.
    """
    from leandetr.data.derive import convert as run

    with _bar("converting") as watch:
        _tell(run(data, out, to=to, link=link, watch=watch))


@app.command("split")
def split(
    data: Annotated[Path, typer.Argument(help="A folder, a data.yaml or a COCO JSON file.")],
    out: NewFolder,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share to validate on.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share to test on.")] = 0.0,
    seed: Seed = 0,
    to: To = None,
    link: Link = False,
) -> None:
    """Deal all images anew into train, val and test, every class in the same shares.

    Copies of an image stay together. The data set that is read stays as it is.
    """
    from leandetr.data.derive import split as run

    with _bar("dealing") as watch:
        _tell(run(data, out, val=val, test=test, seed=seed, to=to, link=link, watch=watch))


@app.command("sample")
def sample(
    data: Annotated[Path, typer.Argument(help="A folder, a data.yaml or a COCO JSON file.")],
    out: NewFolder,
    count: Annotated[int, typer.Argument(min=1, help="How many images.")],
    seed: Seed = 0,
    to: To = None,
    link: Link = False,
) -> None:
    """Write a small part of a data set: of every split its share, of every class too."""
    from leandetr.data.derive import sample as run

    with _bar("choosing") as watch:
        _tell(run(data, out, count, seed=seed, to=to, link=link, watch=watch))


def _tell(written: "Written") -> None:
    """What was written and what was left out; exit code 1 if anything was."""
    for one in written.findings:
        typer.echo(one.sentence, err=True)
    for split, (images, boxes) in written.splits.items():
        typer.echo(f"{split:<8}{images:>8,} images {boxes:>10,} boxes")
    left = f"; {written.skipped} left out" if written.skipped else ""
    typer.echo(f"written to {written.out} ({written.format}){left}")
    if written.skipped:
        raise typer.Exit(1)
