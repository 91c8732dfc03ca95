"""From predictions to detections."""

from jaxtyping import Float
from torch import Tensor

from leandetr import boxes as frames
from leandetr.nn import grid
from leandetr.types import Detections, Prediction


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
