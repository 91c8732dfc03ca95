"""Decoders by name."""

from leandetr.models.decoders import conditional, deformable, detr, dino
from leandetr.models.decoders.base import Decoder, decoders

__all__ = ["Decoder", "conditional", "decoders", "deformable", "detr", "dino"]
