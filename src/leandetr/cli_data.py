"""The verbs about data, `leandetr data ...` and `leandetr scenes`; `cli` lists them."""

from pathlib import Path
from typing import Annotated

import typer

from leandetr.errors import OutputExists

Data = Annotated[
    list[Path],
    typer.Option(help="Folder in COCO, YOLO or Pascal VOC format, or data.yaml; repeatable."),
]


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
