"""Nano detectors of our own: small enough to train from scratch on a processor."""

from leandetr.models.backbones.resnet import NanoResNetConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.recipes.recipe import ModelRecipe, Recipe


def dino_nano() -> Recipe:
    """A small DINO: three levels, 128 channels, three layers each way."""
    model = ModelRecipe(
        backbone=NanoResNetConfig(),
        neck=ChannelMapperConfig(levels=3),
        encoder=DeformableEncoderConfig(layers=2, heads=8, points=4, hidden=256),
        queries=MixedQueriesConfig(count=100),
        decoder=DinoDecoderConfig(layers=3, heads=8, points=4, hidden=256),
        groups=(DenoisingConfig(budget=50),),
        dim=128,
        top=100,
    )
    return Recipe("dino-nano", model)


def lite_dino_nano() -> Recipe:
    """The same with the interleaved key-aware encoder, H2L1-(2+1)x2."""
    encoder = LiteEncoderConfig(
        high_levels=2, high_updates=2, blocks=2, heads=8, points=4, hidden=256, low_hidden=128
    )
    decoder = DinoDecoderConfig(layers=3, heads=8, points=4, hidden=256, key_aware=True)
    return dino_nano().with_model(encoder=encoder, decoder=decoder)


PRESETS = (dino_nano, lite_dino_nano)
