"""How much memory a forward pass needs beyond the weights and its input."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that were in use at once while `call` ran, above those in use before.

    On a GPU what its allocator says. On a processor the tensors that operators made and that were
    alive together: the same in every run, whatever else the machine does, and without the scratch
    space inside an operator.
    """
    if device.type != "cuda":
        with _Alive() as alive:
            call()
        return alive.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


class _Alive(TorchDispatchMode):
    """Follows every storage that an operator makes until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._given: set[int] = set()
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run the operator and note the new storages among its results."""
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in given and key not in self._known:
                self._known.add(key)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
