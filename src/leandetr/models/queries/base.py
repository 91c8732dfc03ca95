"""What query sources and training groups are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from leandetr.errors import RecipeError
from leandetr.models.heads import ProposalHead
from leandetr.registry import Registry
from leandetr.types import Proposed, Queries, Target, Tokens

sources = Registry("queries")
groups = Registry("training group")

MAIN = "main"
"""The group of queries that answers; it always comes first."""


@runtime_checkable
class QuerySource(Protocol):
    """Makes the main queries, and says which proposals are to be supervised."""

    def __call__(
        self, tokens: Tokens, proposals: ProposalHead | None
    ) -> tuple[Queries, Proposed | None]:
        """The main queries, and the proposals that are supervised (None: none are)."""
        ...

    def spare(self, tokens: Tokens, proposals: ProposalHead | None) -> Queries:
        """The queries that would come next, made in the same way, for training groups to use.

        Their number is the `spare` of the source's config; a source without any raises
        `RecipeError`.
        """
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
        source: QuerySource,
    ) -> Queries:
        """The queries with this group behind them; `source` made the main ones."""
        ...


def check_counts(count: int, spare: int) -> None:
    """Raise `RecipeError` unless there is a query, and no negative number of spare ones."""
    if count < 1:
        raise RecipeError(f"expected queries.count of at least 1; got {count}")
    if spare < 0:
        raise RecipeError(f"expected queries.spare of at least 0; got {spare}")


def check_spare(rows: int, count: int) -> int:
    """The number of `rows` of a query table, where it is more than the `count` main ones.

    Raises `RecipeError` where a training group asks for more queries than there are.
    """
    if rows <= count:
        raise RecipeError(
            "a training group asks for more queries than the main ones; "
            "type --set queries.spare=1500, or --set model.groups=[] to train without it"
        )
    return rows
