"""Both sampling operators in plain PyTorch: the truth the kernels are held to, and the export path.

Pixel i of a row of n spans (i / n, (i + 1) / n); whatever lies outside the map counts as zero,
corner by corner (`grid_sample` with zero padding and `align_corners=False`).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from leandetr.types import Shapes


def sample(
    maps: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> Float[Tensor, "N*M D Q L*P"]:
    """Bilinear samples of every level at `locations` (x, y in (0,1) of the padded map).

    Maps of a lower precision are sampled at the precision of the locations.
    """
    grids = 2 * locations - 1
    maps = maps.to(locations.dtype)
    levels = maps.split([height * width for height, width in shapes], dim=1)
    sampled = []
    for index, ((height, width), level) in enumerate(zip(shapes, levels, strict=True)):
        plane = rearrange(level, "N (H W) M D -> (N M) D H W", H=height, W=width)
        grid = rearrange(grids[:, :, :, index], "N Q M P xy -> (N M) Q P xy")
        sampled.append(F.grid_sample(plane, grid, padding_mode="zeros", align_corners=False))
    return torch.cat(sampled, dim=-1)


def deform_attn(
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
    weights: Float[Tensor, "N Q M L P"],
) -> Float[Tensor, "N Q M*D"]:
    """Weighted sum of sampled values: Deformable DETR (arXiv 2010.04159), eq. 3."""
    sampled = sample(value, shapes, locations)  # NM D Q LP
    weights = rearrange(weights, "N Q M L P -> (N M) 1 Q (L P)")
    summed = (sampled * weights).sum(dim=-1)  # NM D Q
    return rearrange(summed, "(N M) D Q -> N Q (M D)", M=value.shape[2]).to(value.dtype)


def key_aware_attn(
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"],
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> Float[Tensor, "N Q M*D"]:
    """Attention over sampled keys: Lite DETR (arXiv 2303.07335), key-aware deformable attention.

    The logit of a sample is query . key / sqrt(D), the softmax runs over levels and points
    together. A sample outside the map, or on a zeroed key, has logit 0 and stays in the softmax
    (IDEA-Research/Lite-DETR:models/dino/ops/functions/ms_deform_attn_func.py). When `key` is
    `value`, the same tensor, it is sampled once.
    """
    values = sample(value, shapes, locations)  # NM D Q LP
    keys = values if key is value else sample(key, shapes, locations)
    asked = rearrange(query, "N Q M D -> (N M) D Q 1") / query.shape[-1] ** 0.5
    weights = (asked * keys).sum(dim=1, keepdim=True).softmax(dim=-1)  # NM 1 Q LP
    summed = (values * weights).sum(dim=-1)  # NM D Q
    return rearrange(summed, "(N M) D Q -> N Q (M D)", M=value.shape[2]).to(value.dtype)
