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

from leandetr.ops.backend import KERNEL_DEVICES, MISSING, register_kernel
from leandetr.ops.deform_attn import paired

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
    """The kernel behind an operator, called as the operator is; imported when first called."""
    module, function = KERNELS[name]

    def call(*inputs: Any) -> Any:
        run = getattr(import_module(f"leandetr.ops.{module}"), function)
        return run(*(paired(given) if isinstance(given, list) else given for given in inputs))

    return call
