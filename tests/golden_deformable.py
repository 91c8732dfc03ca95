"""Builds our detector for an official Deformable DETR or H-DETR case, with its weights."""

import re
from collections.abc import Callable

from torch import Tensor

from golden_data import Case
from leandetr.checkpoints.keymap import fill
from leandetr.checkpoints.official import deformable_detr, h_detr
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.detector import Detector
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.hybrid import HybridConfig
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes import CriterionRecipe, ModelRecipe, Recipe, TrainRecipe, build

CLASSES = "classes (size of class head input to the criterion)"
TOP = 100
"""Boxes an image after post-processing; fixed in the official code."""


def recipe_of(case: Case) -> tuple[Recipe, Callable]:
    """The recipe that the official arguments describe, and the key map for it."""
    a = case.meta["args"]
    hybrid = "num_queries_one2many" in a
    assert a["backbone"] == "resnet50"
    sizes = {"heads": a["nheads"], "hidden": a["dim_feedforward"], "dropout": a["dropout"]}
    levels = a["num_feature_levels"]
    outputs = (1, 2, 3) if levels > 1 else (3,)
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, outputs=outputs, dilate_last=a["dilation"]),
        neck=ChannelMapperConfig(levels, temperature=10000.0, offset=-0.5),
        encoder=DeformableEncoderConfig(a["enc_layers"], points=a["enc_n_points"], **sizes),
        queries=_queries(a),
        decoder=DeformableDecoderConfig(
            a["dec_layers"],
            points=a["dec_n_points"],
            refine=a["with_box_refine"],
            look_twice=a.get("look_forward_twice", False),
            **sizes,
        ),
        groups=(HybridConfig(a["k_one2many"], a["lambda_one2many"]),) if hybrid else (),
        shared_heads=not a["with_box_refine"],
        dim=a["hidden_dim"],
        classes=case.meta["hyper_parameters"][CLASSES],
        top=TOP,
    )
    rules = h_detr.rules if hybrid else deformable_detr.rules
    return Recipe(case.name, model, train=TrainRecipe(criterion=_criterion(a))), rules


def _queries(a: dict) -> PointQueriesConfig | TwoStageQueriesConfig:
    if not a["two_stage"]:
        return PointQueriesConfig(a["num_queries"])
    content = "learned" if a.get("mixed_selection") else "embedded"
    if "num_queries" in a:
        return TwoStageQueriesConfig(a["num_queries"], content=content)
    return TwoStageQueriesConfig(a["num_queries_one2one"], a["num_queries_one2many"], content)


def _criterion(a: dict) -> CriterionRecipe:
    return CriterionRecipe(
        class_weight=float(a["cls_loss_coef"]),
        box_weight=float(a["bbox_loss_coef"]),
        giou_weight=float(a["giou_loss_coef"]),
        class_cost=float(a["set_cost_class"]),
        box_cost=float(a["set_cost_bbox"]),
        giou_cost=float(a["set_cost_giou"]),
        alpha=a["focal_alpha"],
        giou_eps=0.0,
    )


def official_detector(case: Case) -> tuple[Detector, list]:
    """Our detector holding the official weights, and its key map; no official key is dropped."""
    recipe, rules_of = recipe_of(case)
    model = build(recipe)
    rules = rules_of(recipe)
    assert fill(model, case.weights(), rules) == {}
    return model, rules


def sliced(case: Case, name: str, whole: Tensor) -> Tensor:
    """The part of a whole tensor that a `*_sub` tensor holds, as its meaning says."""
    found = re.search(r"\[([:\d, ]+)\]", case.meta["tensors"][name]["meaning"])
    assert found is not None, name
    steps = [int(part.strip(" :") or 1) for part in found[1].split(",")]
    return whole[tuple(slice(None, None, step) for step in steps)]
