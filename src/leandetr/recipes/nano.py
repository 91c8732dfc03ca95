"""Nano detectors of our own: small enough to train from scratch on a processor."""

from leandetr.data.transforms import SmallDataAugment
from leandetr.images import Preprocess
from leandetr.models.backbones.resnet import NanoResNetConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.models.queries.hybrid import HybridConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.recipe import ModelRecipe, Recipe, TrainRecipe


def dino_nano() -> Recipe:
    """A small DINO at 320x240: three levels, 128 channels, two encoder and three decoder layers."""
    model = ModelRecipe(
        backbone=NanoResNetConfig(widths=(32, 64, 128, 160), blocks=(1, 2, 2, 1)),
        neck=ChannelMapperConfig(levels=3),
        encoder=DeformableEncoderConfig(layers=2, heads=8, points=2, hidden=256),
        queries=MixedQueriesConfig(count=100),
        decoder=DinoDecoderConfig(layers=3, heads=8, points=2, hidden=256),
        groups=(DenoisingConfig(budget=50),),
        dim=128,
        top=100,
    )
    train = TrainRecipe(
        epochs=90,
        batch=8,
        lr=5e-4,
        lr_factors=(),
        weight_decay=0.05,
        schedule="cosine",
        warmup=100,
        clip=1.0,
        ema=0.998,
        validate_every=5,
        augment=SmallDataAugment(turn=0.0),
    )
    return Recipe("dino-nano", model, Preprocess(short=240, long=320), train)


def lite_dino_nano() -> Recipe:
    """The same with the interleaved key-aware encoder, H2L1-(2+1)x1."""
    encoder = LiteEncoderConfig(
        high_levels=2, high_updates=2, blocks=1, heads=8, points=2, hidden=256, low_hidden=128
    )
    decoder = DinoDecoderConfig(layers=3, heads=8, points=2, hidden=256, key_aware=True)
    return dino_nano().with_model(encoder=encoder, decoder=decoder)


def deformable_detr_nano() -> Recipe:
    """A two-stage Deformable DETR with box refinement, of the size of dino-nano."""
    queries = TwoStageQueriesConfig(count=100)
    decoder = DeformableDecoderConfig(
        layers=3, heads=8, points=2, hidden=256, refine=True, dropout=0.0
    )
    return dino_nano().with_model(queries=queries, decoder=decoder, groups=(), shared_heads=False)


def h_detr_nano() -> Recipe:
    """A small H-DETR: mixed selection, and 200 queries more in training, four for each target."""
    queries = TwoStageQueriesConfig(count=100, spare=200, content="learned")
    decoder = DeformableDecoderConfig(
        layers=3, heads=8, points=2, hidden=256, refine=True, look_twice=True, dropout=0.0
    )
    return deformable_detr_nano().with_model(
        queries=queries, decoder=decoder, groups=(HybridConfig(repeat=4),)
    )


PRESETS = (dino_nano, lite_dino_nano, deformable_detr_nano, h_detr_nano)
