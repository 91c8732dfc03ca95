"""Keys of kakaobrain/sparse-detr checkpoints."""

from leandetr.checkpoints.keymap import Rule
from leandetr.checkpoints.official import deformable_detr
from leandetr.recipes.recipe import Recipe


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Sparse DETR detector; its encoder brings the scorer and heads of its own.

    With the encoder `deformable` it is that of the repository's Efficient DETR (rho 0).
    """
    return deformable_detr.rules(recipe)
