"""Encoders by name.

Another package registers its own and names the module under the entry points `leandetr.encoders`:

    [project.entry-points."leandetr.encoders"]
    stride = "my_package.stride"
"""

from leandetr.models.dims import Dims
from leandetr.models.encoders import deformable, dense, focus, lite, sparse
from leandetr.models.encoders.base import Encoder, encoders

__all__ = [
    "Dims",
    "Encoder",
    "deformable",
    "dense",
    "encoders",
    "focus",
    "lite",
    "sparse",
]
