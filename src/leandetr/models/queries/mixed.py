"""Mixed query selection (DINO, arXiv 2203.03605, section 3.4): proposed boxes, learned content."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import MAIN, sources
from leandetr.nn import grid
from leandetr.types import Group, Match, Prediction, Queries, Tokens


@sources.register("mixed")
@dataclass(frozen=True)
class MixedQueriesConfig:
    """`count` queries; the best proposals give their boxes, a table gives their content."""

    count: int = 900
    scores_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RecipeError(f"expected queries.count of at least 1; got {self.count}")

    def build(self, dims: Dims) -> nn.Module:
        """The query source for a detector of these sizes."""
        return MixedQueries(dims.dim, count=self.count)


class MixedQueries(nn.Module):
    """The best tokens lend their boxes to learned content; rank decides who gets which content."""

    def __init__(self, dim: int, *, count: int) -> None:
        super().__init__()
        self.content = nn.Embedding(count, dim)

    def forward(self, tokens: Tokens, proposals: ProposalHead) -> tuple[Queries, Prediction | None]:
        """Queries in order of score, and the chosen proposals for supervision.

        An image with fewer tokens than queries gives as many queries as it has tokens. No
        gradient flows from the queries into the proposals (detached, as in the official code).
        """
        candidates = proposals(tokens)
        count = min(self.content.num_embeddings, candidates.logits.shape[1])
        best = candidates.logits.amax(dim=-1).topk(count, dim=1).indices  # N Q
        features = grid.pick(candidates.features, best)
        box_logits = grid.pick(candidates.box_logits, best)
        boxes = proposals.place(features, box_logits).float().sigmoid()
        logits = grid.pick(candidates.logits, best)
        content = self.content.weight[:count].expand(len(best), -1, -1)
        group = Group(MAIN, 0, count, Match())
        queries = Queries(content, None, boxes.detach(), None, (group,))
        return queries, Prediction(logits, boxes)
