"""Hungarian matching: which query answers for which box.

The costs of all layers and images of a batch are computed on the device and copied to the host
once; only scipy's solver sees single images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from leandetr.boxes import cxcywh_to_xyxy, giou
from leandetr.training.classification import Classification
from leandetr.types import Prediction, Target

UNMATCHABLE = 1e6
"""Cost of a pair whose true cost is NaN or infinite: worse than any real one."""

AT_ONCE = 2**24
"""Pairs above which the costs of layers are computed one layer after the other: overlaps take some
ten times the memory of their costs."""


@dataclass(frozen=True)
class PaddedTargets:
    """The targets of a batch in one block; `real` is False in the filling.

    T is the largest number of boxes in an image, at least 1 so that indexing never fails.
    """

    labels: Int[Tensor, "N T"]
    boxes: Float[Tensor, "N T 4"]
    real: Bool[Tensor, "N T"]
    counts: tuple[int, ...]

    @staticmethod
    def of(targets: Sequence[Target]) -> "PaddedTargets":
        """Fill the shorter images up with zeros."""
        counts = tuple(len(target.labels) for target in targets)
        labels = pad_sequence([target.labels for target in targets], batch_first=True)
        boxes = pad_sequence([target.boxes.float() for target in targets], batch_first=True)
        if not max(counts, default=0):
            labels, boxes = labels.new_zeros(len(counts), 1), boxes.new_zeros(len(counts), 1, 4)
        counted = torch.tensor(counts, device=labels.device)
        real = torch.arange(labels.shape[1], device=labels.device) < counted[:, None]
        return PaddedTargets(labels, boxes, real, counts)

    def agnostic(self) -> "PaddedTargets":
        """The same boxes, all of class 0."""
        return replace(self, labels=torch.zeros_like(self.labels))


@dataclass(frozen=True)
class Pairs:
    """P pairs of query and target in each of Y layers; pair p lies in image `image[p]`.

    Every layer has equally many pairs in an image: as many as there are targets to give away or
    queries to take them, whichever is fewer. `target` counts within the image.
    """

    image: Int[Tensor, " P"]
    query: Int[Tensor, "Y P"]
    target: Int[Tensor, "Y P"]


@dataclass(frozen=True)
class Problem:
    """Layers over the same queries, and how often each target may be used in each of them."""

    layers: Sequence[Prediction]
    targets: PaddedTargets
    repeat: int = 1


def stack_layers(layers: Sequence[Prediction]) -> tuple[Tensor, Tensor]:
    """Logits (Y N Q K) and boxes (Y N Q 4) of several layers, in float32 whatever autocast says."""
    logits = torch.stack([layer.logits.float() for layer in layers])
    return logits, torch.stack([layer.boxes.float() for layer in layers])


class Matcher:
    """Pairs queries with targets so that the summed cost is least.

    The cost is that of facebookresearch/detr:models/matcher.py and its descendants: class cost,
    L1 of cxcywh boxes, negative generalised IoU. Only the class cost differs among them.
    """

    def __init__(
        self,
        classification: Classification,
        *,
        class_cost: float = 2.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        giou_eps: float = 1e-6,
    ) -> None:
        self.classification = classification
        self.class_cost = class_cost
        self.box_cost = box_cost
        self.giou_cost = giou_cost
        self.giou_eps = giou_eps

    def __call__(self, problems: Sequence[Problem]) -> list[Pairs]:
        """Solve every problem of a batch, with one copy from the device for them all.

        Non-finite costs count as `UNMATCHABLE`.
        """
        if not problems:
            return []
        costs = [self.cost(problem.layers, problem.targets) for problem in problems]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
        pairs, start = [], 0
        for cost, problem in zip(costs, problems, strict=True):
            block = flat[start : start + cost.numel()].reshape(cost.shape)
            start += cost.numel()
            solved = _solve(block, problem.targets.counts, problem.repeat)
            pairs.append(Pairs(*(part.to(cost.device) for part in solved)))
        return pairs

    @torch.no_grad()
    def cost(
        self, layers: Sequence[Prediction], targets: PaddedTargets
    ) -> Float[Tensor, "Y N Q T"]:
        """Cost of every query for every target of its own image; filling has some value too."""
        pairs = layers[0].logits.shape[:2].numel() * targets.labels.shape[1]
        if len(layers) > 1 and len(layers) * pairs > AT_ONCE:
            return torch.cat([self.cost([layer], targets) for layer in layers])
        with torch.autocast(targets.boxes.device.type, enabled=False):
            logits, boxes = stack_layers(layers)
            cost = self.class_cost * self.classification.cost(logits, targets.labels)
            cost += self.box_cost * torch.cdist(
                boxes, targets.boxes.expand(len(layers), -1, -1, -1), p=1
            )
            corners = cxcywh_to_xyxy(boxes)[..., :, None, :]
            real = cxcywh_to_xyxy(targets.boxes)[:, None]
            cost -= self.giou_cost * giou(corners, real, self.giou_eps)
        return torch.where(cost.isfinite(), cost, UNMATCHABLE)


def _solve(
    cost: np.ndarray, counts: tuple[int, ...], repeat: int
) -> tuple[Int[Tensor, " P"], Int[Tensor, "Y P"], Int[Tensor, "Y P"]]:
    """Image, query and target of every pair, from costs (Y N Q T) on the host."""
    from scipy.optimize import linear_sum_assignment

    rows = []
    for layer in cost:
        solved = [
            linear_sum_assignment(np.tile(one[:, :count], (1, repeat)))
            for one, count in zip(layer, counts, strict=True)
        ]
        query, target = (np.concatenate(side) for side in zip(*solved, strict=True))
        sizes = [len(side) for side, _ in solved]
        divisor = np.repeat(np.maximum(counts, 1), sizes)
        rows.append((np.repeat(np.arange(len(counts)), sizes), query, target % divisor))
    image, query, target = (torch.from_numpy(np.stack(side)) for side in zip(*rows, strict=True))
    return image[0], query, target
