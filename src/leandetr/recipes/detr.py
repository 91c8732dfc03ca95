"""DETR (arXiv 2005.12872): the models of its repository, facebookresearch/detr.

Trained for 500 epochs with a drop after 400 (appendix A.4), two images a device, DC5 with one
(README.md, Evaluation). No pre-norm model was released: `encoder.pre_norm=true` and
`decoder.pre_norm=true` make one.
"""

from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.models.encoders.dense import DenseEncoderConfig
from leandetr.models.necks import SingleLevelConfig
from leandetr.models.queries.learned import LearnedQueriesConfig
from leandetr.recipes.recipe import CriterionRecipe, ModelRecipe, Recipe, TrainRecipe


def detr_r50() -> Recipe:
    """DETR R50. Published: 42.0 AP after 500 epochs, 86 GFLOPs."""
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, outputs=(3,), weights="imagenet"),
        neck=SingleLevelConfig(),
        encoder=DenseEncoderConfig(dropout=0.1),
        queries=LearnedQueriesConfig(count=100),
        decoder=DetrDecoderConfig(dropout=0.1),
        background=True,
        top=100,
    )
    criterion = CriterionRecipe(class_cost=1.0, giou_eps=0.0, background_weight=0.1)
    return Recipe("detr-r50", model, train=TrainRecipe(500, drops=(400,), criterion=criterion))


def detr_r50_dc5() -> Recipe:
    """DETR-DC5 R50: the last stage dilates. Published: 43.3 AP after 500 epochs, 187 GFLOPs."""
    return _dilated(detr_r50(), depth=50)


def detr_r101() -> Recipe:
    """DETR R101. Published: 43.5 AP after 500 epochs, 152 GFLOPs."""
    return detr_r50().with_model(
        backbone=ResNetConfig(depth=101, outputs=(3,), weights="imagenet"),
    )


def detr_r101_dc5() -> Recipe:
    """DETR-DC5 R101. Published: 44.9 AP after 500 epochs, 253 GFLOPs."""
    return _dilated(detr_r50(), depth=101)


def _dilated(base: Recipe, *, depth: int) -> Recipe:
    backbone = ResNetConfig(depth=depth, outputs=(3,), dilate_last=True, weights="imagenet")
    return base.with_model(backbone=backbone).with_train(batch=1)


PRESETS = (detr_r50, detr_r50_dc5, detr_r101, detr_r101_dc5)
