"""Which implementation of an operator runs: the one piece of global state in the library.

A plain module global, because Dynamo cannot trace a `ContextVar`.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from leandetr.errors import LeanDetrError, RecipeError

BACKENDS = ("auto", "reference", "operator")
"""`auto`: a kernel where one is registered for the device, else the reference.
`reference`: plain PyTorch, differentiated by PyTorch.
`operator`: the custom operator on every device; it recomputes in the backward pass."""

KERNEL_DEVICES: set[str] = set()
"""Device types for which a kernel has been registered behind the custom operators."""

MISSING: dict[str, str] = {}
"""What is missing, by device type, for a kernel that could be there; said once, at first use."""

_registered = torch.library.Library("leandetr", "FRAGMENT")
_backend = "auto"


def available_backends() -> tuple[str, ...]:
    """The names `use_backend` takes."""
    return BACKENDS


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators inside the block on one backend: for tests, and for doubt.

    Raises `RecipeError` for a name that `available_backends` does not list.
    """
    global _backend
    if name not in BACKENDS:
        raise RecipeError(f"expected a backend of {', '.join(BACKENDS)}; got '{name}'")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def calls_operator(tensor: Tensor) -> bool:
    """True where a call on `tensor` goes through the custom operator."""
    if torch.compiler.is_exporting():
        return False
    if _backend == "auto":
        if MISSING and not torch.compiler.is_compiling():
            _say_once(tensor.device.type)
        return tensor.device.type in KERNEL_DEVICES
    return _backend == "operator"


def register_kernel(name: str, device: str, kernel: Callable[..., Any]) -> None:
    """Run `kernel` when the operator leandetr::`name` is called on a device type.

    PyTorch's own `register_kernel` imports Dynamo at the first call: seconds, before the first
    picture. Here Dynamo is kept away from the kernel only once something has imported it.
    """
    hidden: list[Callable[..., Any]] = []

    def call(*inputs: Any) -> Any:
        if not hidden and "torch._dynamo" in sys.modules:
            hidden.append(torch.compiler.disable(kernel))
        return (hidden[0] if hidden else kernel)(*inputs)

    _registered.impl(name, call, device.upper())


def _say_once(device: str) -> None:
    missing = MISSING.pop(device, None)
    if missing:
        logging.getLogger(__name__).warning(missing)


def refuse_second_derivative(ctx: Any, *grads: Tensor) -> NoReturn:
    """What the backward operators have for a derivative: a sentence."""
    raise LeanDetrError(
        "the sampling operators have first derivatives only; for second ones wrap the forward pass "
        "in: with leandetr.ops.use_backend('reference')"
    )
