"""What the papers and their repositories state about each preset. None of it was measured here.

AP is COCO val2017 AP of the model as published; parameters are millions, as printed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """`ap` after `epochs` of training; `millions` of parameters; `source` says where it stands."""

    ap: float
    epochs: int
    millions: float | int | None
    source: str


_DETR = "facebookresearch/detr, README"
_CONDITIONAL = "Atten4Vis/ConditionalDETR, README"
_DEFORMABLE = "fundamentalvision/Deformable-DETR, README"
_H = "HDETR/H-Deformable-DETR, README"
_DINO = "IDEA-Research/DINO, README"
_LITE_3 = "Lite DETR (arXiv 2303.07335), table 3"
_LITE_4 = "Lite DETR (arXiv 2303.07335), table 4"
_SPARSE = "kakaobrain/sparse-detr, README"
_FOCUS = "huawei-noah/noah-research Focus-DETR, README"

PUBLISHED: dict[str, Published] = {
    "detr-r50": Published(42.0, 500, 41, _DETR),
    "detr-r50-dc5": Published(43.3, 500, 41, _DETR),
    "detr-r101": Published(43.5, 500, 60, _DETR),
    "detr-r101-dc5": Published(44.9, 500, 60, _DETR),
    "conditional-detr-r50": Published(41.0, 50, 44, _CONDITIONAL),
    "conditional-detr-r50-dc5": Published(43.7, 50, 44, _CONDITIONAL),
    "conditional-detr-r101": Published(42.8, 50, 63, _CONDITIONAL),
    "conditional-detr-r101-dc5": Published(45.0, 50, 63, _CONDITIONAL),
    "deformable-detr-r50-single-scale": Published(39.4, 50, 34, _DEFORMABLE),
    "deformable-detr-r50-single-scale-dc5": Published(41.5, 50, 34, _DEFORMABLE),
    "deformable-detr-r50": Published(44.5, 50, 40, _DEFORMABLE),
    "deformable-detr-r50-refine": Published(46.2, 50, 41, _DEFORMABLE),
    "deformable-detr-r50-two-stage": Published(46.9, 50, 41, _DEFORMABLE),
    "h-detr-r50": Published(48.7, 12, None, _H),
    "h-detr-swin-t": Published(50.6, 12, None, _H),
    "h-detr-swin-l": Published(55.9, 12, None, _H),
    "dino-r50": Published(49.0, 12, 47, _DINO),
    "dino-r50-5scale": Published(49.4, 12, 47, _DINO),
    "dino-swin-t": Published(54.1, 36, 47, _LITE_4),
    "lite-deformable-detr-r50-h2l2-2p1x3": Published(45.8, 50, 41, _LITE_3),
    "lite-deformable-detr-r50-h3l1-6p1x1": Published(45.9, 50, 41, _LITE_3),
    "lite-deformable-detr-r50-h3l1-3p1x2": Published(46.2, 50, 41, _LITE_3),
    "lite-deformable-detr-r50-h3l1-2p1x3": Published(46.7, 50, 41, _LITE_3),
    "lite-dino-r50-h2l2-2p1x3": Published(49.9, 36, 47, _LITE_4),
    "lite-dino-r50-h3l1-6p1x1": Published(50.2, 36, 47, _LITE_4),
    "lite-dino-r50-h3l1-2p1x3": Published(50.4, 36, 47, _LITE_4),
    "lite-dino-swin-t-h2l2-2p1x3": Published(53.1, 36, 47, _LITE_4),
    "lite-dino-swin-t-h3l1-6p1x1": Published(53.3, 36, 47, _LITE_4),
    "lite-dino-swin-t-h3l1-2p1x3": Published(53.9, 36, 47, _LITE_4),
    "lite-h-detr-r50-h3l1-2p1x3": Published(49.5, 36, 47, _LITE_4),
    "lite-h-detr-swin-t-h2l2-2p1x3": Published(52.3, 36, 47, _LITE_4),
    "lite-h-detr-swin-t-h3l1-6p1x1": Published(52.7, 36, 47, _LITE_4),
    "lite-h-detr-swin-t-h3l1-2p1x3": Published(53.0, 36, 47, _LITE_4),
    "sparse-detr-r50-rho0": Published(46.0, 50, 40.8, _SPARSE),
    "sparse-detr-r50-rho10": Published(45.3, 50, 40.9, _SPARSE),
    "sparse-detr-r50-rho20": Published(45.6, 50, 40.9, _SPARSE),
    "sparse-detr-r50-rho30": Published(46.0, 50, 40.9, _SPARSE),
    "sparse-detr-r50-rho40": Published(46.2, 50, 40.9, _SPARSE),
    "sparse-detr-r50-rho50": Published(46.3, 50, 40.9, _SPARSE),
    "sparse-detr-swin-t-rho10": Published(48.2, 50, 41.4, _SPARSE),
    "sparse-detr-swin-t-rho20": Published(48.8, 50, 41.4, _SPARSE),
    "sparse-detr-swin-t-rho30": Published(49.1, 50, 41.4, _SPARSE),
    "sparse-detr-swin-t-rho40": Published(49.2, 50, 41.4, _SPARSE),
    "sparse-detr-swin-t-rho50": Published(49.3, 50, 41.4, _SPARSE),
    "focus-detr-r50": Published(50.4, 36, None, _FOCUS),
    "focus-detr-r101": Published(51.4, 36, None, _FOCUS),
    "focus-detr-swin-t": Published(52.5, 36, None, _FOCUS),
    "focus-detr-swin-b": Published(56.2, 36, None, _FOCUS),
    "focus-detr-swin-l": Published(56.3, 36, None, _FOCUS),
}
"""By preset."""
