"""The inside of a feed-forward block, some thousand rows at a time, for a CPU.

The inside is four or eight times as wide as what goes in. Whole, it comes from fresh memory, which
the system has to clear first, and for gradients it is a third of what a training step holds. In
pieces it stays in the cache, and the way back makes each piece again: one more product, which
costs no more time than the memory did.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leandetr.nn.affine import affine
from leandetr.nn.dropout import drop

ROWS = 2048
"""How many rows go together."""

Layer = tuple[Float[Tensor, "_ _"], Float[Tensor, " _"]]
"""Weight and bias of a linear layer."""


def only_predicts(*tensors: Tensor) -> bool:
    """Whether none of these is to have a gradient, on a CPU and outside `torch.compile`.

    Then work may go in rows and write over what nobody else holds.
    """
    if tensors[0].device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def in_rows(
    work: Callable[..., Tensor], place: Float[Tensor, "*B Q O"], *inputs: Float[Tensor, "*B Q _"]
) -> Float[Tensor, "*B Q O"]:
    """Write what `work` makes of the inputs' rows, `ROWS` at a time, to `place`, and return it."""
    images = place.shape[:-2].numel()
    several = (x.split(max(ROWS // max(images, 1), 1), dim=-2) for x in (place, *inputs))
    for some, *rows in zip(*several, strict=True):
        some.copy_(work(*rows))
    return place


def two_layers(
    x: Float[Tensor, "R I"], first: Layer, second: Layer, *, dropout: float = 0.0
) -> Float[Tensor, "R O"]:
    """What the second layer makes of the ReLU of the first; for gradients, x alone is kept.

    `dropout` is the share that is dropped between them. Under autocast products are made in its
    precision; gradients of the layers are summed over the pieces in single precision at least.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    seed = int(torch.empty((), dtype=torch.int64).random_()) if dropout else 0
    return _TwoLayers.apply(x, *first, *second, dtype, dropout, seed)


class _TwoLayers(torch.autograd.Function):
    """Takes what `two_layers` takes, the precision of the products, and the seed of the dice."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Float[Tensor, "R O"]:
        x, weight1, bias1, weight2, bias2, dtype, dropout, seed = given
        rows = x.to(dtype)
        ctx.save_for_backward(rows, weight1, bias1, weight2)
        ctx.dtype, ctx.dice = x.dtype, {"dropout": dropout, "seed": seed}
        weight1, bias1, weight2, bias2 = (part.to(dtype) for part in given[1:5])
        with torch.autocast("cpu", enabled=False):
            inside = _Inside(weight1, bias1, **ctx.dice)
            place = rows.new_empty(len(rows), len(bias2))
            return in_rows(lambda some: affine(inside(some), weight2, bias2), place, rows)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Float[Tensor, "R O"]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x and of both layers."""
        rows, *layers = ctx.saved_tensors
        weight1, bias1, weight2 = (part.to(rows.dtype) for part in layers)
        inside = _Inside(weight1, bias1, **ctx.dice)
        sums = [part.new_zeros(part.shape, dtype=_exact(part)) for part in layers]
        grad, by_rows = grads[0].to(rows.dtype), torch.empty_like(rows)
        pieces = (tensor.split(ROWS) for tensor in (rows, grad, by_rows))
        with torch.autocast("cpu", enabled=False):
            for some, pulled, place in zip(*pieces, strict=True):
                inner = inside(some)
                by_inner = inside.back(pulled @ weight2, inner)
                torch.mm(by_inner, weight1, out=place)
                if any(ctx.needs_input_grad[1:]):  # all of a layer learns, or nothing
                    _add_product(sums[0], by_inner.mT, some)
                    sums[1] += by_inner.sum(0, dtype=sums[1].dtype)
                    _add_product(sums[2], pulled.mT, inner)
        by_bias2 = grad.sum(0, dtype=sums[1].dtype)
        return by_rows.to(ctx.dtype), *sums, by_bias2, None, None, None


class _Inside:
    """What is between the layers, piece by piece; another one of the same seed repeats it."""

    def __init__(self, weight: Tensor, bias: Tensor, *, dropout: float, seed: int) -> None:
        self.layer = weight, bias
        self.dropout = dropout
        self.dice = torch.Generator().manual_seed(seed)

    def __call__(self, rows: Float[Tensor, "R I"]) -> Float[Tensor, "R H"]:
        """The next rows, after ReLU and dropout."""
        return drop(affine(rows, *self.layer, "relu"), self.dropout, training=True, dice=self.dice)

    def back(self, grad: Float[Tensor, "R H"], inner: Float[Tensor, "R H"]) -> Float[Tensor, "R H"]:
        """In place: from the gradient of such rows to that of what the first layer made."""
        torch.ops.aten.threshold_backward.grad_input(grad, inner, 0, grad_input=grad)
        return grad.div_(1 - self.dropout) if 0 < self.dropout < 1 else grad


def _exact(part: Tensor) -> torch.dtype:
    return torch.promote_types(part.dtype, torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right, whatever the precision of the total."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
