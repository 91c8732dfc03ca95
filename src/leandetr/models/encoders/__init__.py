"""Encoders by name; third parties register theirs under the entry point `leandetr.encoders`."""

from leandetr.models.encoders import deformable, lite
from leandetr.models.encoders.base import Dims, Encoder, encoders

__all__ = ["Dims", "Encoder", "deformable", "encoders", "lite"]
