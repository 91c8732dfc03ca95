"""Whole detectors: kernels against the reference operators, part by part.

    python -m benchmarks.models --threads 2          # all of this, half an hour on two cores:
    python -m benchmarks.models --parts              # only inference, part by part
    python -m benchmarks.models --training           # only training steps and peak memory
    python -m benchmarks.models --peers              # only against transformers
    python -m benchmarks.models --runtimes           # only against onnxruntime and OpenVINO
    python -m benchmarks.models --peak               # only shares of the machine's best
    python -m benchmarks.models --startup            # only the way to the first picture
    python -m benchmarks.models --write docs/benchmarks.md

Models and backends run in turns, both backends with the same weights; each figure is the shortest
of its rounds, which other work on the machine disturbs least. Weights and images are random: they
do not change the time.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import leandetr
from benchmarks import peak, peers, runtimes, startup, training
from benchmarks.machine import describe
from benchmarks.page import put
from benchmarks.turns import clock, unit
from leandetr.evaluation.counting import Tally, count
from leandetr.models.detector import Detector
from leandetr.ops import use_backend
from leandetr.types import Images

PARTS = ("backbone", "neck", "encoder", "queries", "decoder", "whole")
DINO, DEFORMABLE = "dino-r50", "deformable-detr-r50"
MODELS = (
    DINO,
    "lite-dino-r50-h3l1-2p1x3",
    "lite-dino-r50-h3l1-6p1x1",
    "lite-dino-r50-h2l2-2p1x3",
    "focus-detr-r50",
    DEFORMABLE,
    "lite-deformable-detr-r50-h3l1-2p1x3",
)
"""Full models first: the others are held against those of their family."""
BACKENDS = ("reference", "operator")

Times = dict[str, float]
"""Milliseconds by part."""


class Stopwatch:
    """Milliseconds spent in each part of a model's last forward pass."""

    def __init__(self, model: Detector) -> None:
        self.spent: Times = {}
        for name in PARTS[:-1]:
            self._watch(model.get_submodule(name), name)
        self._watch(model, "whole")

    def _watch(self, module: torch.nn.Module, name: str) -> None:
        began: list[float] = []
        module.register_forward_pre_hook(lambda *_: began.append(clock()))
        module.register_forward_hook(
            lambda *_: self.spent.__setitem__(name, 1000 * (clock() - began.pop()))
        )


def blank(images: int, height: int, width: int) -> Images:
    """A batch of noise without padding."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, height, width, generator=generator)
    return Images(pixels, torch.zeros(images, height, width, dtype=torch.bool))


Variant = Callable[[Detector], Detector]
VARIANTS: dict[str, Variant] = {
    "reference": lambda model: model,
    "kernels": lambda model: model,
    "optimised": lambda model: model.optimise(),
    "bfloat16": lambda model: model.optimise(dtype=torch.bfloat16),
}
"""The ways in which a model runs; all but the first use the kernels."""


@torch.inference_mode()
def forward_times(
    names: Sequence[str], size: tuple[int, int], rounds: int
) -> dict[str, dict[str, Times]]:
    """The shortest time of each part of each model, by variant.

    In every round all models take their turn in a variant before the next one: a machine whose pace
    changes slows models that are held against each other alike.
    """
    images, small = blank(1, *size), blank(1, 64, 96)
    bases = {name: leandetr.create_model(name).eval() for name in names}
    models = {(v, n): make(base) for v, make in VARIANTS.items() for n, base in bases.items()}
    clocks = {id(model): Stopwatch(model) for model in models.values()}
    best: dict[str, dict[str, Times]] = {name: {v: {} for v in VARIANTS} for name in names}
    for _ in range(rounds):
        for (variant, name), model in models.items():
            with use_backend("reference" if variant == "reference" else "operator"):
                model(small)
                model(images)
            found = best[name][variant]
            for part, spent in clocks[id(model)].spent.items():
                found[part] = min(found.get(part, spent), spent)
    return best


def full_of(name: str) -> str:
    """The model with the full encoder that this one is held against."""
    return DEFORMABLE if "deformable" in name else DINO


def encoder_gmacs(name: str, size: tuple[int, int]) -> float:
    """Billions of multiply-adds of the encoder, sampling and key-aware weighing included."""
    return count(leandetr.recipe(name), size).gmacs(Tally(), stage="encoder")


def kernel_table(times: dict[str, dict[str, Times]], size: tuple[int, int]) -> str:
    """Reference against kernels, and each encoder against the full one."""
    lines = [
        "| model | encoder, reference ms | kernels ms | ratio | whole, reference ms | kernels ms "
        "| ratio | encoder's time, of the full one's | its GMACs, of the full one's "
        "| whole, of the full one's |",
        "|---|" + "---:|" * 9,
    ]
    for name, by_variant in times.items():
        slow, fast, base = by_variant["reference"], by_variant["kernels"], full_of(name)
        full, gmacs = times[base]["kernels"], encoder_gmacs(base, size)
        cells = []
        for part in ("encoder", "whole"):
            ratio = slow[part] / fast[part]
            cells += [f"{slow[part]:.0f}", f"{fast[part]:.0f}", f"{ratio:.1f}"]
        cells.append(f"{fast['encoder'] / full['encoder']:.2f}")
        cells.append(f"{encoder_gmacs(name, size) / gmacs:.2f}")
        cells.append(f"{fast['whole'] / full['whole']:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def part_table(times: dict[str, dict[str, Times]]) -> str:
    """Milliseconds of every part with kernels: as it is, optimised, and in bfloat16."""
    lines = [
        "| model | as | " + " | ".join(f"{part} ms" for part in PARTS) + " | faster |",
        "|---|---|" + "---:|" * (len(PARTS) + 1),
    ]
    for name, by_variant in times.items():
        for variant in ("kernels", "optimised", "bfloat16"):
            spent = by_variant[variant]
            faster = by_variant["kernels"]["whole"] / spent["whole"]
            cells = [f"{spent[part]:.0f}" for part in PARTS]
            said = {"kernels": "it is", "optimised": "optimised"}.get(variant, "optimised, bf16")
            lines.append(f"| {name} | {said} | " + " | ".join(cells) + f" | {faster:.2f} |")
    return "\n".join(lines)


def report(size: tuple[int, int], options: argparse.Namespace) -> str:
    """Everything asked for, as Markdown."""
    names = options.models or MODELS
    names = dict.fromkeys((*(full_of(name) for name in names), *names))  # each one once
    times = forward_times(list(names), size, options.rounds)
    return (
        f"Measured by `python -m benchmarks.models --parts` on {describe()}; float32, {unit()}, "
        f"shortest of {options.rounds} rounds.\n\n"
        f"Forward pass, one image of {size[0]}x{size[1]}, reference operators against kernels. "
        f"Full encoders are those of {DINO} and, for deformable models, {DEFORMABLE}:\n\n"
        f"{kernel_table(times, size)}\n\n"
        f"By part, with kernels; optimised is `model.optimise()`:\n\n{part_table(times)}"
    )


Report = Callable[[tuple[int, int], argparse.Namespace], str]
SECTIONS: dict[str, tuple[str, Report, str]] = {
    "parts": ("models", report, "kernels against the reference operators, part by part"),
    "training": ("training", training.report, "training steps and peak memory"),
    "peers": ("peers", peers.report, "against transformers"),
    "runtimes": ("runtimes", runtimes.report, "against onnxruntime and OpenVINO"),
    "peak": ("peak", peak.report, "shares of the machine's best at multiplying matrices"),
    "startup": ("startup", lambda _, options: startup.report(options.rounds), "first picture"),
}
"""The mark on the page, what writes it, and what it is, by option."""


def told(options: argparse.Namespace, name: str) -> bool:
    """Print one section, and put it on the page; False where a package is missing for it."""
    mark, ask, _ = SECTIONS[name]
    height, width = (int(side) for side in options.size.split("x"))
    try:
        text = ask((height, width), options)
    except ModuleNotFoundError as error:
        print(f"--{name} is left out: {error}\n", file=sys.stderr)
        return False
    print(f"{text}\n", flush=True)
    if options.write:
        put(options.write, mark, text)
    return True


def main() -> int:
    """Print every section, or the one asked for; 1 if any was left out.

    With --write each is put between its markers of a page as soon as it is there.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--size", default="800x1066", help="height x width of the image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as PyTorch takes")
    parser.add_argument("--models", nargs="+", help="others than usual")
    only = parser.add_mutually_exclusive_group()
    for name, (_, _, said) in SECTIONS.items():
        only.add_argument(
            f"--{name}", dest="only", action="store_const", const=name, help=f"only: {said}"
        )
    parser.add_argument("--write", type=Path, help="page whose marked parts are replaced")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    done = [told(options, name) for name in ([options.only] if options.only else SECTIONS)]
    return 0 if all(done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
