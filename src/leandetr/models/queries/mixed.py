"""Mixed query selection (DINO, arXiv 2203.03605, section 3.4): proposed boxes, learned content."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from leandetr import boxes as frames
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import MAIN, check_counts, check_spare, sources
from leandetr.nn import grid
from leandetr.types import Group, Match, Proposed, Queries, Tokens


@sources.register("mixed")
@dataclass(frozen=True)
class MixedQueriesConfig:
    """`count` queries; the best proposals give their boxes, a table gives their content.

    `spare` more, of the next best proposals, are there for training groups.
    """

    count: int = 900
    spare: int = 0
    scores_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self.count, self.spare)

    def build(self, dims: Dims) -> nn.Module:
        """The query source for a detector of these sizes."""
        return MixedQueries(dims.dim, count=self.count, spare=self.spare)


class MixedQueries(nn.Module):
    """The best tokens lend their boxes to learned content; rank decides who gets which content."""

    def __init__(self, dim: int, *, count: int, spare: int = 0) -> None:
        super().__init__()
        self.content = nn.Embedding(count + spare, dim)
        self.count = count

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> tuple[Queries, Proposed | None]:
        """Queries in order of score, and the chosen proposals for supervision.

        An image with fewer tokens than queries gives as many queries as it has tokens. No
        gradient flows from the queries into the proposals (detached, as in the official code).
        """
        chosen = self._ranked(tokens, proposals, 0, self.count)
        return self._queries(chosen, 0), chosen

    def spare(self, tokens: Tokens, proposals: ProposalHead) -> Queries:
        """Queries of the proposals that come after the main ones, as far as there are tokens."""
        rows = check_spare(self.content.num_embeddings, self.count)
        with torch.no_grad():
            chosen = self._ranked(tokens, proposals, self.count, rows)
        return self._queries(chosen, self.count)

    def _ranked(self, tokens: Tokens, head: ProposalHead, start: int, stop: int) -> Proposed:
        """The proposals from rank `start` to `stop`, best first."""
        candidates = head(tokens)
        count = min(stop, candidates.logits.shape[1])
        scores = candidates.logits.amax(dim=-1)
        best = scores.topk(count, dim=1).indices[:, start:]  # N Q
        features = grid.pick(candidates.features, best)
        box_logits = grid.pick(candidates.box_logits, best)
        boxes = frames.sigmoid(head.place(features, box_logits))
        return Proposed(grid.pick(candidates.logits, best), boxes)

    def _queries(self, chosen: Proposed, start: int) -> Queries:
        count = chosen.boxes.shape[1]
        content = self.content.weight[start : start + count].expand(len(chosen.boxes), -1, -1)
        group = Group(MAIN, 0, count, Match())
        return Queries(content, None, chosen.boxes.detach(), (), (group,))
