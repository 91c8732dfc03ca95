"""Training steps with reference operators and with kernels, and what memory models need.

Memory is that of a fresh process, on Linux only: what it held at most during the work, above what
it held when model and images were ready. It has worked on a tiny image before, so that libraries
are there.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import leandetr
from benchmarks.machine import describe
from benchmarks.turns import best_of, unit
from leandetr.ops import use_backend
from leandetr.training.build import build_criterion
from leandetr.training.optim import build_optimiser
from leandetr.training.recompute import recompute_layers
from leandetr.types import Images, Target

MODEL, SIDE, OBJECTS = "dino-r50", 640, 13
SQUARE = (SIDE, SIDE)
NANO = "lite-dino-nano"
TALL, WIDE = 800, 1333
"""Size of the image of which the inference memory is measured."""
TINY = (128, 128)
"""Size of the image that a process sees before its memory is measured."""


def images_of(count: int, height: int, width: int) -> Images:
    """Noise without padding."""
    pixels = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.zeros(count, height, width, dtype=torch.bool))


def step_of(name: str, batch: int, size: tuple[int, int], how: str = "") -> Callable[[], None]:
    """Forward, loss, backward and optimiser on one batch; `how` is plain, "bf16" or "recompute"."""
    model = leandetr.create_model(name).train().to(memory_format=torch.channels_last)
    images = images_of(batch, *size)
    targets = [Target(torch.arange(OBJECTS) % 3, torch.full((OBJECTS, 4), 0.2))] * batch
    criterion = build_criterion(model.recipe)
    optimiser = build_optimiser(model, lr=1e-5, weight_decay=1e-4)
    if how == "recompute":
        recompute_layers(model)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "bf16"):
            outputs = model(images, targets)
        criterion(outputs, targets).total.backward()
        optimiser.step()

    return step


def inference_of(name: str, height: int, width: int) -> Callable[[], None]:
    """A forward pass of one image."""
    model, images = leandetr.create_model(name).eval(), images_of(1, height, width)

    def detect() -> None:
        with torch.inference_mode():
            model(images)

    return detect


def seconds(call: Callable[[], None], rounds: int) -> dict[str, float]:
    """The shortest time of a call by backend; both take turns."""

    def on(backend: str) -> Callable[[], None]:
        def run() -> None:
            with use_backend(backend):
                call()

        return run

    best = best_of({backend: on(backend) for backend in ("reference", "operator")}, rounds)
    return {backend: milliseconds / 1000 for backend, milliseconds in best.items()}


def held_most() -> int:
    """KiB that this process held at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


def peak(kind: str, backend: str) -> None:
    """Print by how many KiB a training step or a forward pass raises what is held."""

    def made(size: tuple[int, int]) -> Callable[[], None]:
        if kind == "pass":
            return inference_of(MODEL, *size)
        return step_of(MODEL, 1, size, kind.removeprefix("step "))

    made(TINY)()  # imports what the first call imports
    call = made((TALL, WIDE) if kind == "pass" else SQUARE)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the most so far
    before = held_most()
    with use_backend(backend):
        call()
    print(held_most() - before)


def peak_of(kind: str, backend: str) -> float:
    """MiB, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", kind, backend],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back
    )
    return int(done.stdout) / 1024


def time_rows(rounds: int) -> Iterator[str]:
    """Seconds of training steps, a line each."""
    how = leandetr.create_model(NANO).recipe
    short, batch = how.preprocess.short, how.train.batch
    wide = (short, short * 4 // 3)
    steps = (
        (f"{MODEL}, {SIDE}x{SIDE}", (MODEL, 1, SQUARE)),
        (f"{MODEL}, {SIDE}x{SIDE}, bf16", (MODEL, 1, SQUARE, "bf16")),
        (f"{NANO}, {batch} images of {wide[0]}x{wide[1]}", (NANO, batch, wide)),
        (f"{NANO}, {batch} images of {wide[0]}x{wide[1]}, bf16", (NANO, batch, wide, "bf16")),
    )
    for said, step in steps:
        best = seconds(step_of(*step), rounds)
        slow, fast = best["reference"], best["operator"]
        yield f"| seconds a training step of {said} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |"


def memory_rows() -> Iterator[str]:
    """MiB of a training step and of a forward pass, a line each."""
    for kind, said in (
        ("step", f"training step of {MODEL}, {SIDE}x{SIDE}"),
        ("step bf16", f"training step of {MODEL}, {SIDE}x{SIDE}, bf16"),
        ("step recompute", f"training step of {MODEL}, {SIDE}x{SIDE}, `train.recompute`"),
        ("pass", f"forward pass of {MODEL}, {TALL}x{WIDE}"),
    ):
        big, small = (peak_of(kind, backend) for backend in ("reference", "operator"))
        yield f"| MiB a {said} | {big:.0f} | {small:.0f} | {big / small:.1f} |"


def report(_: tuple[int, int], options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    rows = (*time_rows(options.rounds), *memory_rows())
    return (
        f"Measured by `python -m benchmarks.models --training` on {describe()}; {unit()}, shortest "
        f"of {options.rounds} rounds.\n\n"
        "Training step (forward, loss, backward, optimiser) and memory, one image unless told "
        "otherwise; memory is the most that a fresh process holds, above model and image:\n\n"
        "| | reference | kernels | ratio |\n|---|---:|---:|---:|\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    peak(*sys.argv[1:])
