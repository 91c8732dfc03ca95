"""Builds our detector for an official DETR or Conditional DETR case, with its weights."""

from collections.abc import Callable

from golden_data import Case
from leandetr.checkpoints.keymap import fill
from leandetr.checkpoints.official import conditional_detr, detr
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.conditional import ConditionalDecoderConfig
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.models.detector import Detector
from leandetr.models.encoders.dense import DenseEncoderConfig
from leandetr.models.necks import SingleLevelConfig
from leandetr.models.queries.learned import LearnedQueriesConfig
from leandetr.recipes import CriterionRecipe, ModelRecipe, Recipe, TrainRecipe, build

TOP = 100
"""Boxes an image after post-processing: DETR keeps all its queries, Conditional DETR these."""


def recipe_of(case: Case) -> tuple[Recipe, Callable]:
    """The recipe that the official arguments describe, and the key map for it."""
    a = case.meta["args"]
    conditional = case.name.startswith("conditional_detr/")
    sizes = {"heads": a["nheads"], "hidden": a["dim_feedforward"], "dropout": a["dropout"]}
    assert a["backbone"] == "resnet50"
    if conditional:
        assert not a["pre_norm"]
        decoder = ConditionalDecoderConfig(a["dec_layers"], **sizes)
    else:
        decoder = DetrDecoderConfig(a["dec_layers"], **sizes, pre_norm=a["pre_norm"])
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, outputs=(3,), dilate_last=a["dilation"]),
        neck=SingleLevelConfig(),
        encoder=DenseEncoderConfig(a["enc_layers"], **sizes, pre_norm=a["pre_norm"]),
        queries=LearnedQueriesConfig(a["num_queries"]),
        decoder=decoder,
        background=not conditional,
        dim=a["hidden_dim"],
        classes=case.meta["hyper_parameters"][
            "classes (size of class head input to the criterion)"
        ],
        top=TOP,
    )
    train = TrainRecipe(criterion=_criterion(a))
    return Recipe(case.name, model, train=train), (conditional_detr if conditional else detr).rules


def _criterion(a: dict) -> CriterionRecipe:
    """DETR has no weight for the class loss, which means 1; Conditional DETR has no background."""
    return CriterionRecipe(
        class_weight=float(a.get("cls_loss_coef", 1)),
        box_weight=float(a["bbox_loss_coef"]),
        giou_weight=float(a["giou_loss_coef"]),
        class_cost=float(a["set_cost_class"]),
        box_cost=float(a["set_cost_bbox"]),
        giou_cost=float(a["set_cost_giou"]),
        alpha=a.get("focal_alpha", 0.25),
        giou_eps=0.0,
        background_weight=a.get("eos_coef", 0.1),
    )


def official_detector(case: Case) -> tuple[Detector, list]:
    """Our detector holding the official weights, and its key map; no official key is dropped."""
    recipe, rules_of = recipe_of(case)
    model = build(recipe)
    rules = rules_of(recipe)
    assert fill(model, case.weights(), rules) == {}
    return model, rules
