"""Puts the Triton kernels behind the custom operators, for NVIDIA GPUs.

Registering imports neither Triton nor the kernels and leaves the GPU alone: the first call on a
GPU does both, and compiles (some seconds for each kernel and kind of launch; Triton keeps what
it compiled on disk).
"""

import importlib.util
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from leandetr.ops.backend import KERNEL_DEVICES, MISSING, register_kernel
from leandetr.ops.deform_attn import paired
from leandetr.ops.sizes import measure

KERNELS = {
    "deform_attn": ("triton_deform", "forward"),
    "deform_attn_backward": ("triton_deform", "backward"),
    "deform_attn_at": ("triton_deform", "forward_at"),
    "deform_attn_at_backward": ("triton_deform", "backward_at"),
    "key_aware_attn": ("triton_key_aware", "forward"),
    "key_aware_attn_backward": ("triton_key_aware", "backward"),
    "key_aware_attn_at": ("triton_key_aware", "forward_at"),
    "key_aware_attn_at_backward": ("triton_key_aware", "backward_at"),
}
"""Module and function behind each operator."""

INPUTS = {
    "deform_attn": ("value", "sides", "where", "weights"),
    "deform_attn_at": ("value", "sides", "reference", "where", "weights"),
    "key_aware_attn": ("query", "key", "value", "sides", "where"),
    "key_aware_attn_at": ("query", "key", "value", "sides", "reference", "where"),
}
"""What an operator takes, by the names of `measure`; backward ones take `output`'s gradient first,
and last whether the reference moves."""

WITHOUT_TRITON = (
    "Triton is not installed, so on this GPU sampling runs on PyTorch's grid_sample, slower and "
    "with much more memory; for the kernels: pip install triton"
)


def register() -> bool:
    """Register the kernels if PyTorch is built for CUDA and Triton is installed; whether it is."""
    if torch.version.cuda is None:
        return False
    if importlib.util.find_spec("triton") is None:
        MISSING["cuda"] = WITHOUT_TRITON
        return False
    for name in KERNELS:
        register_kernel(name, "cuda", kernel(name))
    KERNEL_DEVICES.add("cuda")
    return True


def kernel(name: str) -> Callable[..., Any]:
    """The kernel behind an operator, called as the operator is; imported when first called.

    Raises `LeanDetrError` for tensors that do not fit each other, before memory is touched.
    """
    module, function = KERNELS[name]
    names = INPUTS[name.removesuffix("_backward")]
    names = ("output", *names) if name.endswith("_backward") else names

    def call(*inputs: Any) -> Any:
        ready = [one.contiguous() if isinstance(one, Tensor) else one for one in inputs]
        given: dict[str, Any] = dict(zip(names, ready, strict=False))
        measure(given.pop("sides"), given)
        run = getattr(import_module(f"leandetr.ops.{module}"), function)
        return run(*(paired(one) if isinstance(one, list) else one for one in ready))

    return call
