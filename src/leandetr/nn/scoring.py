"""Scores of single tokens, and choosing and writing back the best of them.

What the token-scoring encoders share: Sparse DETR (arXiv 2111.14330) and Focus-DETR
(arXiv 2307.12612) use the same small network.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.nn.grid import pick, put
from leandetr.nn.in_rows import only_predicts

WHOLE = 1000
"""Shares are counted in thousandths, so that an export holds for every size."""


def thousandths(share: float, path: str) -> int:
    """A share above 0, up to 1, in thousandths; `path` is its place in the recipe.

    Raises `RecipeError` for any other number, also for one between two thousandths.
    """
    permille = round(share * WHOLE)
    if not 0 < permille <= WHOLE or abs(share - permille / WHOLE) > 1e-9:
        near = min(max(permille, 1), WHOLE) / WHOLE
        raise RecipeError(
            f"expected {path} above 0 and up to 1, in whole thousandths; got {share}; "
            f"type {path}={near}"
        )
    return permille


class TokenScorer(nn.Module):
    """One logit a token, from the token itself and the mean of all tokens of its map.

    kakaobrain/sparse-detr:models/deformable_transformer.py, MaskPredictor. The mean includes
    padded tokens, as in the official code, unless it is told which these are. What the judge makes
    of the mean is worked out once for all tokens, there for each of them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        self.describe = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.judge = nn.Sequential(
            nn.Linear(dim, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(),
            nn.Linear(quarter, 1),
        )  # fmt: skip
        for layer in (*self.describe, *self.judge):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, features: Float[Tensor, "N S C"], padding: Bool[Tensor, "N S"] | None = None
    ) -> Float[Tensor, "N S"]:
        """How much each token deserves to be refined, as a logit; `padding` is not averaged."""
        own, common = self.describe(features).chunk(2, dim=-1)
        if padding is None:
            common = common.mean(dim=1, keepdim=True)
        else:
            real = (~padding)[..., None].to(common.dtype)
            common = (common * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
        first, *others = cast("Any", self.judge)
        for_own, for_common = first.weight.chunk(2, dim=-1)
        logits = F.linear(own, for_own) + F.linear(common, for_common, first.bias)
        for layer in others:
            logits = layer(logits)
        return logits[..., 0]


def share(count: Int[Tensor, " N"], permille: int) -> Int[Tensor, " N"]:
    """`permille` thousandths of each count, rounded down, and one more: int(count * rho) + 1.

    In whole numbers: a product of floats would freeze one size into an export.
    """
    return torch.div(count * permille, 1000, rounding_mode="floor") + 1


def padding_last(
    scores: Float[Tensor, "N S"], padding: Bool[Tensor, "N S"]
) -> Float[Tensor, "N S"]:
    """The scores, with padded tokens at the smallest one of the whole batch.

    What padded tokens are taught, the token with that score learns (kakaobrain/sparse-detr).
    """
    return torch.where(padding, scores.amin(), scores)


def renewed(
    rows: Float[Tensor, "N T C"], counts: Int[Tensor, " N"], updated: Float[Tensor, "N U C"]
) -> Float[Tensor, "N T C"]:
    """The rows, the first `counts[n]` of image n updated; all that is updated comes first.

    In prediction on a CPU they are written over: the rows must be the caller's own.
    """
    if only_predicts(rows, updated):
        for image, count in enumerate(counts.tolist()):
            rows[image, :count] = updated[image, :count]
        return rows
    fit = updated.shape[1]
    rank = torch.arange(fit, device=rows.device)
    real = (rank < counts[:, None])[..., None]
    first = torch.where(real, updated.to(rows.dtype), rows[:, :fit])
    return first if fit == rows.shape[1] else torch.cat((first, rows[:, fit:]), dim=1)


def write_back(
    features: Float[Tensor, "N S C"],
    kept: Int[Tensor, "N T"],
    counts: Int[Tensor, " N"],
    updated: Float[Tensor, "N T C"],
) -> Float[Tensor, "N S C"]:
    """The features with the first `counts[n]` kept tokens of image n replaced.

    The others keep what they had. `kept` names no token twice.
    """
    return put(features, kept, renewed(pick(features, kept), counts, updated))
