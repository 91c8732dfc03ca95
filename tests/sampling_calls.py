"""The sampling operators as one: what each takes, how it is called, and everything it runs on.

A way is a backend, or one of the instruction sets of the CPU kernels; `written-out` is the operator
without a kernel: plain PyTorch and the gradients of `reference.py`, as a device without one has it.
"""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from leandetr import ops
from leandetr.ops import cpu
from leandetr.ops.deform_attn import flat
from leandetr.types import Shapes
from sampling import Sizes, locations, logits, offsets, queries, references, tokens, weights

KINDS = ("deform", "deform-at", "shared-key", "own-key", "shared-key-at", "own-key-at")
VARIANTS = cpu.LIBRARY.variants if cpu.LIBRARY else ()
WAYS = ("reference", "written-out", *VARIANTS)

kinds = pytest.mark.parametrize("kind", KINDS)
ways = pytest.mark.parametrize("way", WAYS)


def draw(
    kind: str,
    at: Sizes,
    dtype: torch.dtype = torch.float64,
    *,
    wide: int = 2,
    shared: bool = False,
) -> list[Tensor]:
    """Tensors for `call`; fused kinds take references that are `wide` and may share offsets."""
    where = (locations(at, dtype),)
    if kind.endswith("-at"):
        where = (references(at, wide, dtype), offsets(at, dtype, shared=shared))
    if kind == "deform":
        return [tokens(at, dtype), *where, weights(at, dtype)]
    if kind == "deform-at":
        return [tokens(at, dtype), *where, logits(at, dtype)]
    maps = [tokens(at, dtype) for _ in range(2 if kind.startswith("own") else 1)]
    return [queries(at, dtype), *maps, *where]


def call(kind: str, shapes: Shapes, *given: Tensor) -> Tensor:
    """The public function on what `draw` made."""
    if kind == "deform":
        return ops.deform_attn(given[0], shapes, *given[1:])
    if kind == "deform-at":
        return ops.deform_attn_at(given[0], shapes, *given[1:])
    query, *rest = given
    key, value, *where = rest if kind.startswith("own") else (rest[0], *rest)
    function = ops.key_aware_attn_at if kind.endswith("-at") else ops.key_aware_attn
    return function(query, key, value, shapes, *where)


def value_index(kind: str) -> int:
    """Which of the tensors is the value."""
    return 0 if kind.startswith("deform") else 2 if kind.startswith("own") else 1


def operator(kind: str, shapes: Shapes, *given: Tensor | None) -> tuple[str, list[Any]]:
    """Name of the custom operator, and the tensors as it takes them."""
    at = "_at" if kind.endswith("-at") else ""
    if kind.startswith("deform"):
        return f"deform_attn{at}", [given[0], flat(shapes), *given[1:]]
    query, *rest = given
    key, value, *where = rest if kind.startswith("own") else (None, *rest)
    return f"key_aware_attn{at}", [query, key, value, flat(shapes), *where]


@contextmanager
def running(way: str) -> Iterator[None]:
    """Operators inside run this way."""
    if way == "reference":
        with ops.use_backend("reference"):
            yield
    elif way == "written-out":
        with torch.library._scoped_library("leandetr", "IMPL") as library, _quiet():
            for name in cpu.KERNELS:
                library.impl(name, _without_kernel(name), "CPU", allow_override=True)
            with ops.use_backend("operator"):
                yield
    else:
        assert cpu.LIBRARY is not None
        with pytest.MonkeyPatch.context() as patch, ops.use_backend("operator"):
            patch.setattr(cpu.LIBRARY, "variant", way)
            yield


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns that a kernel is replaced, which is what we want."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Oo]verrid.*")
        yield


def _without_kernel(name: str) -> Any:
    """What an operator does on a device that has no kernel."""
    module = import_module(f"leandetr.ops.{name.removesuffix('_backward')}")
    return (module._backward_op if name.endswith("_backward") else module._op)._init_fn


def answers(
    way: str, kind: str, shapes: Shapes, drawn: list[Tensor], moves: Collection[int] | None = None
) -> list[Tensor | None]:
    """Output, and the gradient of each tensor for a pull that every precision can hold.

    With `moves`, only the tensors of these numbers want a gradient; the others' is None.
    """
    leaves = [tensor.detach() for tensor in drawn]
    for index, leaf in enumerate(leaves):
        leaf.requires_grad_(moves is None or index in moves)
    with running(way):
        output = call(kind, shapes, *leaves)
        generator = torch.Generator().manual_seed(1)
        pull = torch.randint(-16, 17, output.shape, generator=generator) / 8
        if output.requires_grad:
            output.backward(pull.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]
