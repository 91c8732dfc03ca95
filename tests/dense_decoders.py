"""What the tests of the decoders of DETR and Conditional DETR start from."""

from typing import Any

import torch
from torch import Tensor, nn

from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.types import Group, Match, Queries, Sight, Tokens
from tiny import DIM, blocks, canvas, stir


def one_level() -> Tokens:
    """Two images of different size on one map."""
    return canvas([blocks(4, 5, levels=1), blocks(3, 3, levels=1)], ((4, 5),), junk=2.0)


def parts(config: Any, **heads_options: bool) -> tuple[nn.Module, PredictionHeads]:
    """The decoder of a config and heads of three classes, none of whose weights is zero."""
    decoder = config.build(Dims(DIM, 1, 3))
    heads = PredictionHeads(DIM, 3, layers=config.layers, shared=True, **heads_options)
    stir(decoder)
    stir(heads)
    return decoder, heads


def queries(
    count: int = 4, sights: tuple[Sight, ...] = (), content: Tensor | None = None
) -> Queries:
    """Queries at random positions; content of zeros unless given."""
    content = torch.zeros(2, count, DIM) if content is None else content
    group = Group("main", 0, count, Match())
    return Queries(content, torch.randn(2, count, DIM), None, sights, (group,))
