"""Hybrid matching of H-DETR (arXiv 2207.13080): a one-to-many group of queries, training only."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import QuerySource, groups, joined
from leandetr.types import Group, Match, Queries, Sight, Target, Tokens


@groups.register("hybrid")
@dataclass(frozen=True)
class HybridConfig:
    """Every target is wanted by `repeat` queries; the losses of the group count `weight` times."""

    repeat: int = 6
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise RecipeError(
                f"expected a hybrid group whose repeat is at least 1; got {self.repeat}; "
                "to train without it type --set model.groups=[]"
            )

    def build(self, dims: Dims) -> nn.Module:
        """The training group for a detector of these sizes."""
        return Hybrid(repeat=self.repeat, weight=self.weight)


class Hybrid(nn.Module):
    """The source's spare queries, matched one to many; they share every weight of the detector."""

    def __init__(self, *, repeat: int, weight: float) -> None:
        super().__init__()
        self.repeat = repeat
        self.weight = weight

    def forward(
        self,
        queries: Queries,
        tokens: Tokens,
        proposals: ProposalHead | None,
        targets: Sequence[Target],
        source: QuerySource,
    ) -> Queries:
        """The queries with the group behind them; neither side sees the other."""
        more = source.spare(tokens, proposals)
        start, count = queries.content.shape[1], more.content.shape[1]
        group = Group("one-to-many", start, start + count, Match(self.repeat), self.weight)
        return joined(queries, more, group, Sight(count, start, start + count))
