"""Learned queries of one-stage Deformable DETR (arXiv 2010.04159): each looks around its point."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import MAIN, check_counts, check_spare, sources
from leandetr.types import Group, Match, Proposed, Queries, Tokens


@sources.register("learned-points")
@dataclass(frozen=True)
class PointQueriesConfig:
    """`count` learned queries; `spare` more are there for training groups.

    A point has no size: boxes start at an eighth of the image, the sigmoid of `first_size`
    (fundamentalvision/Deformable-DETR:models/deformable_detr.py, DeformableDETR).
    """

    count: int = 300
    spare: int = 0
    first_size: ClassVar[float] = -2.0

    def __post_init__(self) -> None:
        check_counts(self.count, self.spare)

    def build(self, dims: Dims) -> nn.Module:
        """The query source for a detector of these sizes."""
        return PointQueries(dims.dim, count=self.count, spare=self.spare)


class PointQueries(nn.Module):
    """A table of positions and contents; the point (x, y) is read off the position."""

    def __init__(self, dim: int, *, count: int, spare: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(count + spare, 2 * dim)
        self.point = nn.Linear(dim, 2)
        self.count = count
        nn.init.xavier_uniform_(self.point.weight)
        nn.init.zeros_(self.point.bias)

    def forward(
        self, tokens: Tokens, proposals: ProposalHead | None
    ) -> tuple[Queries, Proposed | None]:
        """The same queries for every image; there are no proposals to supervise."""
        return self._queries(self.table.weight[: self.count], len(tokens.features)), None

    def spare(self, tokens: Tokens, proposals: ProposalHead | None) -> Queries:
        """The rest of the table."""
        rows = check_spare(self.table.num_embeddings, self.count)
        return self._queries(self.table.weight[self.count : rows], len(tokens.features))

    def _queries(self, rows: Float[Tensor, "Q CC"], images: int) -> Queries:
        position, content = rows.expand(images, -1, -1).chunk(2, dim=-1)
        reference = frames.sigmoid(self.point(position))
        group = Group(MAIN, 0, content.shape[1], Match())
        return Queries(content, position, reference, (), (group,))
