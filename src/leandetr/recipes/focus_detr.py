"""Focus-DETR (arXiv 2307.12612): the presets of huawei-noah/noah-research:Focus-DETR.

DINO as detrex builds it, with the foreground encoder: heads of its own for every decoder layer,
Deformable DETR's position embedding, a trained layer1, the 80 classes of COCO. Half of the tokens
are foreground, the layers refine 100, 80, 60, 60, 40 and 20 percent of them. AP is that of the
repository's table, after 36 epochs; for 12 or 24 of them the rate drops after 11 or 20.
"""

from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.recipes.dino import dino_r50
from leandetr.recipes.recipe import CriterionRecipe, Recipe

CLASSES = 80
FROZEN = 1
"""Only the stem of a ResNet stays as it is (`freeze_at=1`)."""


def focus_detr_r50() -> Recipe:
    """Focus-DETR R50. Published: 50.4 AP after 36 epochs (48.8 after 12, 50.3 after 24)."""
    model = dino_r50().with_model(
        backbone=ResNetConfig(depth=50, frozen_stages=FROZEN, weights="imagenet"),
        neck=ChannelMapperConfig(levels=4, temperature=10000.0, offset=-0.5),
        encoder=FocusEncoderConfig(),
        groups=(DenoisingConfig(box_noise=1.0, spare_row=False),),
        shared_heads=False,
        classes=CLASSES,
    )
    criterion = CriterionRecipe(salience_weight=1.5)
    return model.with_train(epochs=36, drops=(30,), criterion=criterion)


def focus_detr_r101() -> Recipe:
    """Focus-DETR R101. Published: 51.4 AP after 36 epochs (50.8 after 12, 51.2 after 24)."""
    backbone = ResNetConfig(depth=101, frozen_stages=FROZEN, weights="imagenet")
    return focus_detr_r50().with_model(backbone=backbone)


def focus_detr_swin_t() -> Recipe:
    """Focus-DETR Swin-T. Published: 52.5 AP after 36 epochs (50.0 after 12, 51.2 after 24).

    From a backbone trained on ImageNet-22k and then on ImageNet-1k the repository states 53.2.
    """
    return focus_detr_r50().with_model(backbone=SwinConfig(variant="tiny", weights="imagenet"))


def focus_detr_swin_b() -> Recipe:
    """Focus-DETR Swin-B, trained at 384 pixels before. Published: 56.2 AP after 36 epochs.

    The published model started from weights trained on ImageNet-22k and then on ImageNet-1k,
    this one starts from those of ImageNet-22k.
    """
    backbone = SwinConfig(variant="base", window=12, weights="imagenet-22k")
    return focus_detr_r50().with_model(backbone=backbone)


def focus_detr_swin_l() -> Recipe:
    """Focus-DETR Swin-L, trained at 384 pixels before. Published: 56.3 AP after 36 epochs.

    As with Swin-B, the published model started from weights trained on ImageNet-1k at last.
    """
    backbone = SwinConfig(variant="large", window=12, weights="imagenet-22k")
    return focus_detr_r50().with_model(backbone=backbone)


PRESETS = (
    focus_detr_r50,
    focus_detr_r101,
    focus_detr_swin_t,
    focus_detr_swin_b,
    focus_detr_swin_l,
)
