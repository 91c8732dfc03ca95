"""Decoders by name."""

from leandetr.models.decoders import dino
from leandetr.models.decoders.base import Decoder, decoders

__all__ = ["Decoder", "decoders", "dino"]
