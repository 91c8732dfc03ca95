"""What query sources and training groups are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from leandetr.models.heads import ProposalHead
from leandetr.registry import Registry
from leandetr.types import Prediction, Queries, Target, Tokens

sources = Registry("queries")
groups = Registry("training group")

MAIN = "main"
"""The group of queries that answers; it always comes first."""


@runtime_checkable
class QuerySource(Protocol):
    """Makes the main queries, and says which proposals are to be supervised."""

    def __call__(
        self, tokens: Tokens, proposals: ProposalHead | None
    ) -> tuple[Queries, Prediction | None]:
        """The main queries, and the proposals that are supervised (None: none are)."""
        ...


@runtime_checkable
class TrainingGroup(Protocol):
    """Adds queries that exist in training only, behind those that are there."""

    def __call__(
        self,
        queries: Queries,
        tokens: Tokens,
        proposals: ProposalHead | None,
        targets: Sequence[Target],
    ) -> Queries:
        """The queries with this group behind them."""
        ...
