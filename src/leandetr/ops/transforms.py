"""What `torch.func` and forward-mode differentiation do to a call: they see plain PyTorch.

The custom operators know reverse mode only. Under forward mode PyTorch takes an operator without a
rule for a constant and says nothing; under `torch.func.grad` it fails; under `vmap` it calls it in
a loop. The reference is made of operators that PyTorch can transform, or refuses to by name.
"""

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual


def is_transformed(*tensors: Tensor | None) -> bool:
    """Whether a transform wraps a tensor, or gives it a tangent; never while compiling."""
    if torch.compiler.is_compiling():
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if any(is_functorch_wrapped_tensor(tensor) for tensor in given):
        return True
    return any(unpack_dual(tensor).tangent is not None for tensor in given)
