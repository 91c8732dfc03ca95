"""Where the parameters, multiply-adds and time of a detector go, part by part.

found = profile("lite-dino-r50-h3l1-2p1x3", (800, 1066))
found.gmacs, found.latency.median, found.peak_memory
for row in found.rows:
    row.part, row.parameters, row.gmacs, row.latency.median, row.share_of_peak
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from leandetr.checkpoints.store import load, recipe_of
from leandetr.errors import RecipeError
from leandetr.evaluation.conventions import Sizes, mean_counts, tally_of
from leandetr.evaluation.conventions import convention as find_convention
from leandetr.evaluation.cost import usual_size
from leandetr.evaluation.counting import Tally, count
from leandetr.evaluation.machine import describe, device_of
from leandetr.evaluation.parts import OUTSIDE, STAGES, TRAINING, Part, layers, part_of
from leandetr.evaluation.timing import Measured, Spread, measure
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model, list_models
from leandetr.recipes.recipe import Recipe
from leandetr.types import Images

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARM_UP = 2
"""Passes that are not measured: caches fill, kernels are chosen."""


@dataclass(frozen=True)
class How:
    """How to measure: `passes` that count, of a `batch` of images, on a `device`, in a `dtype`.

    `fast` measures what `Detector.optimise` makes of the model; bfloat16 always does.
    """

    device: str = "auto"
    dtype: str = "float32"
    batch: int = 1
    passes: int = 10
    fast: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RecipeError(
                f"expected dtype of {', '.join(DTYPES)}; got '{self.dtype}'; type --dtype float32"
            )
        if self.batch < 1 or self.passes < 1:
            raise RecipeError(
                f"expected batch and passes of at least 1; got {self.batch} and {self.passes}"
            )


@dataclass(frozen=True)
class PartProfile:
    """One part of a detector: a stage, what `kind` of work of it, of so many `layers` alike.

    `gmacs` are for one image, as the tally counts, `latency` is seconds for the batch.
    `share_of_peak` is how fast the part multiplies beside one large matrix product, 1 being as
    fast: all that it computes counts, sampling too; None where it multiplies nothing.
    """

    stage: str
    kind: str
    layers: int
    parameters: int
    gmacs: float
    latency: Spread = Spread(0.0, 0.0, 0.0)
    share_of_peak: float | None = None

    @property
    def name(self) -> str:
        """`encoder, 3 full layers` and so on."""
        if not self.kind.endswith("layers"):
            return Part(self.stage, self.kind).name
        kind = self.kind.removesuffix("s") if self.layers == 1 else self.kind
        return Part(self.stage, f"{self.layers} {kind}").name


@dataclass(frozen=True)
class Profile:
    """What a detector costs, whole and part by part in `rows`.

    `gmacs` are billions of multiply-adds for one image as `tally` counts; rows add up to it.
    `latency` is seconds from a batch of tensors of `size` (height, width) to detections.
    `peak_memory` is the bytes of tensors alive together on top of weights and input, in float32
    the same in every run; `process_memory` what the process held at most on top of what it held
    before, scratch space and all (None: not on Linux, or on a GPU). `matmul_peak` is billions of
    multiply-adds a second of one large matrix product, the median of one after every pass.
    """

    model: str
    convention: str | None
    size: tuple[int, int]
    tally: Tally
    how: How
    parameters: int
    gmacs: float
    latency: Spread
    share_of_peak: float
    peak_memory: int
    process_memory: int | None
    matmul_peak: float
    rows: tuple[PartProfile, ...]
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [{"part": row.name, **asdict(row)} for row in self.rows]
        return {**asdict(self), "rows": rows}


def profile(
    model: str | Recipe | Detector,
    size: tuple[int, int] | None = None,
    *,
    convention: str | None = None,
    tally: Tally | None = None,
    how: How = How(),
) -> Profile:
    """Count and time a model: a name as in all commands, a recipe, or a detector.

    `size` is (height, width) of the network's input, else the usual one of its recipe. A
    `convention` (see `conventions.py`) is what a paper does instead: sizes, of which the commonest
    is timed, and a tally, unless `tally` is another. Weights that are not trained are random: that
    changes no count and hardly a time. Raises `LeanDetrError` for what cannot be profiled.
    """
    named, detector = _opened(model)
    device = device_of(how.device)
    detector = detector.to(device).eval()
    sizes = _sizes(detector, size, convention)
    timed = max(sizes, key=lambda one: one[1])[0]
    tally = tally or tally_of(convention)
    worked = count(detector, timed)
    counts = worked if len(sizes) == 1 else mean_counts(detector, sizes)
    images = _noise(timed, how.batch, device)
    ready, dtype = _prepared(detector, how), DTYPES[how.dtype]
    measured = measure(ready, images, passes=how.passes, warm_up=WARM_UP, dtype=dtype)
    rows = _rows(detector, {part: counts.gmacs(tally, part=part) for part in counts.parts})
    computed = {part: worked.gmacs(part=part) * how.batch for part in rows}
    return Profile(
        model=named,
        convention=convention,
        size=timed,
        tally=tally,
        how=replace(how, device=str(device)),
        parameters=sum(row.parameters for row in rows.values()),
        gmacs=counts.gmacs(tally),
        latency=Spread.of(measured.seconds()),
        share_of_peak=measured.share(sum(computed.values())) or 0.0,
        peak_memory=measured.peak,
        process_memory=measured.held,
        matmul_peak=statistics.median(measured.rates),
        rows=tuple(_timed(row, part, measured, computed[part]) for part, row in rows.items()),
        machine=describe(device),
    )


def _sizes(detector: Detector, size: tuple[int, int] | None, convention: str | None) -> Sizes:
    """What the detector is to be counted on. Raises `RecipeError` where two things are asked."""
    if convention is None:
        return ((size or usual_size(detector.recipe), 1),)
    if size is not None:
        raise RecipeError("a convention has its own size; type either --size or --convention")
    return find_convention(convention, detector.preprocess).sizes


def _rows(detector: Detector, gmacs: dict[Part, float]) -> dict[Part, PartProfile]:
    """What is known of the parts before they are timed, in the order in which they work."""
    weights = Counter[Part]()
    for name, parameter in detector.named_parameters():
        weights[part_of(detector, name)] += parameter.numel()
    number = layers(detector)
    return {
        part: PartProfile(
            stage=part.stage,
            kind=part.kind,
            layers=number.get(part, 0),
            parameters=weights[part],
            gmacs=gmacs.get(part, 0.0),
        )
        for part in _in_order((*gmacs, *number, *weights, OUTSIDE))
    }


def _timed(row: PartProfile, part: Part, measured: Measured, gmacs: float) -> PartProfile:
    """The row with its times; `gmacs` is what the part computes in a pass."""
    spread = Spread.of(measured.seconds(part))
    return replace(row, latency=spread, share_of_peak=measured.share(gmacs, part))


def _in_order(parts: Iterable[Part]) -> list[Part]:
    """The parts in the order in which they work; of a stage, the rest comes last."""
    stages = (*STAGES, OUTSIDE.stage, TRAINING.stage)
    return sorted(
        dict.fromkeys(parts), key=lambda part: (stages.index(part.stage), part.kind == "rest")
    )


def _opened(model: str | Recipe | Detector) -> tuple[str, Detector]:
    """What the model is called, and the model; of a recipe one with random weights."""
    if isinstance(model, Detector):
        return model.recipe.name if model.recipe else "model", model
    if isinstance(model, Recipe):
        return model.name, create_model(model)
    is_recipe = model in list_models() or Path(model).expanduser().is_file()
    return model, create_model(recipe_of(model)) if is_recipe else load(model)


def _prepared(detector: Detector, how: How) -> Detector:
    """The detector as it is to be timed."""
    if not how.fast and how.dtype == "float32":
        return detector
    from leandetr.models.optimise import optimise

    return optimise(detector, dtype=DTYPES[how.dtype])


def _noise(size: tuple[int, int], batch: int, device: torch.device) -> Images:
    """Images without padding: what they show does not matter."""
    pixels = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.zeros(batch, *size, dtype=torch.bool)).to(device)
