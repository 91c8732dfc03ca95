"""The library of CPU kernels: finds it, loads it, and calls it through ctypes.

The library has a variant for each instruction set and runs the best that the processor has; the
environment variable LEANDETR_CPU_VARIANT (avx512, avx2, generic) asks for another. Its threads
are PyTorch's own. After a fork it stays on one thread, because threads do not survive one.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from leandetr.errors import LeanDetrError
from leandetr.ops.build import LIBRARIES, library_name

VERSION = 1
"""What `leandetr_version` of a library that fits this file says."""

VARIANTS = ("generic", "avx2", "avx512")
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
SMALL = 1 << 17
"""Sampled numbers of a call that one thread takes faster than two."""

Whole = ctypes.c_int64


class Array(ctypes.Structure):
    """Address and type of a contiguous tensor; see csrc/abi.h."""

    _fields_ = (("data", ctypes.c_void_p), ("type", Whole))


COUNTS = (
    *("variant", "threads", "images", "tokens", "queries", "heads", "width", "levels", "points"),
    *("own_levels", "reference_width"),
)
ARRAYS = (
    *("value", "key", "query", "where", "weights", "reference", "output"),
    *("value_grad", "key_grad", "query_grad", "where_grad", "weights_grad", "reference_grad"),
)


class Call(ctypes.Structure):
    """One call of an operator; see csrc/abi.h."""

    _fields_ = (
        *((name, Whole) for name in COUNTS),
        ("sides", ctypes.POINTER(Whole)),
        *((name, Array) for name in ARRAYS),
    )


class Library:
    """The built kernels: which variants run here, and the one in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        if self._library.leandetr_version() != VERSION:
            raise OSError(f"{path} was built from other sources")
        self._library.leandetr_use_threads.argtypes = [ctypes.c_void_p]
        self.threaded = self._lend_threads()
        self.variants = tuple(
            name for number, name in enumerate(VARIANTS) if self._library.leandetr_runs(number)
        )
        self.variant = _asked_variant(self.variants)

    def _lend_threads(self) -> bool:
        """Hand over the entry to PyTorch's OpenMP threads; without it all runs on one thread."""
        folder = Path(torch.__file__).parent / "lib"
        for name in (None, *(str(path) for path in sorted(folder.glob("libgomp*")))):
            with suppress(OSError, AttributeError):
                address = ctypes.cast(ctypes.CDLL(name).GOMP_parallel, ctypes.c_void_p)
                self._library.leandetr_use_threads(address)
                return True
        return False

    def run(self, function: str, sides: list[int], **tensors: Tensor | None) -> None:
        """Call a function on contiguous tensors, named as in csrc/abi.h, that fit each other."""
        call = Call(variant=VARIANTS.index(self.variant), sides=(Whole * len(sides))(*sides))
        sizes = _sizes(sides, tensors)
        for name in ARRAYS:
            tensor = tensors.get(name)
            if tensor is not None:
                _check(name, tensor, sizes)
                setattr(call, name, Array(tensor.data_ptr(), TYPES[tensor.dtype]))
        for name, number in sizes.items():
            setattr(call, name, number)
        samples = sizes["images"] * sizes["queries"] * sizes["heads"] * sizes["width"]
        samples *= sizes["levels"] * sizes["points"]
        call.threads = 1 if samples < SMALL else torch.get_num_threads()
        status = getattr(self._library, function)(ctypes.byref(call))
        if status:
            raise LeanDetrError(_complaint(status, function, sizes))


def _asked_variant(variants: tuple[str, ...]) -> str:
    asked = os.environ.get("LEANDETR_CPU_VARIANT")
    if asked is None:
        return variants[-1]
    if asked not in variants:
        raise LeanDetrError(
            f"expected LEANDETR_CPU_VARIANT to be one of {', '.join(variants)}, which run here; "
            f"got '{asked}'; unset it to get the fastest"
        )
    return asked


def _sizes(sides: list[int], tensors: dict[str, Tensor | None]) -> dict[str, int]:
    """The numbers of `Call` that describe the tensors."""
    value, where, reference = tensors["value"], tensors["where"], tensors.get("reference")
    assert value is not None
    assert where is not None
    return {
        "images": value.shape[0],
        "tokens": value.shape[1],
        "queries": where.shape[1],
        "heads": value.shape[2],
        "width": value.shape[3],
        "levels": len(sides) // 2,
        "points": where.shape[4],
        "own_levels": where.shape[3],
        "reference_width": 0 if reference is None else reference.shape[-1],
    }


def _check(name: str, tensor: Tensor, at: dict[str, int]) -> None:
    """The kernel trusts sizes: a wrong one must not get that far."""
    n, q, m, d, levels = (at[k] for k in ("images", "queries", "heads", "width", "levels"))
    kind = name.removesuffix("_grad")
    expected: dict[str, tuple[int, ...]] = {
        "value": (n, at["tokens"], m, d),
        "key": (n, at["tokens"], m, d),
        "query": (n, q, m, d),
        "output": (n, q, m * d),
        "where": (n, q, m, at["own_levels"], at["points"], 2),
        "weights": (n, q, m, levels, at["points"]),
        "reference": (n, q, levels, at["reference_width"]),
    }
    wanted = (m, *expected[kind]) if name == "reference_grad" else expected[kind]
    fits = at["own_levels"] in ((1, levels) if at["reference_width"] else (levels,))
    if kind == "weights" and at["reference_width"]:
        wanted = (n, q, m, levels * at["points"])
    if tuple(tensor.shape) != wanted or not tensor.is_contiguous() or not fits:
        raise LeanDetrError(
            f"expected {kind} of shape {wanted} for {levels} levels; got {tuple(tensor.shape)}; "
            "sizes are explained in leandetr.ops"
        )


def _complaint(status: int, function: str, sizes: dict[str, int]) -> str:
    reasons = {
        1: "the chosen instruction set does not run on this processor",
        2: "out of memory",
        3: "level shapes do not add up to the tokens, or a size is out of range",
    }
    return (
        f"{function} refused a call with {sizes}: {reasons.get(status, status)}; "
        "with leandetr.ops.use_backend('reference') the same call gives PyTorch's own message"
    )


def load() -> Library | None:
    """The library built for this platform, or None where there is none that fits."""
    path = LIBRARIES / library_name()
    if not path.exists():
        return None
    with suppress(OSError):
        return Library(path)
    return None
