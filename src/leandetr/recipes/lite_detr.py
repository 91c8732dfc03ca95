"""Lite DETR (arXiv 2303.07335) on DINO: the settings of its table 4.

A name spells the paper's notation: `h3l1-2p1x3` is H3L1-(2+1)x3. All use key-aware attention whose
key is the projected value, in the encoder and in the decoder, as the released checkpoints do, and
train for 36 epochs (IDEA-Research/Lite-DETR:config/DINO/DINO_4scale.py).
"""

from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.recipes.dino import dino_r50, dino_swin_t
from leandetr.recipes.recipe import Recipe


def _lite(base: Recipe, *, high_levels: int, high_updates: int, blocks: int) -> Recipe:
    encoder = LiteEncoderConfig(high_levels=high_levels, high_updates=high_updates, blocks=blocks)
    lite = base.with_model(encoder=encoder, decoder=DinoDecoderConfig(key_aware=True))
    return lite.with_train(epochs=36, drops=(30,))


def lite_dino_r50_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 49.9 AP, 130 GFLOPs."""
    return _lite(dino_r50(), high_levels=2, high_updates=2, blocks=3)


def lite_dino_r50_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 50.2 AP, 141 GFLOPs."""
    return _lite(dino_r50(), high_levels=3, high_updates=6, blocks=1)


def lite_dino_r50_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 50.4 AP, 151 GFLOPs."""
    return _lite(dino_r50(), high_levels=3, high_updates=2, blocks=3)


def lite_dino_swin_t_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 53.1 AP, 138 GFLOPs."""
    return _lite(dino_swin_t(), high_levels=2, high_updates=2, blocks=3)


def lite_dino_swin_t_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 53.3 AP, 149 GFLOPs."""
    return _lite(dino_swin_t(), high_levels=3, high_updates=6, blocks=1)


def lite_dino_swin_t_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 53.9 AP, 159 GFLOPs."""
    return _lite(dino_swin_t(), high_levels=3, high_updates=2, blocks=3)


PRESETS = (
    lite_dino_r50_h2l2_2p1x3,
    lite_dino_r50_h3l1_6p1x1,
    lite_dino_r50_h3l1_2p1x3,
    lite_dino_swin_t_h2l2_2p1x3,
    lite_dino_swin_t_h3l1_6p1x1,
    lite_dino_swin_t_h3l1_2p1x3,
)
