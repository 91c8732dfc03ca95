"""Forward times of the presets in the papers' tables, on this machine."""

from collections.abc import Callable, Sequence

import torch

from leandetr.evaluation.machine import describe, device_of
from leandetr.evaluation.turns import in_turn, timed
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model
from leandetr.types import Images


def forward_times(
    presets: Sequence[str],
    size: tuple[int, int],
    *,
    rounds: int,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """The shortest of `rounds` forward passes of one image, in milliseconds, by preset.

    Models take turns. The shortest, since what else the machine does can only lengthen a pass; a
    first pass that does not count finds the memory and the kernels. Weights and image are random,
    which changes no time. Parameters are 32-bit.
    """
    generator = torch.Generator().manual_seed(0)
    place = device_of(device)
    pixels = torch.randn(1, 3, *size, generator=generator)
    images = Images(pixels, torch.zeros(1, *size, dtype=torch.bool)).to(place)
    models = {name: create_model(name).eval().to(place) for name in presets}
    times: dict[str, list[float]] = {name: [] for name in presets}
    for number in range(rounds + 1):
        for name in in_turn(list(models), number):
            if progress is not None:
                progress(f"{name}, round {number} of {rounds}" if number else f"{name}, warm-up")
            times[name].append(timed(_forward(models[name], images), place)[1])
    return {name: min(spent[1:]) for name, spent in times.items()}


def measured_on(device: str, rounds: int) -> str:
    """What `forward_times` measured with, for a reader of its figures."""
    return (
        f"one image, float32, shortest of {rounds} forward passes after one that does not count, "
        f"models taking turns; {describe(device_of(device))}; random weights"
    )


def _forward(model: Detector, images: Images) -> Callable[[], object]:
    def forward() -> object:
        with torch.inference_mode():
            return model(images)

    return forward
