"""The verbs that use a trained model: evaluate it on a data set, predict in files and folders."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leandetr import cli_data
from leandetr.errors import LeanDetrError

if TYPE_CHECKING:
    from leandetr.deploy.predict import Looked, Summary
    from leandetr.models.detector import Detector

Model = Annotated[str, typer.Argument(help="A model folder, a shipped model, or hf:owner/name.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")]
Batch = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Coarse = Annotated[
    bool, typer.Option("--coarse", help="Decode huge JPEG files only to what the network needs.")
]
Fast = Annotated[
    bool, typer.Option("--fast", help="Optimise the model; bfloat16 where the processor has it.")
]


def evaluate(
    model: Model,
    data: cli_data.Data,
    split: Annotated[str, typer.Option(help="Which split to score on.")] = "val",
    out: Annotated[Path | None, typer.Option(help="Also write the scores here.")] = None,
    batch: Batch = 8,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    coarse: Coarse = False,
    device: Device = "auto",
    fast: Fast = False,
    overwrite: Overwrite = False,
) -> None:
    """Print the twelve COCO metrics, and AP of every class."""
    import sys

    from leandetr.checkpoints.store import load
    from leandetr.data.dataset import to_coco
    from leandetr.evaluation.coco import score
    from leandetr.evaluation.evaluate import OUTPUTS, choose, detect, write
    from leandetr.files import refuse_existing

    if out is not None:
        refuse_existing([out / name for name in OUTPUTS], overwrite=overwrite)
    detector = _placed(load(model), device, fast=fast)
    chosen = choose(data, split=split, limit=limit)
    found = detect(
        detector,
        chosen,
        batch=batch,
        workers=workers,
        coarse=coarse,
        progress=sys.stderr.isatty(),
    )
    scores = score(to_coco(chosen), found)
    if out is not None:
        write(scores, found, out, overwrite=overwrite)
    size = f"{_count(len(chosen), 'image')}, {_count(chosen.boxes, 'box', 'boxes')}"
    typer.echo(f"{model} on {chosen.name}: {size}\n")
    typer.echo(scores.table())


def predict(
    model: Model,
    paths: Annotated[list[str], typer.Argument(help="Image files, folders and patterns.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, images.json, pictures/.")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score kept.")] = 0.5,
    batch: Batch = 8,
    padding: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a batch that shapes may differ by.")
    ] = 0.0,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the boxes.")
    ] = True,
    coarse: Coarse = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse images with more pixels.")
    ] = 100_000_000,
    device: Device = "auto",
    fast: Fast = False,
    overwrite: Overwrite = False,
) -> None:
    """Find objects in images: JSON and pictures.

    A file that cannot be read is told and passed over.
    """
    from leandetr.checkpoints.store import load
    from leandetr.deploy import predict as deploy

    if coarse and pictures:
        raise typer.BadParameter("add --no-pictures: nothing is drawn on coarse photos")
    options = deploy.PredictOptions(
        threshold=threshold,
        batch=batch,
        padding=padding,
        pictures=pictures,
        coarse=coarse,
        max_pixels=max_pixels,
        overwrite=overwrite,
    )
    detector = _placed(load(model), device, fast=fast)
    with _told() as tell:
        done = deploy.predict(detector, paths, out, options, tell=tell)
    typer.echo(_done(done, out))
    if done.skipped:
        raise typer.Exit(1 if done.pictures else 2)


def _done(done: "Summary", out: Path) -> str:
    """What a run over pictures came to, in one line."""
    why = f" (why: {out / 'images.json'})" if done.skipped else ""
    share = f", {done.padding:.0%} of the batches was padding" if done.padding else ""
    return (
        f"{_count(done.pictures, 'picture')}, {_count(done.detections, 'detection')}, "
        f"{len(done.skipped)} skipped{why}; {done.rate:.1f} pictures a second{share}; "
        f"written to {out}"
    )


def _placed(model: "Detector", device: str, *, fast: bool = False) -> "Detector":
    """The model on the device asked for, optimised if it shall be fast."""
    import torch

    from leandetr.models.optimise import best_dtype

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        placed = model.to(device)
        return placed.optimise(dtype=best_dtype(device)) if fast else placed
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise LeanDetrError(
            f"device '{device}' cannot be used ({reason}); try --device cpu"
        ) from error


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


@contextmanager
def _told() -> "Iterator[Callable[[Looked, int], None]]":
    """A bar on a terminal, and a sentence for every file that is skipped."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("predicting", total=None)

        def tell(one: "Looked", total: int) -> None:
            bar.update(task, advance=1, total=total)
            if one.problem is not None:
                reason = one.problem.replace("pass max_pixels=", "add --max-pixels ")
                console.print(f"skipped {reason}", markup=False, highlight=False, soft_wrap=True)

        yield tell
