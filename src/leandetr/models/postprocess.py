"""From predictions to detections."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from leandetr import boxes as frames
from leandetr.nn import grid
from leandetr.types import Detections, Prediction


@runtime_checkable
class Postprocess(Protocol):
    """Turns the answer of a detector into detections."""

    def __call__(
        self,
        prediction: Prediction,
        sizes: Float[Tensor, "N 2"],
        names: tuple[str, ...] = (),
    ) -> list[Detections]:
        """Detections of each image, best first, in pixels of `sizes` (height, width)."""
        ...


class TopScores:
    """The `top` best (query, class) pairs of each image by sigmoid score.

    One query may appear under several classes; boxes are not clipped to the image
    (IDEA-Research/DINO:models/dino/dino.py, PostProcess).
    """

    def __init__(self, top: int) -> None:
        self.top = top

    def __call__(
        self,
        prediction: Prediction,
        sizes: Float[Tensor, "N 2"],
        names: tuple[str, ...] = (),
    ) -> list[Detections]:
        """Detections of each image, best first, in pixels of `sizes` (height, width)."""
        classes = prediction.logits.shape[-1]
        scores = prediction.logits.float().sigmoid().flatten(1)
        best = scores.topk(min(self.top, scores.shape[1]), dim=1)
        query = best.indices // classes
        corners = frames.cxcywh_to_xyxy(prediction.boxes.float())
        corners = frames.to_pixels(corners, sizes[:, None])
        chosen = grid.pick(corners, query)
        labels = best.indices % classes
        return [
            Detections(boxes, values, label, names)
            for boxes, values, label in zip(chosen, best.values, labels, strict=True)
        ]


class BestClass:
    """The best real class of each query by softmax, the `top` best queries of each image.

    The last class means that there is nothing (facebookresearch/detr:models/detr.py, PostProcess,
    which leaves the queries in their own order).
    """

    def __init__(self, top: int) -> None:
        self.top = top

    def __call__(
        self,
        prediction: Prediction,
        sizes: Float[Tensor, "N 2"],
        names: tuple[str, ...] = (),
    ) -> list[Detections]:
        """Detections of each image, best first, in pixels of `sizes` (height, width)."""
        found = prediction.logits.float().softmax(dim=-1)[..., :-1].max(dim=-1)
        best = found.values.topk(min(self.top, found.values.shape[1]), dim=1)
        corners = frames.cxcywh_to_xyxy(prediction.boxes.float())
        corners = frames.to_pixels(corners, sizes[:, None])
        chosen = grid.pick(corners, best.indices)
        labels = torch.gather(found.indices, 1, best.indices)
        return [
            Detections(boxes, values, label, names)
            for boxes, values, label in zip(chosen, best.values, labels, strict=True)
        ]
