"""Decoders by name."""

from leandetr.models.decoders import deformable, dino
from leandetr.models.decoders.base import Decoder, decoders

__all__ = ["Decoder", "decoders", "deformable", "dino"]
