"""Deformable DETR (arXiv 2010.04159): the presets of fundamentalvision/Deformable-DETR.

All train for 50 epochs on 16 devices of two images; AP as in the repository's table.
"""

from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.recipe import CriterionRecipe, LrFactor, ModelRecipe, Recipe, TrainRecipe

HIDDEN, DROPOUT = 1024, 0.1
SLOW = (LrFactor("backbone", 0.1), LrFactor("*.offsets.", 0.1))
"""Backbone and sampling offsets learn at a tenth of the rate; so do learned reference points."""
TRAIN = TrainRecipe(
    epochs=50,
    lr=2e-4,
    lr_factors=(*SLOW, LrFactor("queries.point.", 0.1)),
    drops=(40,),
    criterion=CriterionRecipe(class_weight=2.0, giou_eps=0.0),
)


def neck(levels: int = 4) -> ChannelMapperConfig:
    """The neck of Deformable DETR and of all that build on it."""
    return ChannelMapperConfig(levels=levels, temperature=10000.0, offset=-0.5)


def deformable_detr_r50() -> Recipe:
    """Deformable DETR R50, one stage, no refinement. Published: 44.5 AP, 173 GFLOPs."""
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, weights="imagenet"),
        neck=neck(),
        encoder=DeformableEncoderConfig(hidden=HIDDEN, dropout=DROPOUT),
        queries=PointQueriesConfig(count=300),
        decoder=DeformableDecoderConfig(hidden=HIDDEN, dropout=DROPOUT),
        top=100,
    )
    return Recipe("deformable-detr-r50", model, train=TRAIN)


def deformable_detr_r50_refine() -> Recipe:
    """Deformable DETR R50 with iterative box refinement. Published: 46.2 AP, 173 GFLOPs."""
    decoder = DeformableDecoderConfig(hidden=HIDDEN, dropout=DROPOUT, refine=True)
    return deformable_detr_r50().with_model(decoder=decoder, shared_heads=False)


def deformable_detr_r50_two_stage() -> Recipe:
    """Deformable DETR R50 with refinement and two stages. Published: 46.9 AP, 173 GFLOPs."""
    two_stage = deformable_detr_r50_refine().with_model(queries=TwoStageQueriesConfig(count=300))
    return two_stage.with_train(lr_factors=SLOW)


def deformable_detr_r50_single_scale() -> Recipe:
    """Deformable DETR R50 on C5 alone. Published: 39.4 AP, 78 GFLOPs."""
    backbone = ResNetConfig(depth=50, outputs=(3,), weights="imagenet")
    return deformable_detr_r50().with_model(backbone=backbone, neck=neck(levels=1))


def deformable_detr_r50_single_scale_dc5() -> Recipe:
    """Deformable DETR R50 on C5 alone, dilated to stride 16. Published: 41.5 AP, 128 GFLOPs."""
    backbone = ResNetConfig(depth=50, outputs=(3,), dilate_last=True, weights="imagenet")
    return deformable_detr_r50_single_scale().with_model(backbone=backbone)


PRESETS = (
    deformable_detr_r50,
    deformable_detr_r50_refine,
    deformable_detr_r50_two_stage,
    deformable_detr_r50_single_scale,
    deformable_detr_r50_single_scale_dc5,
)
