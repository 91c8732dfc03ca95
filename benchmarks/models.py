"""Forward time by part of DINO and Lite-DINO, and training speed of the nano recipe.

    python -m benchmarks.models                      # about five minutes on two cores
    python -m benchmarks.models --write docs/benchmarks.md

Models take turns, so that a machine that slows down slows all of them; each figure is the median
of its rounds. Weights and images are random: they do not change the time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import leandetr
from benchmarks.machine import describe
from leandetr.models.detector import Detector
from leandetr.training.build import build_criterion
from leandetr.types import Images, Target

PARTS = ("backbone", "neck", "encoder", "queries", "decoder")
BASELINE = "dino-r50"
MODELS = (
    BASELINE,
    "lite-dino-r50-h3l1-2p1x3",
    "lite-dino-r50-h3l1-6p1x1",
    "lite-dino-r50-h2l2-2p1x3",
)
NANO = "lite-dino-nano"
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"


class Clock:
    """Seconds spent in each part of a model's forward pass, one list a part."""

    def __init__(self, model: Detector) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in (*PARTS, "whole")}
        for name in PARTS:
            self._watch(model.get_submodule(name), name)
        self._watch(model, "whole")

    def _watch(self, module: torch.nn.Module, name: str) -> None:
        began: list[float] = []
        module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
        module.register_forward_hook(
            lambda *_: self.seconds[name].append(time.perf_counter() - began.pop())
        )

    def forget(self) -> None:
        """Drop what was measured so far: the warm-up."""
        for values in self.seconds.values():
            values.clear()

    def median(self, name: str) -> float:
        """Median milliseconds of a part."""
        return 1000 * statistics.median(self.seconds[name])


def blank(images: int, height: int, width: int) -> Images:
    """A batch of noise without padding."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, height, width, generator=generator)
    return Images(pixels, torch.zeros(images, height, width, dtype=torch.bool))


def forward_table(size: tuple[int, int], rounds: int) -> str:
    """A Markdown table: a row a model, a column a part."""
    models = {name: leandetr.create_model(name).eval() for name in MODELS}
    clocks = {name: Clock(model) for name, model in models.items()}
    images = blank(1, *size)
    with torch.inference_mode():
        for model in models.values():
            model(images)
        for clock in clocks.values():
            clock.forget()
        for _ in range(rounds):
            for model in models.values():
                model(images)
    lines = [
        "| model | "
        + " | ".join(f"{part} ms" for part in (*PARTS, "whole"))
        + f" | encoder, of {BASELINE}'s | whole, of {BASELINE}'s |",
        "|---|" + "---:|" * (len(PARTS) + 3),
    ]
    base = clocks[BASELINE]
    for name, clock in clocks.items():
        cells = [f"{clock.median(part):.0f}" for part in (*PARTS, "whole")]
        ratios = [f"{clock.median(part) / base.median(part):.2f}" for part in ("encoder", "whole")]
        lines.append(f"| {name} | " + " | ".join(cells + ratios) + " |")
    return "\n".join(lines)


def training_table(rounds: int) -> str:
    """Seconds of one optimiser step of the nano recipe, and images a second."""
    model = leandetr.create_model(NANO, num_classes=3).train()
    how, side = model.recipe.train, model.preprocess
    images = blank(how.batch, side.short, side.long)
    targets = [Target(torch.arange(13) % 3, torch.full((13, 4), 0.2)) for _ in range(how.batch)]
    criterion = build_criterion(model.recipe)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimiser.zero_grad()
        criterion(model(images, targets), targets).total.backward()
        optimiser.step()

    seconds = timed(step, rounds)
    return (
        "| recipe | images a step | size | seconds a step | images a second |\n"
        "|---|---:|---|---:|---:|\n"
        f"| {NANO} | {how.batch} | {side.short}x{side.long} | {seconds:.2f} "
        f"| {how.batch / seconds:.1f} |"
    )


def timed(work: Callable[[], None], rounds: int) -> float:
    """Median seconds of `rounds` calls, after one that does not count."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def report(size: tuple[int, int], rounds: int) -> str:
    """Everything, as Markdown."""
    return (
        f"Measured by `python -m benchmarks.models` on {describe()}; reference operators, float32, "
        f"median of {rounds} rounds.\n\n"
        f"Forward pass, one image of {size[0]}x{size[1]}:\n\n{forward_table(size, rounds)}\n\n"
        f"Training, forward, loss, backward and optimiser:\n\n{training_table(rounds)}"
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="800x1066", help="height x width of the image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as PyTorch takes")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    height, width = (int(side) for side in options.size.split("x"))
    text = report((height, width), options.rounds)
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        options.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
