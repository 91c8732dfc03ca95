"""Training on real pictures: our loop against transformers' DeformableDetr with its Trainer.

    python -m benchmarks.trainer --rounds 2          # some minutes on two cores
    python -m benchmarks.trainer --write docs/benchmarks.md

The same on both sides: photos of examples/cells from their JPEG files on, resized in this run to
the same size and not augmented; images a step, threads and loader workers; random weights; ResNets
that train from the second stage on (transformers' class means to freeze the rest by name, misses
the names of its own ResNet and freezes all of it: here the rule holds); dropout; AdamW, clipped
gradients; losses after every decoder layer; no checkpoint, validation or log while the clock runs.
`deformable-detr-r50` is the very model that transformers has; `deformable-detr-nano` has encoder,
queries and decoder of the nano one of transformers beside it. DINO and Lite DINO do more for each
picture, denoising above all, and drop nothing out. Not the same: in nano models our ResNet has a
light stem of 3x3 convolutions, trains every stage and norm, and the weights are averaged after each
step; transformers' two-stage model has no loss on what its encoder proposes, ours has; ours looks
at each step for gradients that are not finite.

Contenders take turns; a turn builds a model, trains some steps that do not count, then some that
do: from the end of a step to the end of the last one, loading included. The fastest turn counts.
"""

import argparse
import gc
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.state import AcceleratorState

import leandetr
from benchmarks.machine import describe
from benchmarks.page import put
from benchmarks.trainer_turn import Turn
from benchmarks.turns import clock, unit
from leandetr.data import load_data
from leandetr.data.loader import DetectionSet
from leandetr.data.transforms import PlainAugment
from leandetr.recipes.codec import to_dict
from leandetr.training.batches import Batches, EpochBatches
from leandetr.training.build import build_accelerator, build_parts, seed_all
from leandetr.training.display import Moment
from leandetr.training.loop import Keep, Limits, Loop

CELLS = Path(__file__).parent.parent / "examples" / "cells"
PRECISIONS = ("fp32", "bf16")


class Enough(Exception):
    """The last step of a turn is done."""


class Marks:
    """A loop's display: notes when each step ends, and stops the loop after the last one."""

    def __init__(self, steps: int) -> None:
        self.times: list[float] = []
        self._steps = steps

    def step(self, moment: Moment) -> None:
        """Called after every step."""
        self.times.append(clock())
        if not torch.tensor(moment.loss).isfinite():
            raise SystemExit(f"expected a finite loss; got {moment.loss} in step {len(self.times)}")
        if len(self.times) == self._steps:
            raise Enough


def ours(name: str, precision: str, turn: Turn) -> float:
    """Images a second of our loop, its parts put together as `leandetr train` does it."""
    recipe = leandetr.recipe(name).with_model(classes=len(turn.data.names))
    recipe = replace(recipe, preprocess=turn.preprocess).with_train(
        batch=turn.batch, precision=precision, augment=PlainAugment(), workers=turn.workers
    )
    seed_all(0)
    images = DetectionSet(turn.pictures, recipe.preprocess, augment=recipe.train.augment, seed=0)
    order = EpochBatches(len(images), turn.batch, seed=0)
    parts = build_parts(recipe, leandetr.create_model(recipe), build_accelerator(), len(order))
    marks = Marks(turn.warm + turn.steps)
    about = {"recipe": to_dict(recipe), "names": list(turn.data.names)}
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        loop = Loop(
            parts,
            Batches(images, order, workers=turn.workers),
            limits=Limits(epochs=1),
            keep=Keep(Path(folder), lambda model, path: None, about),
        )
        loop.run(marks)
    if parts.schedule.last_epoch != len(marks.times):
        raise SystemExit(f"{name}: a step was skipped, its gradient was not finite")
    return turn.pace(marks.times)


Rate = Callable[[str, Turn], float]
"""Images a second of one turn in a precision."""


class Group(NamedTuple):
    """Models of one size: transformers' by its settings, and ours by their presets."""

    settings: str
    said: str
    names: tuple[str, ...]


GROUPS = {
    "r50": Group("r50_settings", "DeformableDetr, ResNet-50", ("deformable-detr-r50", "dino-r50")),
    "nano": Group(
        "nano_settings", "DeformableDetr, nano", ("deformable-detr-nano", "lite-dino-nano")
    ),
}


def contenders(group: Group) -> dict[str, Rate]:
    """What takes turns, by name; transformers first."""
    from benchmarks import trainer_peer

    settings = getattr(trainer_peer, group.settings)
    rates: dict[str, Rate] = {
        group.said: lambda precision, turn: trainer_peer.theirs(settings, precision, turn)
    }
    for name in group.names:
        rates[name] = lambda precision, turn, name=name: ours(name, precision, turn)
    return rates


def rows_of(group: Group, turn: Turn, rounds: int) -> list[str]:
    """A line for each contender: images a second, and beside transformers' in float32."""
    rates = contenders(group)
    best = {(name, precision): 0.0 for precision in PRECISIONS for name in rates}
    for _ in range(rounds):
        for name, precision in best:
            AcceleratorState._reset_state(reset_partial_state=True)  # as in a process of its own
            best[name, precision] = max(best[name, precision], rates[name](precision, turn))
            gc.collect()
    lines = []
    for name in rates:
        cells = [str(turn.batch)]
        for precision in PRECISIONS:
            rate, peer = best[name, precision], best[group.said, precision]
            cells += [f"{rate:.2f}", f"{rate / peer:.2f}"]
        cells.append(f"{best[name, 'bf16'] / best[group.said, 'fp32']:.2f}")
        trainer = "transformers' Trainer" if name == group.said else "leandetr train"
        lines.append(f"| {name} | {trainer} | " + " | ".join(cells) + " |")
    return lines


def report(options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    import transformers

    transformers.logging.set_verbosity_error()
    data = load_data(CELLS, "test")
    lines, size = [], (0, 0)
    for name in options.groups:
        batch = options.batch or (2 if name == "r50" else 8)
        turn = Turn(data, options.side, batch, options.warm, options.steps, options.workers)
        size = turn.preprocess.resized(*data.samples[0].size)
        lines += rows_of(GROUPS[name], turn, options.rounds)
    return (
        f"Measured by `python -m benchmarks.trainer` on {describe()}, transformers "
        f"{transformers.__version__}; {len(data)} photos of cells at {size[0]}x{size[1]}, "
        f"{options.workers} loader workers, images a second by {unit()}, fastest of "
        f"{options.rounds} turns of {options.steps} steps after {options.warm}. Ratios are over "
        "transformers' in the same precision, the last one over transformers' in float32.\n\n"
        "| model | trained by | images a step | float32 | ratio | bf16 | ratio "
        "| bf16 over their float32 |\n"
        "|---|---|" + "---:|" * 6 + "\n" + "\n".join(lines)
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--side", type=int, default=320, help="short side of the pictures")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm", type=int, default=1, help="steps of a turn that do not count")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn that count")
    parser.add_argument("--batch", type=int, default=0, help="0: 2 for r50, 8 for nano")
    parser.add_argument("--workers", type=int, default=0, help="of the loader")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the model")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = report(options)
    print(text)
    if options.write:
        put(options.write, "trainer", text)


if __name__ == "__main__":
    main()
