"""Sparse DETR (arXiv 2111.14330): the presets of its repository, kakaobrain/sparse-detr.

`rho30` keeps 30 % of the tokens. All are two-stage Deformable DETR with refinement, whose queries
say what the best tokens say, and train like it (main.py); AP and GFLOPs as in the README.
"""

from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.deformable_detr import DROPOUT, HIDDEN, deformable_detr_r50_two_stage
from leandetr.recipes.recipe import Recipe


def _r50(keep: float) -> Recipe:
    return deformable_detr_r50_two_stage().with_model(
        encoder=SparseEncoderConfig(keep, hidden=HIDDEN, dropout=DROPOUT),
        queries=TwoStageQueriesConfig(count=300, content="tokens", agnostic=False),
    )


def _swin_t(keep: float) -> Recipe:
    backbone = SwinConfig(variant="tiny", frozen_stages=2, weights="imagenet")
    return _r50(keep).with_model(backbone=backbone)


def sparse_detr_r50_rho0() -> Recipe:
    """All tokens, none scored: the repository's Efficient DETR. Published: 46.0 AP, 177.3 GFLOPs.

    Its table calls it Deformable DETR with top-k queries and box refinement.
    """
    return _r50(0.3).with_model(encoder=DeformableEncoderConfig(hidden=HIDDEN, dropout=DROPOUT))


def sparse_detr_r50_rho10() -> Recipe:
    """10 % of the tokens. Published: 45.3 AP, 105.4 GFLOPs."""
    return _r50(0.1)


def sparse_detr_r50_rho20() -> Recipe:
    """20 % of the tokens. Published: 45.6 AP, 112.9 GFLOPs."""
    return _r50(0.2)


def sparse_detr_r50_rho30() -> Recipe:
    """30 % of the tokens. Published: 46.0 AP, 120.5 GFLOPs."""
    return _r50(0.3)


def sparse_detr_r50_rho40() -> Recipe:
    """40 % of the tokens. Published: 46.2 AP, 128.0 GFLOPs."""
    return _r50(0.4)


def sparse_detr_r50_rho50() -> Recipe:
    """50 % of the tokens. Published: 46.3 AP, 135.6 GFLOPs."""
    return _r50(0.5)


def sparse_detr_swin_t_rho10() -> Recipe:
    """10 % of the tokens, Swin-T. Published: 48.2 AP, 113.4 GFLOPs."""
    return _swin_t(0.1)


def sparse_detr_swin_t_rho20() -> Recipe:
    """20 % of the tokens, Swin-T. Published: 48.8 AP, 121.0 GFLOPs."""
    return _swin_t(0.2)


def sparse_detr_swin_t_rho30() -> Recipe:
    """30 % of the tokens, Swin-T. Published: 49.1 AP, 128.5 GFLOPs."""
    return _swin_t(0.3)


def sparse_detr_swin_t_rho40() -> Recipe:
    """40 % of the tokens, Swin-T. Published: 49.2 AP, 136.1 GFLOPs."""
    return _swin_t(0.4)


def sparse_detr_swin_t_rho50() -> Recipe:
    """50 % of the tokens, Swin-T. Published: 49.3 AP, 143.7 GFLOPs."""
    return _swin_t(0.5)


PRESETS = (
    sparse_detr_r50_rho0,
    sparse_detr_r50_rho10,
    sparse_detr_r50_rho20,
    sparse_detr_r50_rho30,
    sparse_detr_r50_rho40,
    sparse_detr_r50_rho50,
    sparse_detr_swin_t_rho10,
    sparse_detr_swin_t_rho20,
    sparse_detr_swin_t_rho30,
    sparse_detr_swin_t_rho40,
    sparse_detr_swin_t_rho50,
)
