"""Verbs that move models between LeanDETR and other repositories; `cli` lists them."""

from pathlib import Path
from typing import Annotated

import typer

Part = Annotated[
    str | None, typer.Option(help="Which weights of the file: ema, or the key they are under.")
]


def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="An official weights file, or a folder of transformers.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model; with --to a file.")],
    to: Annotated[
        str | None,
        typer.Option(help="The way back: official or detrex, whose keys a model gets."),
    ] = None,
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="PATH=VALUE", help="What keys do not tell; repeatable."),
    ] = [],  # noqa: B006  (typer copies it)
    part: Part = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Keep COCO's 91 classes instead of the 80 named.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="Text file with the name of each class, one a line.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> None:
    """Make a model of an official checkpoint, or with --to the other way round.

    Says what the checkpoint was taken for, what was left out and why, and what had to be assumed.
    """
    if to is not None:
        _export(checkpoint, out, to, overwrite=overwrite)
        return
    from leandetr.checkpoints.convert import convert as run

    conversion = run(
        checkpoint,
        out=out,
        overrides=changes,
        part=part,
        classes=classes,
        names=None if names is None else names.read_text(encoding="utf-8").strip().splitlines(),
        overwrite=overwrite,
    )
    typer.echo(conversion.table())
    typer.echo(f"{'written to':<12}{out}")


def _export(model: str, out: Path, layout: str, *, overwrite: bool) -> None:
    from leandetr.checkpoints.convert import export_official
    from leandetr.checkpoints.store import load

    written = export_official(load(model), out, layout=layout, overwrite=overwrite)
    typer.echo(f"{len(written)} tensors under the keys of '{layout}', written to {out}")


def publish(
    model: Annotated[str, typer.Argument(help="A model folder or a run.")],
    target: Annotated[str, typer.Argument(metavar="hf:OWNER/NAME", help="Where it goes.")],
    private: Annotated[bool, typer.Option("--private", help="Only you may see it.")] = False,
    message: Annotated[str, typer.Option(help="What changed.")] = "Publish a LeanDETR model",
) -> None:
    """Publish a model on the Hugging Face hub; load it from there as hf:OWNER/NAME."""
    from leandetr.checkpoints.publish import publish as run

    typer.echo(run(model, target, private=private, message=message))
