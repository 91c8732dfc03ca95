"""What a detector costs before it has seen an image: parameters and multiply-adds."""

from dataclasses import dataclass

import torch

from leandetr.evaluation.counting import Tally, count
from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe


@dataclass(frozen=True)
class Cost:
    """`parameters` of the whole model, `gmacs` billions of multiply-adds for one image.

    Papers call multiply-adds GFLOPs. Convolutions, matrix products and attention count; sampling,
    norms and other work on single elements do not (`counting.count` tells them too).
    """

    parameters: int
    gmacs: float


def usual_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of a 4:3 picture as the recipe's preprocessing makes it.

    For the presets of the papers 800 x 1066, the size of Lite DETR (arXiv 2303.07335), table 4.
    """
    short = recipe.preprocess.short
    return short, short * 4 // 3


def cost(recipe: Recipe, *, size: tuple[int, int] | None = None) -> Cost:
    """The cost of the detector of a recipe for one image of `size`, else of its usual size.

    Nothing is computed: tensors have shapes only. Parameters of training-only groups count, as
    they do in the papers.
    """
    with torch.device("meta"):
        model = build(recipe)
    counts = count(model, size or usual_size(recipe))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counts.gmacs(Tally(sampling="none")))
