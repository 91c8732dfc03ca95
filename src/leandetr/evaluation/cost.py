"""What a detector costs before it has seen an image: parameters and multiply-adds."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe
from leandetr.types import Images

COMMON_SIZE = (800, 1066)
"""Height and width at which models are compared (Lite DETR, arXiv 2303.07335, table 4)."""


@dataclass(frozen=True)
class Cost:
    """`parameters` of the whole model, `gmacs` billions of multiply-adds for one image.

    Papers call multiply-adds GFLOPs. Convolutions, matrix products and attention count; sampling,
    norms and other work on single elements do not.
    """

    parameters: int
    gmacs: float


def cost(recipe: Recipe, *, size: tuple[int, int] = COMMON_SIZE) -> Cost:
    """The cost of the detector of a recipe for one image of `size` (height, width).

    Nothing is computed: tensors have shapes only. Parameters of training-only groups count, as
    they do in the papers.
    """
    with torch.device("meta"):
        model = build(recipe).eval().requires_grad_(False)
        images = Images(torch.empty(1, 3, *size), torch.zeros(1, *size, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            model(images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 2e9)
