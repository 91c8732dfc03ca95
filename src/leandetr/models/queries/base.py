"""What query sources and training groups are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from leandetr.errors import RecipeError
from leandetr.models.heads import ProposalHead
from leandetr.registry import Registry
from leandetr.types import Group, Proposed, Queries, Sight, Target, Tokens

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


def hidden(queries: Queries) -> Bool[Tensor, "Q Q"]:
    """Who is hidden from whom: `[i, j]` is True where query i does not see query j."""
    count = queries.content.shape[1]
    matrix = torch.ones(count, count, dtype=torch.bool, device=queries.content.device)
    row = 0
    for sight in queries.sights or (Sight(count, 0, count),):
        seen = matrix[row : row + sight.rows, sight.start : sight.stop]
        seen.copy_(torch.zeros_like(seen) if sight.hidden is None else sight.hidden)
        row += sight.rows
    return matrix


def joined(queries: Queries, more: Queries, group: Group, sight: Sight) -> Queries:
    """The queries with `more` behind them as one `group` that has a `sight` of its own.

    Those before do not see the group: they are to answer as they will without it. Raises
    `RecipeError` where only one side has positions or references, or of another width.
    """
    before = queries.content.shape[1]
    content = torch.cat((queries.content, more.content.to(queries.content.dtype)), dim=1)
    return replace(
        queries,
        content=content,
        position=_end_to_end(queries.position, more.position, group.name),
        reference=_end_to_end(queries.reference, more.reference, group.name),
        sights=(*(queries.sights or (Sight(before, 0, before),)), sight),
        groups=(*queries.groups, group),
    )


def _end_to_end(first: Tensor | None, second: Tensor | None, name: str) -> Tensor | None:
    if first is None and second is None:
        return None
    if first is None or second is None or first.shape[-1] != second.shape[-1]:
        widths = [None if side is None else side.shape[-1] for side in (first, second)]
        raise RecipeError(
            f"the training group '{name}' expects main queries of its own kind; got positions or "
            f"references {widths[0]} wide beside {widths[1]} of the group; for denoising type "
            "queries=mixed, or --set model.groups=[] to train without the group"
        )
    return torch.cat((first, second.to(first.dtype)), dim=1)
