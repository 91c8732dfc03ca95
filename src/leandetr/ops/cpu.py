"""Kernels on CPU, registered behind the custom operators: the built library, else numba.

Without either everything runs on the reference; the first use says once what is slower.
"""

from typing import Any

import torch
from torch import Tensor

from leandetr.ops.backend import KERNEL_DEVICES, MISSING, register_kernel
from leandetr.ops.cpu_library import Library, load
from leandetr.ops.numba_library import NumbaLibrary, is_installed

LIBRARY: Library | NumbaLibrary | None = load() or (NumbaLibrary() if is_installed() else None)

CURE = "install a wheel of leandetr, or install g++ and type: python -m leandetr.ops.build"
ON_REFERENCE = (
    "the CPU kernels of leandetr are not built for this machine: deformable and key-aware "
    f"attention run on plain PyTorch, many times slower; {CURE}, or: pip install numba"
)
ON_NUMBA = (
    "the CPU kernels of leandetr are not built for this machine: deformable and key-aware "
    f"attention run on numba, slower, and compile for some seconds at first use; {CURE}"
)


def _run(function: str, sides: list[int], given: dict[str, Tensor | None]) -> None:
    assert LIBRARY is not None
    LIBRARY.run(function, sides, **given)


def _settle(**tensors: Tensor | None) -> dict[str, Any]:
    """Contiguous tensors; what is sampled is in double precision where anything is."""
    ready = {name: t.contiguous() for name, t in tensors.items() if t is not None}
    dtype = ready["value"].dtype
    if any(tensor.dtype == torch.float64 for tensor in ready.values()):
        dtype = torch.float64
    for name in ("value", "key"):
        if name in ready:
            ready[name] = ready[name].to(dtype)
    return ready


def _grads(given: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """Room for the gradients of `names`."""
    return {f"{name}_grad": torch.empty_like(given[name]) for name in names if name in given}


def _parts(given: dict[str, Tensor], *, wanted: bool) -> dict[str, Tensor]:
    """Room for each head's part of the gradient of the reference."""
    reference, heads = given["reference"], given["value"].shape[2]
    if not wanted:
        return {}
    dtype = torch.promote_types(reference.dtype, torch.float32)
    return {"reference_grad": reference.new_empty((heads, *reference.shape), dtype=dtype)}


def _whole(parts: dict[str, Tensor], reference: Tensor) -> Tensor:
    """The gradient of the reference; empty when nobody wanted it."""
    if "reference_grad" not in parts:
        return reference.new_empty(0)
    return parts["reference_grad"].sum(dim=0).to(reference.dtype)


def _forward(function: str, sides: list[int], dtype: torch.dtype, **tensors: Any) -> Tensor:
    given = _settle(**tensors)
    images, _, heads, width = given["value"].shape
    output = torch.empty(images, given["where"].shape[1], heads * width, dtype=dtype)
    _run(function, sides, {**given, "output": output})
    return output


def _deform(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    return _forward(
        "leandetr_deform_attn", shapes, value.dtype, value=value, where=locations, weights=weights
    )


def _deform_backward(
    grad: Tensor, value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    given = _settle(output=grad, value=value, where=locations, weights=weights)
    grads = _grads(given, "value", "where", "weights")
    _run("leandetr_deform_attn_backward", shapes, {**given, **grads})
    return grads["value_grad"].to(value.dtype), grads["where_grad"], grads["weights_grad"]


def _deform_at(
    value: Tensor, shapes: list[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    given = {"value": value, "reference": reference, "where": offsets, "weights": logits}
    return _forward("leandetr_deform_attn", shapes, value.dtype, **given)


def _deform_at_backward(
    grad: Tensor,
    value: Tensor,
    shapes: list[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    moves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _settle(output=grad, value=value, reference=reference, where=offsets, weights=logits)
    grads, parts = _grads(given, "value", "where", "weights"), _parts(given, wanted=moves)
    _run("leandetr_deform_attn_backward", shapes, {**given, **grads, **parts})
    by_value, by_reference = grads["value_grad"].to(value.dtype), _whole(parts, reference)
    return by_value, by_reference, grads["where_grad"], grads["weights_grad"]


def _key_aware(
    query: Tensor, key: Tensor | None, value: Tensor, shapes: list[int], locations: Tensor
) -> Tensor:
    given = {"query": query, "key": key, "value": value, "where": locations}
    return _forward("leandetr_key_aware_attn", shapes, value.dtype, **given)


def _key_aware_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: list[int],
    locations: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _settle(output=grad, query=query, key=key, value=value, where=locations)
    grads = _grads(given, "query", "key", "value", "where")
    _run("leandetr_key_aware_attn_backward", shapes, {**given, **grads})
    by_key = value.new_empty(0) if key is None else grads["key_grad"].to(key.dtype)
    return grads["query_grad"], by_key, grads["value_grad"].to(value.dtype), grads["where_grad"]


def _key_aware_at(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: list[int],
    reference: Tensor,
    offsets: Tensor,
) -> Tensor:
    given = {"query": query, "key": key, "value": value, "reference": reference, "where": offsets}
    return _forward("leandetr_key_aware_attn", shapes, value.dtype, **given)


def _key_aware_at_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    shapes: list[int],
    reference: Tensor,
    offsets: Tensor,
    moves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = {"query": query, "key": key, "value": value, "reference": reference}
    given = _settle(output=grad, where=offsets, **tensors)
    grads, parts = _grads(given, "query", "key", "value", "where"), _parts(given, wanted=moves)
    _run("leandetr_key_aware_attn_backward", shapes, {**given, **grads, **parts})
    by_key = value.new_empty(0) if key is None else grads["key_grad"].to(key.dtype)
    by_value, by_reference = grads["value_grad"].to(value.dtype), _whole(parts, reference)
    return grads["query_grad"], by_key, by_value, by_reference, grads["where_grad"]


KERNELS = {
    "deform_attn": _deform,
    "deform_attn_backward": _deform_backward,
    "deform_attn_at": _deform_at,
    "deform_attn_at_backward": _deform_at_backward,
    "key_aware_attn": _key_aware,
    "key_aware_attn_backward": _key_aware_backward,
    "key_aware_attn_at": _key_aware_at,
    "key_aware_attn_at_backward": _key_aware_at_backward,
}


def register() -> None:
    """Put the kernels behind the operators and let `auto` choose them on CPU."""
    if not isinstance(LIBRARY, Library):
        MISSING["cpu"] = ON_REFERENCE if LIBRARY is None else ON_NUMBA
    if LIBRARY is None:
        return
    for name, kernel in KERNELS.items():
        register_kernel(name, "cpu", kernel)
    KERNEL_DEVICES.add("cpu")
