"""Random inputs for tests of the sampling operators."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from leandetr.types import Shapes

BACKENDS = ("reference", "operator")


@dataclass(frozen=True)
class Sizes:
    """Images, queries, heads, head width, points, and (H, W) of each level."""

    images: int = 1
    queries: int = 2
    heads: int = 2
    width: int = 3
    points: int = 2
    shapes: Shapes = ((3, 4), (2, 1))

    @property
    def tokens(self) -> int:
        return sum(height * width for height, width in self.shapes)


def sizes() -> st.SearchStrategy[Sizes]:
    """Small sizes of every kind."""
    shape = st.tuples(st.integers(1, 5), st.integers(1, 5))
    return st.builds(
        Sizes,
        images=st.integers(1, 3),
        queries=st.integers(1, 4),
        heads=st.integers(1, 3),
        width=st.sampled_from([1, 2, 4]),
        points=st.integers(1, 3),
        shapes=st.lists(shape, min_size=1, max_size=3).map(tuple),
    )


def tokens(at: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
    """Values or keys: N S M D."""
    return torch.randn(at.images, at.tokens, at.heads, at.width, dtype=dtype)


def queries(at: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
    """N Q M D."""
    return torch.randn(at.images, at.queries, at.heads, at.width, dtype=dtype)


def locations(at: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
    """N Q M L P 2, some outside the map."""
    size = (at.images, at.queries, at.heads, len(at.shapes), at.points, 2)
    return torch.rand(*size, dtype=dtype) * 1.4 - 0.2


def weights(at: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
    """N Q M L P, adding up to one over levels and points."""
    size = (at.images, at.queries, at.heads, len(at.shapes) * at.points)
    flat = torch.randn(*size, dtype=dtype).softmax(dim=-1)
    return flat.unflatten(-1, (len(at.shapes), at.points))


def references(at: Sizes, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """N Q L R, points or boxes."""
    return torch.rand(at.images, at.queries, len(at.shapes), width, dtype=dtype)


def offsets(at: Sizes, dtype: torch.dtype = torch.float64, *, shared: bool = False) -> Tensor:
    """N Q M L P 2, or N Q M 1 P 2 where levels share them; some lead outside the map."""
    own = 1 if shared else len(at.shapes)
    return 2 * torch.randn(at.images, at.queries, at.heads, own, at.points, 2, dtype=dtype)


def logits(at: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
    """N Q M L*P."""
    size = (at.images, at.queries, at.heads, len(at.shapes) * at.points)
    return torch.randn(*size, dtype=dtype)
