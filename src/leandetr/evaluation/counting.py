"""Multiply-adds of a detector by part and by kind of work, on tensors that have shapes only.

    counts = count("lite-dino-r50-h3l1-2p1x3", (800, 1066))
    counts.gmacs()                                   # what this package computes
    counts.gmacs(Tally(sampling="none"))             # without the sampling operators
    counts.gmacs(stage="encoder")

Everything is counted once; a `Tally` says what of it a paper counts.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from leandetr import ops
from leandetr.errors import RecipeError
from leandetr.evaluation.operators import Kind, is_known, work_of
from leandetr.evaluation.parts import OUTSIDE, Part, watched
from leandetr.evaluation.unread import unread
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe
from leandetr.types import Images

PRODUCTS = frozenset({Kind.CONVOLUTION, Kind.PRODUCT, Kind.ATTENTION})
"""What everybody counts."""

_KEYS = frozenset({Kind.KEY_INTERPOLATION, Kind.KEY_WEIGHING})

SAMPLING = {
    "all": _KEYS | {Kind.INTERPOLATION, Kind.WEIGHING},
    "grid": _KEYS | {Kind.INTERPOLATION, Kind.KEY_AGAIN},
    "key-aware": _KEYS | {Kind.KEY_AGAIN},
    "none": frozenset[Kind](),
}
"""What of the sampling operators counts. `all`: everything that is computed here. `grid`: what
fvcore sees when official sampling runs in plain PyTorch, every `grid_sample` and the products of
key-aware attention, but no weighted sum. `key-aware`: the same where only key-aware attention runs
in plain PyTorch, the other operator being compiled and unseen. `none`: nothing."""


@dataclass(frozen=True)
class Tally:
    """What counts besides convolutions, matrix products and attention.

    `sampling` is a key of `SAMPLING`; `norms` are layer and group norms; `elementwise` is all work
    on single elements, softmax and frozen batch norms with it; `unread` adds what official code
    works out though nobody reads it, and this package leaves out (see `unread.py`).
    """

    sampling: str = "all"
    norms: bool = False
    elementwise: bool = False
    unread: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLING:
            raise RecipeError(
                f"expected sampling of {', '.join(SAMPLING)}; got '{self.sampling}'; "
                "type sampling=all"
            )

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of work that count."""
        switches = {
            Kind.NORM: self.norms,
            Kind.ELEMENTWISE: self.elementwise,
            Kind.UNREAD: self.unread,
        }
        return PRODUCTS | SAMPLING[self.sampling] | {kind for kind in switches if switches[kind]}


@dataclass(frozen=True)
class Row:
    """Billions of multiply-adds of one kind of work in one part."""

    part: Part
    kind: Kind
    gmacs: float


@dataclass(frozen=True)
class Counts:
    """Everything that one forward pass computes, for one image; `rows` are in order of work."""

    rows: tuple[Row, ...]
    size: tuple[int, int]

    def gmacs(
        self, tally: Tally = Tally(), *, stage: str | None = None, part: Part | None = None
    ) -> float:
        """Billions of multiply-adds that `tally` counts, of all or one stage, or of one part."""
        kinds = tally.kinds
        chosen = (
            row.gmacs
            for row in self.rows
            if row.kind in kinds and stage in (None, row.part.stage) and part in (None, row.part)
        )
        return sum(chosen, 0.0)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that were at work, in order of first appearance."""
        return tuple(dict.fromkeys(row.part for row in self.rows))


def count(model: Detector | Recipe, size: tuple[int, int], *, batch: int = 1) -> Counts:
    """The multiply-adds of one image of `size` (height, width), mean of a `batch` of such.

    Nothing is computed, and a model keeps its weights and its mode. Raises `UncountedOperator` for
    an operator nobody has a rule for.
    """
    with torch.device("meta"), ops.use_backend("operator"), torch.inference_mode():
        detector = build(model) if isinstance(model, Recipe) else copy.deepcopy(model).to("meta")
        images = Images(torch.empty(batch, 3, *size), torch.zeros(batch, *size, dtype=torch.bool))
        with watched(detector.eval()) as watch:
            counter = WorkCounter(lambda: watch.current)
            with unread(detector, counter.add_unread), counter:
                detector(images)
    work = counter.work.items()
    rows = (Row(part, kind, each / batch / 1e9) for (part, kind), each in work if each)
    return Counts(tuple(rows), size)


class WorkCounter(TorchDispatchMode):
    """Counts the multiply-adds of every operator called inside the `with` block, in `work`.

    `at_work` tells which part calls.
    """

    def __init__(self, at_work: Callable[[], Part] = lambda: OUTSIDE) -> None:
        super().__init__()
        self.work = Counter[tuple[Part, Kind]]()
        self._at_work = at_work

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator; what has no rule and is made of others is taken apart."""
        kwargs = kwargs or {}
        if not is_known(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        for kind, work in work_of(func, args, kwargs, result):
            self.work[self._at_work(), kind] += work
        return result

    def add_unread(self, part: Part, work: int) -> None:
        """Count what official code computes besides."""
        self.work[part, Kind.UNREAD] += work
