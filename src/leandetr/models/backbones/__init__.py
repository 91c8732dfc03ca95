"""Backbones: images in, feature maps out. Importing this package registers them all."""

from leandetr.models.backbones.base import Backbone, BackboneConfig, backbones
from leandetr.models.backbones.pretrained import load_pretrained
from leandetr.models.backbones.residual import FrozenBatchNorm
from leandetr.models.backbones.resnet import NanoResNetConfig, ResNetConfig
from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.backbones.timm_models import TimmConfig
from leandetr.models.backbones.transformers_models import HubConfig

__all__ = [
    "Backbone",
    "BackboneConfig",
    "FrozenBatchNorm",
    "HubConfig",
    "NanoResNetConfig",
    "ResNetConfig",
    "SwinConfig",
    "TimmConfig",
    "backbones",
    "load_pretrained",
]
