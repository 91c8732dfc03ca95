"""Dense multi-head attention, with positions added to queries and keys only."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.nn.dropout import drop
from leandetr.types import Sight


class Attention(nn.Module):
    """Multi-head attention; parameters as in `nn.MultiheadAttention`, one matrix for q, k, v."""

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.dropout = dropout
        self.inputs = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        query: Float[Tensor, "N Q C"],
        key: Float[Tensor, "N S C"],
        value: Float[Tensor, "N S C"],
        *,
        sights: Sequence[Sight] = (),
        padding: Bool[Tensor, "N S"] | None = None,
    ) -> Float[Tensor, "N Q C"]:
        """Each query's mean of values.

        `sights` say which keys queries see, where not all of them; `padding[n, j]` is True where no
        query of image n sees key j.
        """
        asked, keys, values = (split_heads(x, self.heads) for x in self._project(query, key, value))
        how = {"padding": padding, "dropout": self.dropout if self.training else 0.0}
        return self.output(mix_in_sight(asked, keys, values, sights, **how))

    def _project(
        self,
        query: Float[Tensor, "N Q C"],
        key: Float[Tensor, "N S C"],
        value: Float[Tensor, "N S C"],
    ) -> tuple[Tensor, ...]:
        """Projected queries, keys and values; queries that are the keys in one product."""
        dim, weight, bias = query.shape[-1], self.inputs.weight, self.inputs.bias
        values = F.linear(value, weight[2 * dim :], bias[2 * dim :])
        if query is key:
            both = F.linear(query, weight[: 2 * dim], bias[: 2 * dim])
            return *both.chunk(2, dim=-1), values
        asked = F.linear(query, weight[:dim], bias[:dim])
        return asked, F.linear(key, weight[dim : 2 * dim], bias[dim : 2 * dim]), values


def split_heads(x: Float[Tensor, "N Q C"], heads: int) -> Float[Tensor, "N M Q D"]:
    """The share of each head."""
    return rearrange(x, "N Q (M D) -> N M Q D", M=heads)


def mix(
    query: Float[Tensor, "N M Q D"],
    key: Float[Tensor, "N M S D"],
    value: Float[Tensor, "N M S E"],
    *,
    seen: Bool[Tensor, "..."] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "N Q ME"]:
    """Each query's mean of values, heads put together again; see `visible` for `seen`."""
    device = query.device.type
    if device == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):  # its backward in bfloat16 is slow there
            return mix(query.float(), key.float(), value.float(), seen=seen, dropout=dropout)
    if dropout and device == "cpu":  # PyTorch's own dice are slow there
        shares = drop(_shares(query, key, seen), dropout, training=True)
        mixed = shares @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    return rearrange(mixed, "N M Q E -> N Q (M E)")


def mix_in_sight(
    query: Float[Tensor, "N M Q D"],
    key: Float[Tensor, "N M S D"],
    value: Float[Tensor, "N M S E"],
    sights: Sequence[Sight],
    *,
    padding: Bool[Tensor, "N S"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "N Q ME"]:
    """`mix`, where queries may see a part of the keys: what is out of sight costs nothing."""
    if not sights:
        return mix(query, key, value, seen=visible(None, padding), dropout=dropout)
    mixed, first = [], 0
    for sight in sights:
        part = slice(sight.start, sight.stop)
        seen = visible(sight.hidden, None if padding is None else padding[:, part])
        asking, first = query[:, :, first : first + sight.rows], first + sight.rows
        mixed.append(mix(asking, key[:, :, part], value[:, :, part], seen=seen, dropout=dropout))
    return torch.cat(mixed, dim=1)


def _shares(
    query: Float[Tensor, "N M Q D"],
    key: Float[Tensor, "N M S D"],
    seen: Bool[Tensor, "..."] | None,
) -> Float[Tensor, "N M Q S"]:
    """What each query takes of each value; all of them together are 1."""
    likeness = (query * query.shape[-1] ** -0.5) @ key.mT
    if seen is not None:
        likeness = likeness.masked_fill(~seen, -math.inf)
    return likeness.softmax(dim=-1)


def visible(
    hidden: Bool[Tensor, "Q S"] | None, padding: Bool[Tensor, "N S"] | None
) -> Bool[Tensor, "..."] | None:
    """Which keys may be seen, in a shape that broadcasts to N M Q S; None: all."""
    if padding is None:
        return None if hidden is None else ~hidden
    real = ~padding[:, None, None]  # N 1 1 S
    return real if hidden is None else real & ~hidden


def check_heads(dim: int, heads: int) -> None:
    """Refuse a width that the heads cannot share. Raises `RecipeError`."""
    if heads < 1 or dim % heads:
        fitting = [n for n in range(1, dim + 1) if dim % n == 0]
        raise RecipeError(
            f"dim {dim} is not a multiple of heads {heads}; choose heads from {fitting}"
        )
