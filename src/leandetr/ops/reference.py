"""Both sampling operators in plain PyTorch: the truth the kernels are held to, and the export path.

Pixel i of a row of n spans (i / n, (i + 1) / n); whatever lies outside the map counts as zero,
corner by corner (`grid_sample` with zero padding and `align_corners=False`). All arithmetic is in
single precision at least, whatever the inputs, as in the kernels; results are rounded at the end.

The gradients are written out for the backward operators: inside an operator autograd is off, and
`torch.func.vjp` fails there under dispatch modes such as the FLOP counter.
"""

from collections.abc import Iterator
from functools import reduce

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from leandetr.types import Shapes

BILINEAR, ZEROS = 0, 0
"""What `grid_sampler_2d_backward` calls the interpolation and the padding used here."""


def exact(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the precision that is computed in: the highest of any, single at least.

    A tensor given twice comes back as one.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    once = {id(tensor): tensor if tensor.dtype == dtype else tensor.to(dtype) for tensor in tensors}
    return [once[id(tensor)] for tensor in tensors]


def sample(
    maps: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> Float[Tensor, "N*M D Q L*P"]:
    """Bilinear samples of every level at `locations` (x, y in (0,1) of the padded map)."""
    sampled = []
    for plane, grid in _levels(maps, shapes, locations):
        if is_empty(plane):
            sampled.append(plane.new_zeros(*plane.shape[:2], *grid.shape[1:3]))
        else:
            sampled.append(F.grid_sample(plane, grid, padding_mode="zeros", align_corners=False))
    return torch.cat(sampled, dim=-1)


def is_empty(plane: Float[Tensor, "NM D H W"]) -> bool:
    """Whether a level has no cell, which `grid_sample` refuses; never while sizes are symbols."""
    height, width = plane.shape[2:]
    return isinstance(height, int) and isinstance(width, int) and 0 in (height, width)


def sample_backward(
    grad: Float[Tensor, "NM D Q LP"],
    maps: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> tuple[Float[Tensor, "N S M D"], Float[Tensor, "N Q M L P 2"]]:
    """Gradients of the maps and the locations, given those of the samples."""
    heads, points = maps.shape[2], locations.shape[4]
    map_grads, location_grads = [], []
    for part, (plane, grid) in zip(
        grad.split(points, dim=-1), _levels(maps, shapes, locations), strict=True
    ):
        planes, grids = plane, torch.zeros_like(grid)
        if not is_empty(plane):
            planes, grids = torch.ops.aten.grid_sampler_2d_backward(
                part.contiguous(), plane, grid, BILINEAR, ZEROS, False, [True, True]
            )
        map_grads.append(rearrange(planes, "(N M) D H W -> N (H W) M D", M=heads))
        location_grads.append(2 * rearrange(grids, "(N M) Q P xy -> N Q M P xy", M=heads))
    return torch.cat(map_grads, dim=1), torch.stack(location_grads, dim=3)


def _levels(
    maps: Float[Tensor, "N S M D"], shapes: Shapes, locations: Float[Tensor, "N Q M L P 2"]
) -> Iterator[tuple[Float[Tensor, "NM D H W"], Float[Tensor, "NM Q P 2"]]]:
    """What `grid_sample` takes, level by level: a plane, and a grid in (-1, 1) upon it."""
    grids = 2 * locations - 1
    levels = maps.split([height * width for height, width in shapes], dim=1)
    for index, ((height, width), level) in enumerate(zip(shapes, levels, strict=True)):
        plane = rearrange(level, "N (H W) M D -> (N M) D H W", H=height, W=width)
        yield plane, rearrange(grids[:, :, :, index], "N Q M P xy -> (N M) Q P xy")


def deform_attn(
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
    weights: Float[Tensor, "N Q M L P"],
) -> Float[Tensor, "N Q M*D"]:
    """Weighted sum of sampled values: Deformable DETR (arXiv 2010.04159), eq. 3."""
    maps, places, shares = exact(value, locations, weights)
    sampled = sample(maps, shapes, places)  # NM D Q LP
    shares = rearrange(shares, "N Q M L P -> (N M) 1 Q (L P)")
    summed = (sampled * shares).sum(dim=-1)  # NM D Q
    return rearrange(summed, "(N M) D Q -> N Q (M D)", M=value.shape[2]).to(value.dtype)


def deform_attn_backward(
    grad: Float[Tensor, "N Q C"],
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
    weights: Float[Tensor, "N Q M L P"],
) -> tuple[Float[Tensor, "N S M D"], Float[Tensor, "N Q M L P 2"], Float[Tensor, "N Q M L P"]]:
    """Gradients of value, locations and weights."""
    pulled, maps, places, shares = exact(grad, value, locations, weights)
    pulled = _spread(pulled, value.shape[2])  # NM D Q 1
    flat = rearrange(shares, "N Q M L P -> (N M) 1 Q (L P)")
    by_weight = (pulled * sample(maps, shapes, places)).sum(dim=1)  # NM Q LP
    by_value, by_location = sample_backward(pulled * flat, maps, shapes, places)
    by_weight = rearrange(
        by_weight, "(N M) Q (L P) -> N Q M L P", M=value.shape[2], P=locations.shape[4]
    )
    return by_value.to(value.dtype), by_location.to(locations.dtype), by_weight.to(weights.dtype)


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
    asked, own, maps, places = exact(query, key, value, locations)
    values = sample(maps, shapes, places)  # NM D Q LP
    keys = values if own is maps else sample(own, shapes, places)
    summed = (values * _fit(asked, keys)).sum(dim=-1)  # NM D Q
    return rearrange(summed, "(N M) D Q -> N Q (M D)", M=value.shape[2]).to(value.dtype)


def key_weights(
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> Float[Tensor, "N Q M L P"]:
    """The weights that `key_aware_attn` gives its samples; those of a head sum to 1."""
    asked, keys, places = exact(query, key, locations)
    weights = _fit(asked, sample(keys, shapes, places))
    heads, points = key.shape[2], locations.shape[4]
    return rearrange(weights, "(N M) 1 Q (L P) -> N Q M L P", M=heads, P=points)


def _fit(
    query: Float[Tensor, "N Q M D"], keys: Float[Tensor, "N*M D Q LP"]
) -> Float[Tensor, "N*M 1 Q LP"]:
    """Softmax, over levels and points together, of how well each sampled key fits its query."""
    asked = rearrange(query, "N Q M D -> (N M) D Q 1") / query.shape[-1] ** 0.5
    return (asked * keys).sum(dim=1, keepdim=True).softmax(dim=-1)


def key_aware_attn_backward(
    grad: Float[Tensor, "N Q C"],
    query: Float[Tensor, "N Q M D"],
    key: Float[Tensor, "N S M D"] | None,
    value: Float[Tensor, "N S M D"],
    shapes: Shapes,
    locations: Float[Tensor, "N Q M L P 2"],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of query, key, value and locations; `key` is None where the value is the key."""
    own = value if key is None else key
    pulled, asked, own, maps, places = exact(grad, query, own, value, locations)
    values = sample(maps, shapes, places)  # NM D Q LP
    keys = values if key is None else sample(own, shapes, places)
    scale = query.shape[-1] ** -0.5
    asked = rearrange(asked, "N Q M D -> (N M) D Q 1") * scale
    weights = (asked * keys).sum(dim=1, keepdim=True).softmax(dim=-1)  # NM 1 Q LP
    pulled = _spread(pulled, value.shape[2])  # NM D Q 1
    by_weight = (pulled * values).sum(dim=1, keepdim=True)
    by_logit = weights * (by_weight - (by_weight * weights).sum(dim=-1, keepdim=True))
    by_query = (by_logit * keys).sum(dim=-1) * scale  # NM D Q
    by_query = rearrange(by_query, "(N M) D Q -> N Q M D", M=query.shape[2])
    by_key = None
    if key is None:
        both = by_logit * asked + pulled * weights
        by_value, by_location = sample_backward(both, maps, shapes, places)
    else:
        by_key, by_location = sample_backward(by_logit * asked, own, shapes, places)
        by_value, more = sample_backward(pulled * weights, maps, shapes, places)
        by_key, by_location = by_key.to(key.dtype), by_location + more
    by_query, by_value = by_query.to(query.dtype), by_value.to(value.dtype)
    return by_query, by_key, by_value, by_location.to(locations.dtype)


def _spread(grad: Float[Tensor, "N Q C"], heads: int) -> Float[Tensor, "NM D Q 1"]:
    """The gradient of the output, laid out as the samples are."""
    return rearrange(grad, "N Q (M D) -> (N M) D Q 1", M=heads)
