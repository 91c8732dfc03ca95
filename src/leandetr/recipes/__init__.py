"""Named, frozen, typed choices; no code paths."""

from leandetr.recipes import conditional_detr, deformable_detr, detr, dino, h_detr, lite_detr, nano
from leandetr.recipes.assemble import build, create_model, list_models, recipe
from leandetr.recipes.codec import dump_yaml, from_dict, load_yaml, override, to_dict
from leandetr.recipes.recipe import CriterionRecipe, LrFactor, ModelRecipe, Recipe, TrainRecipe

__all__ = [
    "CriterionRecipe",
    "LrFactor",
    "ModelRecipe",
    "Recipe",
    "TrainRecipe",
    "build",
    "conditional_detr",
    "create_model",
    "deformable_detr",
    "detr",
    "dino",
    "dump_yaml",
    "from_dict",
    "h_detr",
    "list_models",
    "lite_detr",
    "load_yaml",
    "nano",
    "override",
    "recipe",
    "to_dict",
]
