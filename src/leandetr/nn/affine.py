"""A linear layer, and what may follow it, as one operator where the processor has one."""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether oneDNN multiplies matrices of bfloat16 on this processor; it refuses otherwise."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def affine(
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None,
    then: str = "none",
) -> Float[Tensor, "*B O"]:
    """What a linear layer makes of x; `then` is "none" or "relu".

    On a processor in bfloat16, product, bias and ReLU are one operator of oneDNN: plain PyTorch
    writes the bias first and reads the product again, which takes up to twice as long. That
    operator belongs to PyTorch's own compiler and may go; then the plain way is left. It has no
    gradient: with one to be kept, the plain way is taken too.
    """
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    low = x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu"
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if fused is None or not low or learns or torch.compiler.is_compiling():
        return _plain(x, weight, bias, then)
    if not multiplies_bfloat16():
        return _plain(x, weight, bias, then)
    return fused(x, weight, bias, then, [], "")


def _plain(
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None,
    then: str,
) -> Float[Tensor, "*B O"]:
    product = F.linear(x, weight, bias)
    return F.relu(product, inplace=True) if then == "relu" else product
