"""Box frames, overlaps and the inverse sigmoid. Pure functions; nothing here knows a model.

Frames: `cxcywh` centre and size, `xyxy` corners, either in (0,1) of an image or in its pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def cxcywh_to_xyxy(boxes: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4"]:
    """Corners of boxes given by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4"]:
    """Centre and size of boxes given by corners."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def xyxy_to_xywh(boxes: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 4"]:
    """Top left corner and size, as COCO files have it, of boxes given by corners."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat((low, high - low), dim=-1)


def to_pixels(boxes: Float[Tensor, "*B 4"], size: Float[Tensor, "*S 2"]) -> Float[Tensor, "*B 4"]:
    """Boxes in (0,1) as pixels of images of `size` (height, width); broadcasts over images."""
    height, width = size.unbind(-1)
    return boxes * torch.stack((width, height, width, height), dim=-1)


def to_unit(boxes: Float[Tensor, "*B 4"], size: Float[Tensor, "*S 2"]) -> Float[Tensor, "*B 4"]:
    """Pixel boxes as fractions of images of `size` (height, width); broadcasts over images."""
    height, width = size.unbind(-1)
    return boxes / torch.stack((width, height, width, height), dim=-1)


def clip(boxes: Float[Tensor, "*B 4"], size: tuple[int, int]) -> Float[Tensor, "*B 4"]:
    """Pixel boxes xyxy cut at the edges of an image of `size` (height, width)."""
    height, width = size
    return torch.stack(
        (
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ),
        dim=-1,
    )


def area(boxes: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
    """Area of xyxy boxes, in their own unit squared."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlap(
    first: Float[Tensor, "*A 4"], second: Float[Tensor, "*B 4"]
) -> tuple[Float[Tensor, "*C"], Float[Tensor, "*C"]]:
    """Intersection and union areas of broadcast xyxy boxes."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inside = (high - low).clamp(min=0).prod(dim=-1)
    return inside, area(first) + area(second) - inside


def iou(
    first: Float[Tensor, "*A 4"], second: Float[Tensor, "*B 4"], eps: float = 0.0
) -> Float[Tensor, "*C"]:
    """Intersection over union of broadcast xyxy boxes; pairwise with `first[:, None]`.

    Two empty boxes give NaN unless `eps` is positive, as in facebookresearch/detr:util/box_ops.py.
    """
    inside, union = _overlap(first, second)
    return inside / (union + eps)


def giou(
    first: Float[Tensor, "*A 4"], second: Float[Tensor, "*B 4"], eps: float = 0.0
) -> Float[Tensor, "*C"]:
    """Generalised IoU (arXiv 1902.09630) of broadcast xyxy boxes, in [-1, 1].

    `eps` is added to both denominators: 1e-6 in IDEA-Research/DINO:util/box_ops.py, 0 in DETR.
    """
    inside, union = _overlap(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).clamp(min=0).prod(dim=-1)
    return inside / (union + eps) - (hull - union) / (hull + eps)


def inverse_sigmoid(x: Float[Tensor, "*B"], eps: float) -> Float[Tensor, "*B"]:
    """Logit of a probability, with both sides clamped to at least `eps`.

    1e-3 in DINO (IDEA-Research/DINO:util/misc.py), 1e-5 in Deformable DETR.
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sigmoid(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Coordinate of a logit, in single precision at least, whatever autocast says."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).sigmoid()
