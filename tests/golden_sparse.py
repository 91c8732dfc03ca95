"""Builds our detector for an official Sparse DETR case, with its weights."""

from golden_data import Case
from leandetr.checkpoints.keymap import fill
from leandetr.checkpoints.official import sparse_detr
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.detector import Detector
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes import CriterionRecipe, ModelRecipe, Recipe, TrainRecipe, build

CLASSES = "classes (size of class head input to the criterion)"
TOP = 100
"""Boxes an image after post-processing; fixed in the official code."""


def recipe_of(case: Case) -> Recipe:
    """The recipe that the official arguments describe."""
    a = case.meta["args"]
    assert a["backbone"] == "resnet50"
    assert a["with_box_refine"]
    assert a["two_stage"]
    assert a["eff_query_init"]
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, dilate_last=a["dilation"]),
        neck=ChannelMapperConfig(a["num_feature_levels"], temperature=10000.0, offset=-0.5),
        encoder=_encoder(a),
        queries=TwoStageQueriesConfig(
            a["num_queries"], content="tokens", agnostic=not a["eff_specific_head"]
        ),
        decoder=DeformableDecoderConfig(
            a["dec_layers"],
            a["nheads"],
            a["dec_n_points"],
            a["dim_feedforward"],
            refine=True,
            dropout=a["dropout"],
        ),
        shared_heads=False,
        dim=a["hidden_dim"],
        classes=case.meta["hyper_parameters"][CLASSES],
        top=TOP,
    )
    criterion = CriterionRecipe(
        class_weight=float(a["cls_loss_coef"]),
        box_weight=float(a["bbox_loss_coef"]),
        giou_weight=float(a["giou_loss_coef"]),
        class_cost=float(a["set_cost_class"]),
        box_cost=float(a["set_cost_bbox"]),
        giou_cost=float(a["set_cost_giou"]),
        alpha=a["focal_alpha"],
        giou_eps=0.0,
        salience_weight=float(a["mask_prediction_coef"]),
    )
    return Recipe(case.name, model, train=TrainRecipe(criterion=criterion))


def _encoder(a: dict) -> SparseEncoderConfig | DeformableEncoderConfig:
    """A rho of 0 means that all tokens are refined and none is scored."""
    sizes = {
        "layers": a["enc_layers"],
        "heads": a["nheads"],
        "points": a["enc_n_points"],
        "hidden": a["dim_feedforward"],
        "dropout": a["dropout"],
    }
    if a["rho"]:
        return SparseEncoderConfig(a["rho"], auxiliary=a["use_enc_aux_loss"], **sizes)
    assert not a["use_enc_aux_loss"]
    return DeformableEncoderConfig(**sizes)


def official_detector(case: Case) -> tuple[Detector, list]:
    """Our detector holding the official weights, and its key map; no official key is dropped."""
    recipe = recipe_of(case)
    model = build(recipe)
    rules = sparse_detr.rules(recipe)
    assert fill(model, case.weights(), rules) == {}
    return model, rules
