"""The loss terms of the family: sums over everything but layers; dividing is left to others."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leandetr.boxes import cxcywh_to_xyxy, giou


def focal_loss(
    logits: Float[Tensor, "Y N Q K"],
    positive: Float[Tensor, "Y N Q K"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, " Y"]:
    """Sigmoid focal loss, summed over images, queries and classes; `positive` is 1 or 0.

    Focal loss (arXiv 1708.02002), section 3. IDEA-Research/DINO:models/dino/utils.py averages over
    queries and multiplies by their number again, which is the same.
    """
    score = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    wrong = score + positive - 2 * score * positive
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    return (weight * entropy * wrong**gamma).flatten(1).sum(1)


def box_loss(boxes: Float[Tensor, "Y P 4"], wanted: Float[Tensor, "Y P 4"]) -> Float[Tensor, " Y"]:
    """L1 distance of matched cxcywh boxes in (0,1), summed over pairs and coordinates."""
    return (boxes - wanted).abs().flatten(1).sum(1)


def giou_loss(
    boxes: Float[Tensor, "Y P 4"], wanted: Float[Tensor, "Y P 4"], *, eps: float = 1e-6
) -> Float[Tensor, " Y"]:
    """1 - GIoU of matched cxcywh boxes, summed over pairs."""
    overlap = giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted), eps)
    return (1 - overlap).sum(1)
