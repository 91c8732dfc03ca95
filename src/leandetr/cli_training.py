"""The verbs `train` and `runs`; `cli` lists them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leandetr.cli_data import Data
from leandetr.errors import TrainingError

if TYPE_CHECKING:
    from leandetr.models.detector import Detector
    from leandetr.recipes.recipe import Recipe

Changes = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe; repeatable.")
]


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe (see list), a YAML file, or a model to fine-tune.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many.")] = None,
    weights: Annotated[str | None, typer.Option(help="Start from this model's weights.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Exchange the encoder, e.g. lite.")] = None,
    overfit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="A test: learn N images by heart, or say why not."),
    ] = None,
    fit_memory: Annotated[
        bool, typer.Option("--fit-memory", help="The largest batches that fit; steps stay alike.")
    ] = False,
    track: Annotated[
        list[str], typer.Option(metavar="NAME", help="Also to wandb, mlflow, ...; repeatable.")
    ] = [],  # noqa: B006  (typer copies it)
    changes: Changes = [],  # noqa: B006  (typer copies it)
) -> None:
    """Train on the splits train and val of a data set in COCO, YOLO or Pascal VOC format."""
    from leandetr.training import run

    exchanged = [] if encoder is None else [f"encoder={encoder}"]
    counted = [] if epochs is None else [f"train.epochs={epochs}"]
    overrides = [*exchanged, *changes, *counted]
    start = _recipe_or_model(recipe)
    how: dict[str, Any] = {"overrides": overrides, "weights": weights, "minutes": minutes}
    if overfit is None:
        how |= {"fit_memory": fit_memory, "trackers": track}
        run.train(start, data, out, resume=resume, **how)
        return
    if resume or fit_memory or track:
        raise TrainingError(
            "expected --overfit without --resume, --fit-memory and --track: the test is short and "
            "begins anew"
        )
    run.overfit(start, data, out, images=overfit, **how)


def _recipe_or_model(name: str) -> "Recipe | Detector":
    """What to train: a model folder, shipped model or hf:owner/name with weights, or a recipe."""
    from leandetr.checkpoints.store import load, recipe_of, shipped_models
    from leandetr.recipes.assemble import list_models

    trained = Path(name).is_dir() or name in shipped_models() or name.startswith("hf:")
    return load(name) if trained and name not in list_models() else recipe_of(name)


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
