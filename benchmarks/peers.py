"""The same weights in transformers and here: outputs compared, then times in turns."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from benchmarks.turns import best_of, unit
from leandetr.checkpoints.convert import convert
from leandetr.models.detector import Detector
from leandetr.types import Images

PEERS = {
    "deformable-detr-r50": ("DeformableDetr", ("stage2", "stage3", "stage4")),
    "conditional-detr-r50": ("ConditionalDetr", ("stage4",)),
    "detr-r50": ("Detr", ("stage4",)),
}
"""Our preset -> the family's name in transformers, and the maps of its ResNet-50."""


@dataclass(frozen=True)
class Apart:
    """The largest differences between two answers: logits, and boxes in sides of the image."""

    logits: float
    boxes: float


def both(name: str) -> tuple[torch.nn.Module, Detector]:
    """A detector of transformers with random weights, and ours with the same ones."""
    import transformers

    family, maps = PEERS[name]
    backbone = transformers.ResNetConfig(out_features=list(maps))
    settings: dict[str, Any] = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    config = getattr(transformers, f"{family}Config")(
        backbone=None, backbone_config=backbone, **settings
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{family}ForObjectDetection")(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = convert(Path(folder)).detector
    return theirs, ours.eval()


def candidates(name: str, images: Images) -> tuple[dict[str, Callable[[], None]], Apart]:
    """What takes turns, by name; and how far apart the answers of both packages are."""
    theirs, ours = both(name)
    seen = (~images.padding).long()
    fast, lower = ours.optimise(), ours.optimise(dtype=torch.bfloat16)
    answer, other = ours(images).answer, theirs(images.pixels, pixel_mask=seen)
    apart = Apart(
        float((answer.logits - other.logits).abs().max()),
        float((answer.boxes - other.pred_boxes).abs().max()),
    )
    turns: dict[str, Callable[[], Any]] = {
        "transformers": lambda: theirs(images.pixels, pixel_mask=seen),
        "ours": lambda: ours(images),
        "optimised": lambda: fast(images),
        "bfloat16": lambda: lower(images),
    }
    return turns, apart


@torch.inference_mode()
def row(name: str, images: Images, rounds: int) -> str:
    """One line of the table."""
    turns, apart = candidates(name, images)
    best = best_of(turns, rounds)
    peer = best.pop("transformers")
    cells = [f"{milliseconds:.0f} | {peer / milliseconds:.2f}" for milliseconds in best.values()]
    return (
        f"| {name} | {apart.logits:.0e} | {apart.boxes:.0e} | {peer:.0f} | "
        + " | ".join(cells)
        + " |"
    )


def report(size: tuple[int, int], options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    import transformers

    height, width = size
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.zeros(1, *size, dtype=torch.bool))
    rows = "\n".join(row(name, images, options.rounds) for name in options.models or PEERS)
    return (
        f"Measured by `python -m benchmarks.models --peers` on {describe()}, transformers "
        f"{transformers.__version__}; one image of {height}x{width}, {unit()}, shortest of "
        f"{options.rounds} rounds in turns. The same random weights in both; apart is the largest "
        "difference of their outputs in float32. Ratios are transformers' time over ours.\n\n"
        "| model | logits apart | boxes apart | transformers ms | ours ms | ratio | optimised ms "
        "| ratio | optimised, bf16 ms | ratio |\n|---|" + "---:|" * 9 + f"\n{rows}"
    )
