"""The two ways to add what a layer found to what it was asked: norm after (DETR) or before."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from leandetr.nn.dropout import Dropout

Change = Callable[[Float[Tensor, "N Q C"]], Float[Tensor, "N Q C"]]
"""What a sublayer makes of its input: attention or a feed-forward block."""


class PostNorm(nn.Module):
    """norm(x + change(x)), as in every published model of the family."""

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "N Q C"], change: Change) -> Float[Tensor, "N Q C"]:
        """`change` sees x as it is; dropout falls on what it adds."""
        return self.norm(x + self.dropout(change(x)))


class PreNorm(nn.Module):
    """x + change(norm(x)): the `pre_norm` option of facebookresearch/detr.

    A stack of these ends without a norm and needs one of its own.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "N Q C"], change: Change) -> Float[Tensor, "N Q C"]:
        """`change` sees x normed; dropout falls on what it adds."""
        return x + self.dropout(change(self.norm(x)))


Residual = type[PostNorm] | type[PreNorm]
"""Which of the two; called with the width and the dropout."""


def start_evenly(module: nn.Module) -> None:
    """Give every matrix Xavier's uniform start (facebookresearch/detr, _reset_parameters)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
