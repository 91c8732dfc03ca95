"""Encoders by name; third parties register theirs under the entry point `leandetr.encoders`."""

from leandetr.models.dims import Dims
from leandetr.models.encoders import deformable, lite
from leandetr.models.encoders.base import Encoder, encoders

__all__ = ["Dims", "Encoder", "deformable", "encoders", "lite"]
