"""How class logits are judged: what a query costs as a class, and the loss of what it became.

Two ways, chosen by the recipe: a sigmoid a class (`SigmoidFocal`, most of the family) or one
softmax that ends in a class for nothing (`SoftmaxEntropy`, DETR).
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandetr.training.losses import focal_loss

BACKGROUND = -1
"""The class of a query that no target belongs to."""


@runtime_checkable
class Classification(Protocol):
    """The class part of matching and of the loss, made for the same kind of logits."""

    averages: bool
    """Whether the loss is a mean over queries; else it is a sum divided by the boxes."""

    def cost(
        self, logits: Float[Tensor, "Y N Q K"], labels: Int[Tensor, "N T"]
    ) -> Float[Tensor, "Y N Q T"]:
        """What it costs that a query of image n stands for each target of image n."""
        ...

    def loss(
        self,
        logits: Float[Tensor, "Y N Q K"],
        classes: Int[Tensor, "Y N Q"],
        boxes: Float[Tensor, ""],
    ) -> Float[Tensor, " Y"]:
        """The loss of each layer, given the class of every query (or `BACKGROUND`).

        `boxes` is how many the batch holds: what sums over queries are divided by.
        """
        ...


class SigmoidFocal:
    """Focal loss (arXiv 1708.02002) of one sigmoid a class, divided by the number of boxes.

    fundamentalvision/Deformable-DETR:models/deformable_detr.py, loss_labels, and models/matcher.py;
    IDEA-Research/DINO computes the same.
    """

    averages = False

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha = alpha
        self.gamma = gamma

    def cost(
        self, logits: Float[Tensor, "Y N Q K"], labels: Int[Tensor, "N T"]
    ) -> Float[Tensor, "Y N Q T"]:
        """What the focal loss gains by calling a query a positive of each target's class."""
        score = _of_labels(logits, labels).sigmoid()
        negative = (1 - self.alpha) * score**self.gamma * -(1 - score + 1e-8).log()
        positive = self.alpha * (1 - score) ** self.gamma * -(score + 1e-8).log()
        return positive - negative

    def loss(
        self,
        logits: Float[Tensor, "Y N Q K"],
        classes: Int[Tensor, "Y N Q"],
        boxes: Float[Tensor, ""],
    ) -> Float[Tensor, " Y"]:
        """Summed over images, queries and classes, divided by `boxes`."""
        every = torch.arange(logits.shape[-1], device=logits.device)
        positive = (classes[..., None] == every).to(logits.dtype)
        return focal_loss(logits, positive, alpha=self.alpha, gamma=self.gamma) / boxes


class SoftmaxEntropy:
    """Cross entropy of a softmax whose last class is nothing, which counts `background` times.

    Divided by the summed weights of all queries, not by the number of boxes
    (facebookresearch/detr:models/detr.py, loss_labels, and models/matcher.py).
    """

    averages = True

    def __init__(self, *, background: float = 0.1) -> None:
        self.background = background

    def cost(
        self, logits: Float[Tensor, "Y N Q K"], labels: Int[Tensor, "N T"]
    ) -> Float[Tensor, "Y N Q T"]:
        """Minus the probability of each target's class."""
        return -_of_labels(logits.softmax(-1), labels)

    def loss(
        self,
        logits: Float[Tensor, "Y N Q K"],
        classes: Int[Tensor, "Y N Q"],
        boxes: Float[Tensor, ""],
    ) -> Float[Tensor, " Y"]:
        """The weighted mean over images and queries; 0 where there is no query at all."""
        nothing = classes == BACKGROUND
        wanted = torch.where(nothing, logits.shape[-1] - 1, classes)
        entropy = -logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        weight = torch.where(nothing, self.background, 1.0).to(logits.dtype)
        total = weight.flatten(1).sum(1).clamp(min=torch.finfo(weight.dtype).tiny)
        return (weight * entropy).flatten(1).sum(1) / total


def _of_labels(
    values: Float[Tensor, "Y N Q K"], labels: Int[Tensor, "N T"]
) -> Float[Tensor, "Y N Q T"]:
    """The values of every query at the class of each target of its image."""
    return values.gather(-1, labels[None, :, None].expand(*values.shape[:3], -1))
