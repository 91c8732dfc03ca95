"""Two-stage queries of Deformable DETR (arXiv 2010.04159), appendix: the best proposals ask.

The papers differ in what the queries say besides where they are: see `CONTENTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import MAIN, check_counts, check_spare, sources
from leandetr.nn import grid
from leandetr.nn.position import sine_coordinates
from leandetr.types import Group, Match, Proposed, Queries, Tokens


@sources.register("two-stage")
@dataclass(frozen=True)
class TwoStageQueriesConfig:
    """`count` queries of the best proposals; `spare` more are there for training groups.

    `content` is "embedded" (Deformable DETR: read off the proposed box, like the position),
    "learned" (H-DETR's mixed selection: a table, by rank) or "tokens" (Sparse DETR's efficient
    query initialisation: the proposing tokens themselves). With `agnostic` proposals are scored
    and trained as objects of no class; without, by their best class.
    """

    count: int = 300
    spare: int = 0
    content: str = "embedded"
    agnostic: bool = True
    scores_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self.count, self.spare)
        if self.content not in CONTENTS:
            raise RecipeError(
                f"expected queries.content of {', '.join(CONTENTS)}; got '{self.content}'; "
                "type queries.content=embedded as in Deformable DETR"
            )

    def build(self, dims: Dims) -> nn.Module:
        """The query source for a detector of these sizes."""
        rows = self.count + self.spare
        describe = CONTENTS[self.content](dims.dim, rows)
        return TwoStageQueries(describe, count=self.count, rows=rows, agnostic=self.agnostic)


@dataclass(frozen=True)
class Ranked:
    """Chosen proposals, best first; the first of them has rank `start`. Boxes are detached."""

    index: Int[Tensor, "N Q"]
    boxes: Float[Tensor, "N Q 4"]
    start: int


Said = tuple[Float[Tensor, "N Q C"], Float[Tensor, "N Q C"]]
"""Content and position of queries."""


class BoxEmbedding(nn.Module):
    """What a proposed box looks like in `outputs` channels."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, outputs)
        self.norm = nn.LayerNorm(outputs)
        self.channels = dim // 2
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, boxes: Float[Tensor, "N Q 4"]) -> Float[Tensor, "N Q C"]:
        """Waves of cx, cy, w, h, projected and normed."""
        return self.norm(self.project(sine_coordinates(boxes, self.channels)))


class EmbeddedContent(nn.Module):
    """Position and content are both read off the box: Deformable DETR."""

    def __init__(self, dim: int, rows: int) -> None:
        super().__init__()
        self.embed = BoxEmbedding(dim, 2 * dim)

    def forward(self, chosen: Ranked, tokens: Tokens) -> Said:
        """Content and position of the chosen proposals."""
        position, content = self.embed(chosen.boxes).chunk(2, dim=-1)
        return content, position


class LearnedContent(nn.Module):
    """Content is learned, one row a rank: mixed selection as in HDETR/H-Deformable-DETR.

    The second half of the embedding is computed for its norm alone (official code).
    """

    def __init__(self, dim: int, rows: int) -> None:
        super().__init__()
        self.embed = BoxEmbedding(dim, 2 * dim)
        self.content = nn.Embedding(rows, dim)

    def forward(self, chosen: Ranked, tokens: Tokens) -> Said:
        """Content and position of the chosen proposals."""
        images, count = chosen.index.shape
        rows = self.content.weight[chosen.start : chosen.start + count]
        position, _ = self.embed(chosen.boxes).chunk(2, dim=-1)
        return rows.expand(images, -1, -1), position


class TokenContent(nn.Module):
    """Content is the encoded token that proposed: eff_query_init of kakaobrain/sparse-detr."""

    def __init__(self, dim: int, rows: int) -> None:
        super().__init__()
        self.embed = BoxEmbedding(dim, dim)

    def forward(self, chosen: Ranked, tokens: Tokens) -> Said:
        """Content and position of the chosen proposals."""
        return grid.pick(tokens.features, chosen.index), self.embed(chosen.boxes)


CONTENTS: dict[str, Callable[[int, int], nn.Module]] = {
    "embedded": EmbeddedContent,
    "learned": LearnedContent,
    "tokens": TokenContent,
}
"""What queries say, by the name in recipes."""


class TwoStageQueries(nn.Module):
    """The best tokens ask; all tokens are supervised as proposals.

    An image with fewer tokens than queries gives as many queries as it has tokens. No gradient
    flows from a query's box into its proposal (detached, as in the official code).
    """

    def __init__(self, describe: nn.Module, *, count: int, rows: int, agnostic: bool) -> None:
        super().__init__()
        self.describe = describe
        self.count = count
        self.rows = rows
        self.agnostic = agnostic

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> tuple[Queries, Proposed | None]:
        """Queries in order of score, and the proposals of all tokens for supervision.

        A padded token, or one whose proposal leaves the window, has the box (1, 1, 1, 1); all of
        them score alike and can be chosen.
        """
        proposed = proposals.propose(tokens, agnostic=self.agnostic)
        return self._queries(tokens, proposed, 0, self.count), proposed

    def spare(self, tokens: Tokens, proposals: ProposalHead) -> Queries:
        """Queries of the proposals that come after the main ones, as far as there are tokens."""
        rows = check_spare(self.rows, self.count)
        with torch.no_grad():
            proposed = proposals.propose(tokens, agnostic=self.agnostic)
        return self._queries(tokens, proposed, self.count, rows)

    def _queries(self, tokens: Tokens, proposed: Proposed, start: int, stop: int) -> Queries:
        """Queries of the proposals from rank `start` to `stop`, best first."""
        logits = proposed.logits.detach()
        scores = logits[..., 0] if self.agnostic else logits.amax(dim=-1)
        ranked = scores.topk(min(stop, scores.shape[1]), dim=1).indices[:, start:]  # N Q
        chosen = Ranked(ranked, grid.pick(proposed.boxes.detach(), ranked), start)
        content, position = self.describe(chosen, tokens)
        group = Group(MAIN, 0, content.shape[1], Match())
        return Queries(content, position, chosen.boxes, (), (group,))
