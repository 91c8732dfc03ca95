"""MLP and the feed-forward block of a transformer layer.

Both work on rows, N and Q in one axis: a linear layer's product of more axes is a view, and
autograd pays for a ReLU written over a view with three copies on the way back.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.nn.affine import affine
from leandetr.nn.dropout import Dropout, drop
from leandetr.nn.in_rows import Layer, in_rows, only_predicts, two_layers


class MLP(nn.Module):
    """Linear layers with ReLU between them; `depth` of them, `hidden` wide inside.

    `dropout` falls on what comes out of every ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden: int, depth: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Apply all layers; no activation after the last."""
        *inner, last = self.layers
        rows = x.reshape(-1, x.shape[-1])
        for layer in inner:
            rows = drop(F.relu(layer(rows), inplace=True), self.dropout, self.training)
        return last(rows).reshape(*x.shape[:-1], -1)


class FeedForward(nn.Module):
    """x + MLP(x), then layer norm: the second half of every layer of the family (post-norm)."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q C"]:
        """Refine each token by itself."""
        if self.predicts(x):
            return self.write(x, torch.empty_like(x, dtype=self.norm.weight.dtype))
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            inner = self.dropout(F.relu(self.linear1(x.flatten(0, 1)), inplace=True))
            found = self.linear2(inner)
        else:
            layers, share = (_layer(self.linear1), _layer(self.linear2)), self.dropout.p
            found = two_layers(x.flatten(0, 1), *layers, dropout=share if self.training else 0.0)
        return self.norm(x + self.dropout(found.view_as(x)))

    def predicts(self, x: Float[Tensor, "N Q C"]) -> bool:
        """Whether `write` does for x, in which there are no gradients and no dropout."""
        return only_predicts(x, *self.parameters()) and not (self.training and self.dropout.p)

    def write(
        self, x: Float[Tensor, "N Q C"], place: Float[Tensor, "N Q C"]
    ) -> Float[Tensor, "N Q C"]:
        """Write the refined tokens to `place`, and return it."""
        return in_rows(self._refine, place, x)

    def _refine(self, rows: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
        """Some rows, which may be more precise than the layers."""
        inner = affine(rows.to(self.linear1.weight.dtype), *_layer(self.linear1), "relu")
        return self.norm(rows + affine(inner, *_layer(self.linear2)))


def _layer(linear: Any) -> Layer:
    return linear.weight, linear.bias
