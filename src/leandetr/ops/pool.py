"""PyTorch's own OpenMP threads, lent to the CPU kernels: a second pool would fight them.

The threads of a pool do not survive a fork, so in a forked process all runs on one thread.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

SMALL = 1 << 17
"""Sampled numbers of a call that one thread takes faster than two."""

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PARALLEL = ctypes.CFUNCTYPE(None, BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
_process = os.getpid()


@cache
def entry() -> int | None:
    """Address of GOMP_parallel in the OpenMP library that PyTorch uses; None where it has none."""
    folder = Path(torch.__file__).parent / "lib"
    found = (path for kind in ("libgomp*", "libomp*", "libiomp*") for path in folder.glob(kind))
    for name in (None, *sorted(map(str, found))):
        with suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(name).GOMP_parallel, ctypes.c_void_p).value
    return None


def threads(samples: int) -> int:
    """How many threads a call that samples so many numbers should have."""
    return 1 if samples < SMALL else torch.get_num_threads()


def run_on(threads: int, work: Callable[[], None]) -> None:
    """Call `work` on up to `threads` threads at once and wait; its first error is raised here."""
    address = entry()
    if threads < 2 or address is None or os.getpid() != _process:
        work()
        return
    errors: list[Exception] = []

    def body(_: int | None) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - no frame of Python waits above
            errors.append(error)

    PARALLEL(address)(BODY(body), None, threads, 0)
    if errors:
        raise errors[0]
