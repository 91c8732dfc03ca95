"""The parts of a detector, and who is at work: what counting and timing share."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from leandetr.models.detector import Detector

STAGES = ("backbone", "neck", "encoder", "queries", "decoder", "heads")

LAYER_KINDS = (
    (re.compile(r"blocks\.\d+\.high\.\d+"), "high-level layers"),
    (re.compile(r"blocks\.\d+\.full"), "full layers"),
    (re.compile(r"layers\.\d+"), "layers"),
    (re.compile(r"layers\.\d+\.object_attention"), "object attention"),
    (re.compile(r"scorer"), "scoring"),
)
"""Modules of encoders that get a row of their own; all else of an encoder is its `rest`."""


@dataclass(frozen=True)
class Part:
    """A row of a profile: the stage of the forward pass, and what of it, where it has kinds."""

    stage: str
    kind: str = ""

    @property
    def name(self) -> str:
        """`encoder, full layers` and so on; the stage `queries` is called query selection."""
        stage = "query selection" if self.stage == "queries" else self.stage
        return f"{stage}, {self.kind}" if self.kind else stage


OUTSIDE = Part("post-processing")
"""What no stage does: from predictions to detections, and what stands between the stages."""

TRAINING = Part("training only")
"""Where the parameters of training-only query groups are."""

Change = Callable[[Part], None]
"""Told whenever another part goes to work."""


class Watch:
    """Knows which part of a detector is at work, innermost first, and tells when it changes."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._stack = [OUTSIDE]

    @property
    def current(self) -> Part:
        """The part at work."""
        return self._stack[-1]

    def enter(self, part: Part) -> None:
        """Another part goes to work within the current one."""
        self._stack.append(part)
        self._change(part)

    def leave(self) -> None:
        """The current part is done; the one around it goes on."""
        self._stack.pop()
        self._change(self.current)


@contextmanager
def watched(model: Detector, change: Change | None = None) -> Iterator[Watch]:
    """Follow the forward passes of `model` inside the block."""
    watch = Watch(change or (lambda part: None))
    hooks = []
    for module, name in boundaries(model):
        hooks.append(module.register_forward_pre_hook(_entering(watch, name)))
        hooks.append(module.register_forward_hook(lambda *_: watch.leave(), always_call=True))
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def boundaries(model: Detector) -> Iterator[tuple[nn.Module, Part | None]]:
    """Modules whose work is a row of its own; None where it depends on who asks.

    The proposal head scores tokens for encoders, and picks queries.
    """
    for stage in STAGES[:-1]:
        yield model.get_submodule(stage), _outermost(model, stage)
    for module, kind in _kinds(model.get_submodule("encoder")):
        yield module, Part("encoder", kind)
    for module in _leaves(model.heads):
        yield module, Part("heads")
    for module in [] if model.proposals is None else model.proposals.children():
        yield module, None


def layers(model: Detector) -> dict[Part, int]:
    """How many modules of the encoder are in each of its rows."""
    counted: dict[Part, int] = {}
    for _, kind in _kinds(model.get_submodule("encoder")):
        counted[Part("encoder", kind)] = counted.get(Part("encoder", kind), 0) + 1
    return counted


def part_of(model: Detector, parameter: str) -> Part:
    """The row that a parameter of this name belongs to."""
    stage, _, inner = parameter.partition(".")
    if stage == "proposals":
        return Part("queries")
    words = inner.split(".") if stage == "encoder" else []
    for stop in range(len(words), 0, -1):
        for kind in _matches(".".join(words[:stop])):
            return Part(stage, kind)
    return _outermost(model, stage) if stage in STAGES else TRAINING


def _outermost(model: Detector, stage: str) -> Part:
    """What of a stage is in no row of its own."""
    split = stage == "encoder" and _kinds(model.get_submodule(stage))
    return Part(stage, "rest" if split else "")


def _matches(name: str) -> list[str]:
    """The kinds of layers that a module of an encoder, of this name, is."""
    return [kind for pattern, kind in LAYER_KINDS if pattern.fullmatch(name)]


def _entering(watch: Watch, part: Part | None) -> Callable[..., None]:
    def enter(*_: Any) -> None:
        asked = watch.current
        if part is not None:
            watch.enter(part)
        else:
            watch.enter(Part("encoder", "scoring") if asked.stage == "encoder" else asked)

    return enter


def _kinds(encoder: nn.Module) -> list[tuple[nn.Module, str]]:
    """The layers of an encoder, and what kind each of them is."""
    return [(module, kind) for name, module in encoder.named_modules() for kind in _matches(name)]


def _leaves(heads: nn.Module) -> Iterator[nn.Module]:
    """The class and box heads, whose container is never called itself."""
    for group in heads.children():
        yield from group.children()
