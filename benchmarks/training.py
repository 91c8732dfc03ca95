"""Training steps with reference operators and with kernels, and what memory models need.

Memory is that of a fresh process, on Linux only: what it held at most during the work, above what
it held when model and images were ready.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import leandetr
from leandetr.ops import use_backend
from leandetr.training.build import build_criterion
from leandetr.types import Images, Target

MODEL, SIDE, OBJECTS = "dino-r50", 640, 13
NANO = "lite-dino-nano"
TALL, WIDE = 800, 1333
"""Size of the image of which the inference memory is measured."""


def images_of(count: int, height: int, width: int) -> Images:
    """Noise without padding."""
    pixels = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.zeros(count, height, width, dtype=torch.bool))


def step_of(name: str, batch: int, height: int, width: int) -> Callable[[], None]:
    """Forward, loss, backward and optimiser on one batch."""
    model = leandetr.create_model(name).train()
    images = images_of(batch, height, width)
    targets = [Target(torch.arange(OBJECTS) % 3, torch.full((OBJECTS, 4), 0.2))] * batch
    criterion = build_criterion(model.recipe)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimiser.zero_grad()
        criterion(model(images, targets), targets).total.backward()
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
    """The shortest time of a call by backend, in turns; processor time where one thread works."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = {"reference": float("inf"), "operator": float("inf")}
    for _ in range(rounds):
        for backend in best:
            with use_backend(backend):
                began = clock()
                call()
                best[backend] = min(best[backend], clock() - began)
    return best


def held_most() -> int:
    """KiB that this process held at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


def peak(kind: str, backend: str) -> None:
    """Print by how many KiB a training step or a forward pass raises what is held."""
    call = step_of(MODEL, 1, SIDE, SIDE) if kind == "step" else inference_of(MODEL, TALL, WIDE)
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


def report(rounds: int) -> str:
    """Both tables, as Markdown."""
    step = seconds(step_of(MODEL, 1, SIDE, SIDE), rounds)
    times = [f"{step[backend]:.2f}" for backend in ("reference", "operator")]
    rows = [f"| seconds a training step, {SIDE}x{SIDE} | {times[0]} | {times[1]} | "
            f"{step['reference'] / step['operator']:.1f} |"]  # fmt: skip
    memory = (
        ("step", f"MiB a training step, {SIDE}x{SIDE}"),
        ("pass", f"MiB a forward pass, {TALL}x{WIDE}"),
    )
    for kind, said in memory:
        big, small = (peak_of(kind, backend) for backend in ("reference", "operator"))
        rows.append(f"| {said} | {big:.0f} | {small:.0f} | {big / small:.1f} |")
    how = leandetr.create_model(NANO).recipe
    short, batch = how.preprocess.short, how.train.batch
    nano = seconds(step_of(NANO, batch, short, short * 4 // 3), rounds)
    times = [f"{nano[backend]:.2f}" for backend in ("reference", "operator")]
    rows.append(
        f"| seconds a training step of {NANO}, {batch} images of {short}x{short * 4 // 3} "
        f"| {times[0]} | {times[1]} | {nano['reference'] / nano['operator']:.1f} |"
    )
    return (
        f"Training step (forward, loss, backward, optimiser) and memory of {MODEL}, one image; "
        "memory is the most that a fresh process holds, above model and image:\n\n"
        "| | reference | kernels | ratio |\n|---|---:|---:|---:|\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    peak(*sys.argv[1:])
