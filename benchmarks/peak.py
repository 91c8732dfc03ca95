"""How near the encoder and the whole model come to the machine's best at multiplying matrices.

    python -m benchmarks.models --peak --write docs/benchmarks.md

A forward pass with post-processing and one large matrix product take turns, in float32: a share is
the rate of a pass, all that it multiplies counted, over the rate of the product that follows it.
Of all turns the median counts.
"""

import argparse
import statistics
from collections.abc import Sequence

import torch

import leandetr
from benchmarks.machine import describe
from benchmarks.training import images_of
from leandetr.evaluation.counting import count
from leandetr.evaluation.profile import WARM_UP
from leandetr.evaluation.timing import SQUARE, Measured, measure

MODELS = ("dino-r50", "lite-dino-r50-h3l1-2p1x3", "deformable-detr-r50")


def seconds_of(measured: Measured, stage: str | None) -> list[float]:
    """How long a stage worked in each pass; None is the whole."""
    return [
        sum(spent for part, spent in one.items() if stage in (None, part.stage))
        for one in measured.passes
    ]


def cells_of(gmacs: float, seconds: Sequence[float], rates: Sequence[float]) -> list[str]:
    """Seconds of the median pass, and the median share of the peak."""
    shares = [gmacs / (spent * rate) for spent, rate in zip(seconds, rates, strict=True)]
    return [f"{statistics.median(seconds):.2f}", f"{statistics.median(shares):.0%}"]


def rows_of(name: str, size: tuple[int, int], passes: int) -> list[str]:
    """A line for the model as it is, and one for what `optimise` makes of it."""
    detector = leandetr.create_model(name).eval()
    counts, images = count(detector, size), images_of(1, *size)
    lines = []
    for said in ("it is", "optimised"):
        model = detector if said == "it is" else detector.optimise()
        measured = measure(model, images, passes=passes, warm_up=WARM_UP, dtype=torch.float32)
        cells = [f"{statistics.median(measured.rates):.0f}"]
        for stage in ("encoder", None):
            gmacs = counts.gmacs(stage=stage)
            cells.append(f"{gmacs:.1f}")
            cells += cells_of(gmacs, seconds_of(measured, stage), measured.rates)
        lines.append(f"| {name} | {said} | " + " | ".join(cells) + " |")
    return lines


def report(size: tuple[int, int], options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    lines: list[str] = []
    for name in options.models or MODELS:
        lines += rows_of(name, size, options.rounds)
    return (
        f"Measured by `python -m benchmarks.models --peak` on {describe()}; one image of "
        f"{size[0]}x{size[1]}, float32, wall time, median of {options.rounds} passes. The peak, "
        "in billions of multiply-adds a second, is that of a product of two matrices of "
        f"{SQUARE['cpu']}x{SQUARE['cpu']}, measured after each pass. GMACs are all that the model "
        "computes, its sampling too; a pass ends with detections.\n\n"
        "| model | as | peak | encoder GMACs | s | of the peak | whole GMACs | s | of the peak |\n"
        "|---|---|" + "---:|" * 7 + "\n" + "\n".join(lines)
    )
