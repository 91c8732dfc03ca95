"""Whether an optimised model answers like the one it was made from."""

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from leandetr.errors import LeanDetrError
from leandetr.images import Preprocess
from leandetr.models.postprocess import Postprocess
from leandetr.types import Detections, Images, Outputs

BEST = 100
"""So many of an image's best detections are compared."""


@runtime_checkable
class Answering(Protocol):
    """A detector, as far as it is compared."""

    preprocess: Preprocess
    postprocess: Postprocess

    def __call__(self, images: Images) -> Outputs:
        """Predictions for a batch."""
        ...


@dataclass(frozen=True)
class Tolerance:
    """How far a detection may be from its partner, and what share must have one within that.

    `boxes` is in sides of the image, `scores` in probabilities.
    """

    boxes: float
    scores: float
    share: float


TOLERANCES = {
    torch.float32: Tolerance(boxes=1e-4, scores=1e-4, share=0.99),
    torch.bfloat16: Tolerance(boxes=2e-2, scores=5e-2, share=0.9),
}
"""By precision of the optimised model. Detectors that choose tokens may choose another one where
two score nearly alike, and then a query looks elsewhere: hence a share."""


@dataclass(frozen=True)
class Agreement:
    """What became of the best detections of a model in another one.

    `boxes` (sides of the image) and `scores` are the largest differences among the `share` of
    detections that have a partner of the same class within the tolerance.
    """

    boxes: float
    scores: float
    share: float
    compared: int

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of {self.compared} detections agree; of these boxes differ by at "
            f"most {self.boxes:.1e} of the image, scores by {self.scores:.1e}"
        )


def check_agreement(
    model: Answering,
    fast: Answering,
    images: Images | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Agreement:
    """Compare both on `images`, else on noise; logs the largest differences.

    Raises `LeanDetrError` where fewer detections agree than `TOLERANCES` wants.
    """
    tolerance = TOLERANCES[dtype]
    found = agreement(model, fast, _noise(model) if images is None else images, tolerance)
    logging.getLogger(__name__).info("optimised model: %s", found)
    if found.share < tolerance.share:
        raise LeanDetrError(
            f"expected an optimised model of which {tolerance.share:.0%} of the detections agree "
            f"within {tolerance.boxes} of the image and scores within {tolerance.scores}; got: "
            f"{found}; use dtype=torch.float32, or the model as it is"
        )
    return found


@torch.inference_mode()
def agreement(model: Answering, fast: Answering, images: Images, tolerance: Tolerance) -> Agreement:
    """How far apart the detections of both are."""
    sizes = torch.ones(len(images.pixels), 2, device=images.pixels.device)
    answers = [one.postprocess(one(images).answer, sizes) for one in (model, fast)]
    near, compared = [], 0
    for ours, theirs in zip(*answers, strict=True):
        distance = _distances(ours, theirs)
        compared += len(distance)
        fits = (distance[..., 0] <= tolerance.boxes) & (distance[..., 1] <= tolerance.scores)
        worst = distance.amax(dim=-1).masked_fill(~fits, torch.inf)
        partner = worst.argmin(dim=1)
        rows = torch.arange(len(worst), device=worst.device)
        near.append(distance[rows, partner][fits.any(dim=1)])
    largest = torch.cat([*near, torch.zeros(1, 2, device=sizes.device)]).amax(dim=0)
    agree = sum(len(part) for part in near)
    return Agreement(float(largest[0]), float(largest[1]), agree / max(compared, 1), compared)


def _distances(ours: Detections, theirs: Detections) -> torch.Tensor:
    """D E 2: how far boxes and scores of the best are apart; infinite for another class."""
    boxes = (ours.boxes[:BEST, None] - theirs.boxes).abs().amax(dim=-1)
    scores = (ours.scores[:BEST, None] - theirs.scores).abs()
    other = ours.labels[:BEST, None] != theirs.labels
    return torch.stack((boxes, scores), dim=-1).masked_fill(other[..., None], torch.inf)


def _noise(model: Answering) -> Images:
    """A random image of the size that the model usually sees, smooth enough to have shapes."""
    short = model.preprocess.short
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, short // 8, short // 6, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, scale_factor=8.0, mode="bicubic")
    padding = torch.zeros(1, *pixels.shape[-2:], dtype=torch.bool)
    device = next(iter(model.parameters())).device  # pyright: ignore[reportAttributeAccessIssue]
    return Images(pixels, padding).to(device)
