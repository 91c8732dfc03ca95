"""The sizes of one call of a kernel, and the check that its tensors fit them."""

from dataclasses import astuple, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from leandetr.errors import LeanDetrError

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""What kernels read and write, by the numbers of csrc/abi.h."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of `Call` in csrc/abi.h that describe the tensors, in its order."""

    images: int
    tokens: int
    queries: int
    heads: int
    width: int
    levels: int
    points: int
    own_levels: int
    reference_width: int

    @property
    def samples(self) -> int:
        """How many numbers the call samples."""
        return self.images * self.queries * self.heads * self.width * self.levels * self.points


@lru_cache(maxsize=256)
def numbers(sizes: Sizes) -> tuple[int, ...]:
    """All sizes in order; models call with the same ones again and again."""
    return astuple(sizes)


def measure(sides: list[int], tensors: dict[str, Tensor | None]) -> Sizes:
    """Sizes of a call with tensors named as in csrc/abi.h; kernels trust them.

    Raises `LeanDetrError` for tensors that do not fit each other, are not contiguous, hold other
    than floating numbers, or are on several devices.
    """
    value, where, reference = tensors["value"], tensors["where"], tensors.get("reference")
    assert value is not None
    assert where is not None
    images, tokens, heads, width = value.shape
    queries, own_levels, points = where.shape[1], where.shape[3], where.shape[4]
    box = 0 if reference is None else reference.shape[-1]
    levels = len(sides) // 2
    sizes = Sizes(images, tokens, queries, heads, width, levels, points, own_levels, box)
    _check_places(sizes, where, reference)
    _check_levels(sides, tokens)
    shapes = _shapes(sizes)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        wanted = shapes[name]
        if tensor.shape != wanted or not tensor.is_contiguous() or tensor.dtype not in TYPES:
            raise LeanDetrError(
                f"expected {name.removesuffix('_grad')} of shape {wanted} for {levels} levels, in "
                f"float32, float64, bfloat16 or float16; got {tuple(tensor.shape)} in "
                f"{str(tensor.dtype).removeprefix('torch.')}; sizes are explained in leandetr.ops"
            )
        if tensor.device != value.device:
            raise LeanDetrError(
                f"expected {name.removesuffix('_grad')} on {value.device}, where the value is; "
                f"got it on {tensor.device}; type .to('{value.device}')"
            )
    return sizes


def _check_levels(sides: list[int], tokens: int) -> None:
    """Refuse levels that have other cells than there are tokens."""
    shapes = list(zip(sides[::2], sides[1::2], strict=True))
    if sum(high * wide for high, wide in shapes) != tokens or min(sides, default=0) < 0:
        raise LeanDetrError(
            f"expected level shapes (height, width) of {tokens} cells in all, for the value has "
            f"so many tokens; got {shapes}, which do not add up to the tokens"
        )


def _check_places(sizes: Sizes, where: Tensor, reference: Tensor | None) -> None:
    """Refuse what no shape says: references that are no points or boxes, levels without offsets."""
    if reference is not None and sizes.reference_width not in (2, 4):
        raise LeanDetrError(
            "expected a reference of 2 numbers (x, y) or 4 (cx, cy, w, h) a query and level; got "
            f"{sizes.reference_width} in shape {tuple(reference.shape)}; "
            "slice its last axis, reference[..., :2]"
        )
    if sizes.own_levels != sizes.levels and (sizes.own_levels != 1 or reference is None):
        shared = "" if reference is None else ", or for 1 that all of them share"
        raise LeanDetrError(
            f"expected locations or offsets for {sizes.levels} levels{shared}; got "
            f"{sizes.own_levels} in shape {tuple(where.shape)}; its axes are images, queries, "
            "heads, levels, points, (x, y)"
        )


@lru_cache(maxsize=256)
def _shapes(at: Sizes) -> dict[str, tuple[int, ...]]:
    """What every tensor of a call must measure."""
    n, q, m = at.images, at.queries, at.heads
    value, query = (n, at.tokens, m, at.width), (n, q, m, at.width)
    where = (n, q, m, at.own_levels, at.points, 2)
    weights = (n, q, m, at.levels, at.points)
    if at.reference_width:
        weights = (n, q, m, at.levels * at.points)
    reference = (n, q, at.levels, at.reference_width)
    output = (n, q, m * at.width)
    kinds = {"value": value, "key": value, "query": query, "where": where, "weights": weights}
    grads = {f"{name}_grad": shape for name, shape in kinds.items()}
    rest = {"output": output, "reference": reference, "reference_grad": (m, *reference)}
    return {**kinds, **grads, **rest}
