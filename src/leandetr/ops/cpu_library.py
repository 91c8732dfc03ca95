"""The library of CPU kernels: finds it, loads it, and calls it through ctypes.

The library has a variant for each instruction set and runs the best that the processor has; the
environment variable LEANDETR_CPU_VARIANT (avx512, avx2, generic) asks for another. Its threads
are PyTorch's own. After a fork it stays on one thread, because threads do not survive one.
"""

import ctypes
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from leandetr.errors import LeanDetrError
from leandetr.ops import pool
from leandetr.ops.build import LIBRARIES, library_name
from leandetr.ops.sizes import TYPES, Sizes, measure, numbers

VERSION = 1
"""What `leandetr_version` of a library that fits this file says."""

VARIANTS = ("generic", "avx2", "avx512")
Whole = ctypes.c_int64

ARRAYS = (
    *("value", "key", "query", "where", "weights", "reference", "output"),
    *("value_grad", "key_grad", "query_grad", "where_grad", "weights_grad", "reference_grad"),
)
Call = Whole * (3 + len(fields(Sizes)) + 2 * len(ARRAYS))
"""The struct of csrc/abi.h, all of whose fields are eight bytes wide: variant, threads, sizes,
address of the sides, then address and type of each array."""
PLACES = {name: 2 * place for place, name in enumerate(ARRAYS)}


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
        address = pool.entry()
        if address is not None:
            self._library.leandetr_use_threads(address)
        return address is not None

    def run(self, function: str, sides: list[int], **tensors: Tensor | None) -> None:
        """Call a function on contiguous tensors, named as in csrc/abi.h, that fit each other."""
        sizes = measure(sides, tensors)
        level_sides = (Whole * len(sides))(*sides)
        arrays = [0] * (2 * len(ARRAYS))
        for name, tensor in tensors.items():
            if tensor is not None:
                place = PLACES[name]
                arrays[place : place + 2] = tensor.data_ptr(), TYPES[tensor.dtype]
        call = Call(
            VARIANTS.index(self.variant),
            pool.threads(sizes.samples),
            *numbers(sizes),
            ctypes.addressof(level_sides),
            *arrays,
        )
        status = getattr(self._library, function)(call)
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


def _complaint(status: int, function: str, sizes: Sizes) -> str:
    reasons = {
        1: "the chosen instruction set does not run on this processor",
        2: "out of memory",
        3: "a size is out of range",
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
