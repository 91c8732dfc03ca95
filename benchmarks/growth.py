"""Time and memory of the encoders against the side of a square image.

    python -m benchmarks.growth                      # about ten minutes on one core
    python -m benchmarks.growth --write docs/benchmarks.md     # with docs/pictures/growth.png

Every case is a process of its own on one thread: random features of 256 channels at strides 8, 16,
32 and 64, six layers (Lite: three blocks of two high-level layers and one full). Time is the
processor's, of one call after a small one; memory is the most the whole process ever held. Linux.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.page import put
from leandetr.models.dims import Dims
from leandetr.models.encoders import encoders
from leandetr.models.heads import ProposalHead
from leandetr.nn.grid import count
from leandetr.types import Shapes, Tokens

DIM, CLASSES = 256, 91
STRIDES = (8, 16, 32, 64)
SIDES = (320, 640, 960, 1280, 1920, 2560, 3456)
ENCODERS = {
    "dense": "dense, all levels",
    "dense32": "dense, stride 32 (DETR)",
    "deformable": "deformable",
    "lite": "lite H3L1-(2+1)x3",
    "focus": "focus",
}
MOST_SECONDS = 100.0
"""A case that would take longer, by what the next smaller one took, is left out."""


def level_shapes(side: int) -> Shapes:
    """(H, W) of each level."""
    return tuple((-(-side // stride),) * 2 for stride in STRIDES)


def noise(shapes: Shapes) -> Tokens:
    """Tokens of one image without padding."""
    tokens, levels = count(shapes), len(shapes)
    generator = torch.Generator().manual_seed(0)
    return Tokens(
        features=torch.randn(1, tokens, DIM, generator=generator),
        position=torch.randn(1, tokens, DIM, generator=generator),
        padding=torch.zeros(1, tokens, dtype=torch.bool),
        valid_ratios=torch.ones(1, levels, 2),
        shapes=shapes,
    )


def asked(kind: str, side: int) -> Shapes:
    """The levels an encoder gets: dense ones get one, which holds all tokens or those of DETR."""
    shapes = level_shapes(side)
    if kind == "dense":
        return ((count(shapes), 1),)
    return (shapes[2],) if kind == "dense32" else shapes


def one(kind: str, side: int) -> dict[str, float]:
    """Tokens, processor seconds and peak GiB of one forward pass in this process."""
    torch.set_num_threads(1)
    levels = 1 if kind.startswith("dense") else len(STRIDES)
    dims = Dims(dim=DIM, levels=levels, classes=CLASSES)
    encoder = encoders.get(kind.removesuffix("32"))().build(dims).eval()
    proposals = ProposalHead(DIM, CLASSES).eval()
    with torch.inference_mode():
        encoder(noise(asked(kind, 128)), proposals)
        tokens = noise(asked(kind, side))
        began = time.process_time()
        encoder(tokens, proposals)
        seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    return {
        "tokens": count(tokens.shapes),
        "seconds": seconds,
        "gibibytes": int(peak[1]) / 2**20,
    }


def in_process(kind: str, side: int) -> dict[str, float]:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--one", kind, str(side)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def measure() -> dict[str, dict[int, dict[str, float]]]:
    """Every encoder at every side, as far as it goes."""
    found: dict[str, dict[int, dict[str, float]]] = {kind: {} for kind in ENCODERS}
    for side in SIDES:
        for kind, rows in found.items():
            last = rows[max(rows)] if rows else None
            growth = 0.0 if last is None else count(asked(kind, side)) / last["tokens"]
            power = 2 if kind.startswith("dense") else 1
            if last is not None and last["seconds"] * growth**power > MOST_SECONDS:
                continue
            rows[side] = in_process(kind, side)
            print(side, kind, rows[side], file=sys.stderr, flush=True)
    return found


def table(found: dict[str, dict[int, dict[str, float]]]) -> str:
    """A line a side: seconds and GiB of each encoder."""
    heads = " | ".join(f"{name} s | GiB" for name in ENCODERS.values())
    lines = [
        f"| side | tokens | {heads} |",
        "|---:|---:|" + "---:|" * (2 * len(ENCODERS)),
    ]
    for side in SIDES:
        cells = [str(side), f"{count(level_shapes(side)):,}"]
        for rows in found.values():
            row = rows.get(side)
            cells += [f"{row['seconds']:.2f}", f"{row['gibibytes']:.2f}"] if row else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Seconds and GiB against the side, both on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    labels = {"seconds": "processor time, one core [s]", "gibibytes": "peak of the process [GiB]"}
    for panel, (quantity, label) in zip(panels, labels.items(), strict=True):
        for (kind, name), marker in zip(ENCODERS.items(), "os^Dv", strict=True):
            rows = found[kind]
            values = [row[quantity] for row in rows.values()]
            panel.plot(list(rows), values, marker=marker, label=name, markersize=5)
        panel.set(xscale="log", yscale="log", xlabel="side of the image [pixels]", ylabel=label)
        panel.set_xticks(SIDES, [str(side) for side in SIDES])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(which="major", alpha=0.3)
    panels[1].set_yticks([0.25, 0.5, 1, 2, 4])
    panels[0].legend(fontsize=9)
    figure.suptitle("One forward pass of an encoder, 256 channels, batch 1")
    figure.savefig(path, dpi=110)


def report(found: dict[str, dict[int, dict[str, float]]]) -> str:
    """Everything, as Markdown."""
    return (
        f"Measured by `python -m benchmarks.growth` on {describe()}; one thread, processor time of "
        f"one call, most memory of the whole process. A case that would take more than "
        f"{MOST_SECONDS:.0f} s is left out.\n\n"
        "![time and memory against the side of the image](pictures/growth.png)\n\n" + table(found)
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("ENCODER", "SIDE"), help="one case, as JSON")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    torch.set_num_threads(1)
    found = measure()
    text = report(found)
    print(text)
    if options.write:
        plot(found, options.write.parent / "pictures" / "growth.png")
        put(options.write, "growth", text)


if __name__ == "__main__":
    main()
