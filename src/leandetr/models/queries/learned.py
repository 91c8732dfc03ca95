"""Learned queries of DETR (arXiv 2005.12872) and Conditional DETR (arXiv 2108.06152)."""

from dataclasses import dataclass

import torch
from torch import nn

from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import MAIN, check_counts, check_spare, sources
from leandetr.types import Group, Match, Proposed, Queries, Tokens


@sources.register("learned")
@dataclass(frozen=True)
class LearnedQueriesConfig:
    """`count` queries of a table, the same for every image; `spare` more for training groups."""

    count: int = 100
    spare: int = 0

    def __post_init__(self) -> None:
        check_counts(self.count, self.spare)

    def build(self, dims: Dims) -> nn.Module:
        """The query source for a detector of these sizes."""
        return LearnedQueries(dims.dim, count=self.count, spare=self.spare)


class LearnedQueries(nn.Module):
    """Learned positions; the content starts at zero. There are no references and no proposals."""

    def __init__(self, dim: int, *, count: int, spare: int = 0) -> None:
        super().__init__()
        self.position = nn.Embedding(count + spare, dim)
        self.count = count

    def forward(
        self, tokens: Tokens, proposals: ProposalHead | None
    ) -> tuple[Queries, Proposed | None]:
        """The same queries for every image."""
        return self._queries(tokens, 0, self.count), None

    def spare(self, tokens: Tokens, proposals: ProposalHead | None) -> Queries:
        """The rows of the table that come after the main ones."""
        rows = check_spare(self.position.num_embeddings, self.count)
        return self._queries(tokens, self.count, rows)

    def _queries(self, tokens: Tokens, start: int, stop: int) -> Queries:
        position = self.position.weight[start:stop].expand(tokens.features.shape[0], -1, -1)
        group = Group(MAIN, 0, stop - start, Match())
        return Queries(torch.zeros_like(position), position, None, (), (group,))
