"""H-DETR (arXiv 2207.13080): Deformable DETR with hybrid matching, as in HDETR/H-Deformable-DETR.

All are two-stage with refinement. The repository's "tricks" are mixed query selection, looking
forward twice and no dropout. The presets train for 12 epochs; for the AP after 36 type
`--set train.epochs=36 --set train.drops=[30]`.
"""

from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.queries.hybrid import HybridConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.deformable_detr import DROPOUT, deformable_detr_r50_two_stage
from leandetr.recipes.recipe import Recipe

HIDDEN = 2048
COUNT, SPARE = 300, 1500


def h_detr_r50_plain() -> Recipe:
    """H-DETR R50 without the tricks: hybrid matching alone. No AP is stated in the repository."""
    plain = deformable_detr_r50_two_stage().with_model(
        encoder=DeformableEncoderConfig(hidden=HIDDEN, dropout=DROPOUT),
        queries=TwoStageQueriesConfig(count=COUNT, spare=SPARE),
        decoder=DeformableDecoderConfig(hidden=HIDDEN, dropout=DROPOUT, refine=True),
        groups=(HybridConfig(repeat=6, weight=1.0),),
    )
    return plain.with_train(epochs=12, drops=(11,))


def h_detr_r50() -> Recipe:
    """H-DETR R50 with the tricks. Published: 48.7 AP after 12 epochs, 50.0 after 36."""
    return h_detr_r50_plain().with_model(
        encoder=DeformableEncoderConfig(hidden=HIDDEN),
        queries=TwoStageQueriesConfig(count=COUNT, spare=SPARE, content="learned"),
        decoder=DeformableDecoderConfig(hidden=HIDDEN, dropout=0.0, refine=True, look_twice=True),
    )


def h_detr_swin_t() -> Recipe:
    """H-DETR Swin-T. Published: 50.6 AP after 12 epochs, 53.2 after 36.

    With `--set train.weight_decay=0.05` the repository states 51.2 and 53.7.
    """
    return h_detr_r50().with_model(backbone=SwinConfig(variant="tiny", weights="imagenet"))


def h_detr_swin_l() -> Recipe:
    """H-DETR Swin-L. Published: 55.9 AP after 12 epochs.

    After 36 epochs with `--set backbone.drop_path=0.5` the repository states 57.1.
    """
    return h_detr_r50().with_model(backbone=SwinConfig(variant="large", weights="imagenet-22k"))


PRESETS = (h_detr_r50, h_detr_r50_plain, h_detr_swin_t, h_detr_swin_l)
