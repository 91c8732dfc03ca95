"""Keys of HDETR/H-Deformable-DETR checkpoints."""

from leandetr.checkpoints.keymap import Rule
from leandetr.checkpoints.official import deformable_detr
from leandetr.recipes.recipe import Recipe


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of an H-DETR detector: hybrid matching adds no weights but rows of queries.

    `query_embed` holds the contents of both groups, and is there with mixed selection only.
    """
    return deformable_detr.rules(recipe)
