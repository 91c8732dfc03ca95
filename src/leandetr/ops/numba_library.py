"""The numba kernels behind the interface of the built library; numba is imported at first use.

Half precision is converted to single and back. The fused operators compute locations and softmax
in PyTorch, around the plain kernels.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leandetr.errors import LeanDetrError
from leandetr.ops import pool, reference_at
from leandetr.ops.sizes import Sizes, measure
from leandetr.types import Shapes

Tensors = dict[str, Tensor]

ROWS = ("key", "value")
WORTH_PACKING = 8
"""Corners read per token below which gathering the rows of a head costs more than it saves."""


def is_installed() -> bool:
    """Whether numba can be imported; it is not imported here."""
    return importlib.util.find_spec("numba") is not None


class NumbaLibrary:
    """Runs the calls that the built library takes, some times slower."""

    variants = ("numba",)

    def __init__(self) -> None:
        self.variant = "numba"
        self.threaded = pool.entry() is not None

    def run(self, function: str, sides: list[int], **tensors: Tensor | None) -> None:
        """Call a function on contiguous tensors, named as in csrc/abi.h, that fit each other."""
        sizes = measure(sides, tensors)
        shapes = tuple(zip(sides[::2], sides[1::2], strict=True))
        if not sizes.points:
            raise LeanDetrError(
                f"expected at least one point a level; got a call with {sizes}; with "
                "leandetr.ops.use_backend('reference') no points give zeros"
            )
        given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        work = Work(function.removeprefix("leandetr_"), sizes, shapes)
        written = work.backward(given) if function.endswith("_backward") else work.forward(given)
        for name, tensor in written.items():
            if name in given:
                given[name].copy_(tensor)


@dataclass(frozen=True)
class Work:
    """One call of one function of `numba_kernels`."""

    function: str
    sizes: Sizes
    shapes: Shapes

    def forward(self, given: Tensors) -> Tensors:
        """The output."""
        call = self._prepare(given)
        arrays: tuple[Any, ...] = (call["value"], call["where"])
        if "query" in call:
            own = call.get("key", call["value"])
            arrays = (call["query"], own, call["value"], "key" not in call, call["where"])
        else:
            arrays = (*arrays, call["weights"])
        self._on_every_head(*arrays, call["output"])
        return {"output": call["output"]}

    def backward(self, given: Tensors) -> Tensors:
        """All gradients, under the names of the interface."""
        call = self._prepare(given)
        grads = {n: torch.zeros_like(call[n]) for n in ("query", "key", "value") if n in call}
        grads["where"] = torch.empty_like(call["where"])
        if "query" in call:
            own = call.get("key", call["value"])
            read = (call["query"], own, call["value"], call["where"], call["output"])
            summed = tuple(grads.get(name, grads["value"]) for name in ("query", "key", "value"))
            self._on_every_head(*read, summed, grads["where"])
        else:
            grads["weights"] = torch.empty_like(call["weights"])
            read = (call[name] for name in ("value", "where", "weights", "output"))
            self._on_every_head(*read, *grads.values())
        back = self._unlocate({**grads, **self._turned(grads)}, call)
        return {f"{name}_grad": grad for name, grad in back.items()}

    @property
    def _packed(self) -> bool:
        """Whether each row is read so often that gathering those of a head first pays."""
        at = self.sizes
        return 4 * at.queries * at.levels * at.points > WORTH_PACKING * at.tokens

    def _turned(self, tensors: Tensors) -> Tensors:
        """Key and value with heads before tokens or the other way round, if packed."""
        found = {name: tensors[name] for name in ROWS if name in tensors}
        return {n: t.transpose(1, 2).contiguous() if self._packed else t for n, t in found.items()}

    def _prepare(self, given: Tensors) -> Tensors:
        """What is read: of one type, rows packed, locations and weights instead of offsets."""
        double = any(tensor.dtype == torch.float64 for tensor in given.values())
        dtype = torch.float64 if double else torch.float32
        call = {n: t.detach().to(dtype) for n, t in given.items() if not n.endswith("_grad")}
        call |= self._turned(call)
        if "reference" in call:
            offsets = call["offsets"] = call["where"]
            where = reference_at.locate(call["reference"], offsets, self.shapes)
            call["where"] = where.contiguous()
            if "weights" in call:
                call["weights"] = reference_at.share_out(call["weights"], offsets.shape[-2])
        return call

    def _unlocate(self, grads: Tensors, call: Tensors) -> Tensors:
        """The way back: gradients of reference, offsets and logits instead."""
        if "reference" not in call:
            return grads
        by_reference, by_offset = reference_at.locate_backward(
            grads["where"], call["reference"], call["offsets"], self.shapes
        )
        parts = by_reference.new_zeros(self.sizes.heads, *by_reference.shape)
        parts[:1] = by_reference  # the caller adds up the heads
        back = {**grads, "where": by_offset, "reference": parts}
        if "weights" in grads:
            pulled, weights = grads["weights"], call["weights"]
            mean = (pulled * weights).sum(dim=(3, 4), keepdim=True)
            back["weights"] = ((pulled - mean) * weights).flatten(3)
        return back

    def _on_every_head(self, *given: Any) -> None:
        """Heads of all images one after another, on as many threads as PyTorch uses."""
        from leandetr.ops import numba_kernels

        at, arrays = self.sizes, tuple(_arrays(one) for one in given)
        run = getattr(numba_kernels, self.function)
        sides = np.array(self.shapes, np.int64).reshape(-1)
        each = (at.heads, at.points, at.width)
        run(0, 0, (0, 1), (0, *each), sides, *arrays)  # compiles here: threads have small stacks
        planes = iter(range(at.images * at.heads))  # one at a time, under Python's lock

        def work() -> None:
            for plane in planes:
                image, head = divmod(plane, at.heads)
                rows = (plane * at.tokens * at.width, at.width)
                if not self._packed:
                    rows = ((image * at.tokens * at.heads + head) * at.width, at.heads * at.width)
                run(image, head, rows, (at.queries, *each), sides, *arrays)

        pool.run_on(pool.threads(at.samples), work)


def _arrays(given: Any) -> Any:
    """Flat arrays that share the memory of contiguous tensors."""
    if isinstance(given, tuple):
        return tuple(_arrays(one) for one in given)
    return given.view(-1).numpy() if isinstance(given, Tensor) else given
