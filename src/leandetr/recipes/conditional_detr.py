"""Conditional DETR (arXiv 2108.06152): the models of its repository, Atten4Vis/ConditionalDETR.

Two images a device, DC5 with one, as its `scripts` set it. The AP are those of its README, from
runs made for the release; the paper's differ slightly.
"""

from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.conditional import ConditionalDecoderConfig
from leandetr.models.encoders.dense import DenseEncoderConfig
from leandetr.models.necks import SingleLevelConfig
from leandetr.models.queries.learned import LearnedQueriesConfig
from leandetr.recipes.recipe import CriterionRecipe, ModelRecipe, Recipe, TrainRecipe


def conditional_detr_r50() -> Recipe:
    """Conditional DETR R50. Published: 41.0 AP after 50 epochs, 90 GFLOPs."""
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, outputs=(3,), weights="imagenet"),
        neck=SingleLevelConfig(),
        encoder=DenseEncoderConfig(dropout=0.1),
        queries=LearnedQueriesConfig(count=300),
        decoder=ConditionalDecoderConfig(dropout=0.1),
        top=100,
    )
    criterion = CriterionRecipe(class_weight=2.0, class_cost=2.0, giou_eps=0.0)
    train = TrainRecipe(50, drops=(40,), criterion=criterion)
    return Recipe("conditional-detr-r50", model, train=train)


def conditional_detr_r50_dc5() -> Recipe:
    """Conditional DETR-DC5 R50: the last stage dilates. Published: 43.7 AP, 195 GFLOPs."""
    return _dilated(conditional_detr_r50(), depth=50)


def conditional_detr_r101() -> Recipe:
    """Conditional DETR R101. Published: 42.8 AP after 50 epochs, 156 GFLOPs."""
    return conditional_detr_r50().with_model(
        backbone=ResNetConfig(depth=101, outputs=(3,), weights="imagenet"),
    )


def conditional_detr_r101_dc5() -> Recipe:
    """Conditional DETR-DC5 R101. Published: 45.0 AP after 50 epochs, 262 GFLOPs."""
    return _dilated(conditional_detr_r50(), depth=101)


def _dilated(base: Recipe, *, depth: int) -> Recipe:
    backbone = ResNetConfig(depth=depth, outputs=(3,), dilate_last=True, weights="imagenet")
    return base.with_model(backbone=backbone).with_train(batch=1)


PRESETS = (
    conditional_detr_r50,
    conditional_detr_r50_dc5,
    conditional_detr_r101,
    conditional_detr_r101_dc5,
)
