"""Tensors that are cheaper to make again on the way back than to keep until then."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

View = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides of a view that starts where its tensor starts."""


@contextlib.contextmanager
def remade(made: Tensor, again: Callable[[], Tensor], *sources: Tensor) -> Iterator[None]:
    """Operators inside keep no `made` for their gradients: `again()` makes it, out of `sources`.

    It must come out the same, its strides too. Backward raises `RuntimeError` when a source was
    written to in the meantime, as autograd does for what it keeps. Under `torch.compile`, which
    decides for itself what is kept, nothing happens.
    """
    if not (made.requires_grad and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        yield
        return
    place, versions = made.data_ptr(), [source._version for source in sources]

    def keep(tensor: Tensor) -> Tensor | View:
        if tensor.data_ptr() == place:
            return tensor.shape, tensor.stride()
        return tensor.detach()  # the tensor itself may lead here: nothing would ever be freed

    def give(kept: Tensor | View) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if versions != [source._version for source in sources]:
            raise RuntimeError(
                "expected weights to stay as they are until backward has run; got weights that "
                "were changed in place; call backward first, or clone them"
            )
        with torch.no_grad():
            return again().as_strided(*kept)

    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        yield
