"""DINO (arXiv 2203.03605): the presets of its repository, IDEA-Research/DINO."""

from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.recipes.recipe import ModelRecipe, Recipe


def dino_r50() -> Recipe:
    """DINO-4scale R50 (config/DINO/DINO_4scale.py). Published: 49.0 AP after 12 epochs."""
    model = ModelRecipe(
        backbone=ResNetConfig(depth=50, weights="imagenet"),
        neck=ChannelMapperConfig(levels=4),
        encoder=DeformableEncoderConfig(),
        queries=MixedQueriesConfig(count=900),
        decoder=DinoDecoderConfig(),
        groups=(DenoisingConfig(box_noise=1.0),),  # as scripts/DINO_train.sh sets it
    )
    return Recipe("dino-r50", model)


def dino_r50_5scale() -> Recipe:
    """DINO-5scale R50 (config/DINO/DINO_5scale.py). Published: 49.4 AP after 12 epochs."""
    return dino_r50().with_model(
        backbone=ResNetConfig(depth=50, outputs=(0, 1, 2, 3), weights="imagenet"),
        neck=ChannelMapperConfig(levels=5),
    )


def dino_swin_t() -> Recipe:
    """DINO-4scale Swin-T. Published: 54.1 AP after 36 epochs (Lite DETR, table 4)."""
    return dino_r50().with_model(backbone=SwinConfig(variant="tiny", weights="imagenet"))


PRESETS = (dino_r50, dino_r50_5scale, dino_swin_t)
