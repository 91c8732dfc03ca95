"""Lite DETR (arXiv 2303.07335) on Deformable DETR (its table 3), on DINO and H-DETR (its table 4).

A name spells the paper's notation: `h3l1-2p1x3` is H3L1-(2+1)x3. All use key-aware attention whose
key is the projected value, in the encoder and in the decoder, as the released checkpoints do.
Those are of DINO only (IDEA-Research/Lite-DETR:config/DINO/DINO_4scale.py); the others keep all
else from the detector they are on. Table 4 trains for 36 epochs, table 3 for 50. The `keep` at the
end of a name is ours, see Scored Lite in models/encoders/lite.py.
"""

from dataclasses import replace

from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.recipes.deformable_detr import deformable_detr_r50_two_stage
from leandetr.recipes.dino import dino_r50, dino_swin_t
from leandetr.recipes.h_detr import h_detr_r50, h_detr_swin_t
from leandetr.recipes.recipe import Recipe


def _lite(base: Recipe, *, high_levels: int, high_updates: int, blocks: int) -> Recipe:
    """The base with an interleaved encoder of the same widths, and key-aware decoder."""
    before = base.model.encoder
    encoder = LiteEncoderConfig(
        high_levels=high_levels,
        high_updates=high_updates,
        blocks=blocks,
        hidden=before.hidden,
        dropout=before.dropout,
    )
    return base.with_model(encoder=encoder, decoder=replace(base.model.decoder, key_aware=True))


def _long(base: Recipe) -> Recipe:
    """The base on the schedule of table 4."""
    return base.with_train(epochs=36, drops=(30,))


def lite_dino_r50_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 49.9 AP, 130 GFLOPs."""
    return _lite(_long(dino_r50()), high_levels=2, high_updates=2, blocks=3)


def lite_dino_r50_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 50.2 AP, 141 GFLOPs."""
    return _lite(_long(dino_r50()), high_levels=3, high_updates=6, blocks=1)


def lite_dino_r50_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 50.4 AP, 151 GFLOPs."""
    return _lite(_long(dino_r50()), high_levels=3, high_updates=2, blocks=3)


def lite_dino_r50_h3l1_2p1x3_keep30() -> Recipe:
    """Scored Lite: the finest scale refines the 30 percent that look most like foreground.

    Our own joining of Lite DETR with the token scores of Focus-DETR (arXiv 2307.12612). No paper
    has it and nothing was published.
    """
    lite = lite_dino_r50_h3l1_2p1x3()
    criterion = replace(lite.train.criterion, salience_weight=1.5)  # as in Focus-DETR
    encoder = replace(lite.model.encoder, keep_low=0.3)
    return lite.with_model(encoder=encoder).with_train(criterion=criterion)


def lite_dino_swin_t_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 53.1 AP, 138 GFLOPs."""
    return _lite(_long(dino_swin_t()), high_levels=2, high_updates=2, blocks=3)


def lite_dino_swin_t_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 53.3 AP, 149 GFLOPs."""
    return _lite(_long(dino_swin_t()), high_levels=3, high_updates=6, blocks=1)


def lite_dino_swin_t_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 53.9 AP, 159 GFLOPs."""
    return _lite(_long(dino_swin_t()), high_levels=3, high_updates=2, blocks=3)


def lite_deformable_detr_r50_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 45.8 AP, 108 GFLOPs."""
    return _lite(deformable_detr_r50_two_stage(), high_levels=2, high_updates=2, blocks=3)


def lite_deformable_detr_r50_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 45.9 AP, 115 GFLOPs."""
    return _lite(deformable_detr_r50_two_stage(), high_levels=3, high_updates=6, blocks=1)


def lite_deformable_detr_r50_h3l1_3p1x2() -> Recipe:
    """Three high-level scales, (3+1) updates, two blocks. Published: 46.2 AP, 119 GFLOPs."""
    return _lite(deformable_detr_r50_two_stage(), high_levels=3, high_updates=3, blocks=2)


def lite_deformable_detr_r50_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 46.7 AP, 123 GFLOPs."""
    return _lite(deformable_detr_r50_two_stage(), high_levels=3, high_updates=2, blocks=3)


def lite_h_detr_r50_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 49.5 AP, 142 GFLOPs."""
    return _lite(_long(h_detr_r50()), high_levels=3, high_updates=2, blocks=3)


def lite_h_detr_swin_t_h2l2_2p1x3() -> Recipe:
    """Two high-level scales, (2+1) updates, three blocks. Published: 52.3 AP, 131 GFLOPs."""
    return _lite(_long(h_detr_swin_t()), high_levels=2, high_updates=2, blocks=3)


def lite_h_detr_swin_t_h3l1_6p1x1() -> Recipe:
    """Three high-level scales, (6+1) updates, one block. Published: 52.7 AP, 142 GFLOPs."""
    return _lite(_long(h_detr_swin_t()), high_levels=3, high_updates=6, blocks=1)


def lite_h_detr_swin_t_h3l1_2p1x3() -> Recipe:
    """Three high-level scales, (2+1) updates, three blocks. Published: 53.0 AP, 152 GFLOPs."""
    return _lite(_long(h_detr_swin_t()), high_levels=3, high_updates=2, blocks=3)


PRESETS = (
    lite_dino_r50_h2l2_2p1x3,
    lite_dino_r50_h3l1_6p1x1,
    lite_dino_r50_h3l1_2p1x3,
    lite_dino_r50_h3l1_2p1x3_keep30,
    lite_dino_swin_t_h2l2_2p1x3,
    lite_dino_swin_t_h3l1_6p1x1,
    lite_dino_swin_t_h3l1_2p1x3,
    lite_deformable_detr_r50_h2l2_2p1x3,
    lite_deformable_detr_r50_h3l1_6p1x1,
    lite_deformable_detr_r50_h3l1_3p1x2,
    lite_deformable_detr_r50_h3l1_2p1x3,
    lite_h_detr_r50_h3l1_2p1x3,
    lite_h_detr_swin_t_h2l2_2p1x3,
    lite_h_detr_swin_t_h3l1_6p1x1,
    lite_h_detr_swin_t_h3l1_2p1x3,
)
