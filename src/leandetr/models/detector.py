"""The detector: images become tokens, tokens become queries, queries become boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from leandetr.batching import arrange
from leandetr.images import DEFAULT_MAX_PIXELS, Photo, Preprocess, read_image
from leandetr.lanes import Lanes
from leandetr.models.decoders import Decoder
from leandetr.models.encoders import Encoder
from leandetr.models.heads import PredictionHeads, ProposalHead
from leandetr.models.optimise import optimise
from leandetr.models.optimise_check import check_agreement
from leandetr.models.postprocess import Postprocess
from leandetr.models.queries import QuerySource
from leandetr.types import Detections, Images, Outputs, Target


@dataclass(frozen=True)
class Parts:
    """What a detector is made of; `proposals` where the query source or the encoder scores tokens.

    The values are modules; they are typed by what they do.
    """

    backbone: nn.Module
    neck: nn.Module
    encoder: Encoder
    queries: QuerySource
    decoder: Decoder
    heads: PredictionHeads
    proposals: ProposalHead | None
    training_groups: Sequence[nn.Module]


class Detector(nn.Module):
    """A line of typed stages. `names` and `category_ids` tell what class k is called and its id.

    `recipe` is whatever the detector was assembled from; the detector itself never reads it.
    """

    def __init__(
        self, parts: Parts, *, preprocess: Preprocess, postprocess: Postprocess, recipe: Any = None
    ) -> None:
        super().__init__()
        self.backbone = parts.backbone
        self.neck = parts.neck
        self.encoder = parts.encoder
        self.queries = parts.queries
        self.decoder = parts.decoder
        self.heads = parts.heads
        self.proposals = parts.proposals
        self.training_groups = nn.ModuleList(parts.training_groups)
        self.preprocess = preprocess
        self.postprocess = postprocess
        self.recipe = recipe
        self.names: tuple[str, ...] = ()
        self.category_ids: tuple[int, ...] = ()

    def forward(self, images: Images, targets: Sequence[Target] | None = None) -> Outputs:
        """Predictions of every decoder layer; `targets` add the training-only query groups.

        A head that only the encoder scores with, in a detector of one stage, learns as well: from
        the proposals of all tokens.
        """
        tokens = self.neck(self.backbone(images), images)
        encoded = self.encoder(tokens, self.proposals)
        queries, chosen = self.queries(encoded.tokens, self.proposals)
        for group in self.training_groups if targets is not None else ():
            queries = group(queries, encoded.tokens, self.proposals, targets, self.queries)
        if chosen is None and self.proposals is not None and targets is not None:
            chosen = self.proposals.propose(encoded.tokens)
        watch = targets is not None and encoded.learns_from_attention
        decoded = self.decoder(queries, encoded.tokens, self.heads, watch=watch)
        return Outputs.gather(images, encoded, chosen, decoded, queries.groups)

    @torch.inference_mode()
    def detect(self, images: Images, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Everything found in a prepared batch, in pixels of `sizes` (height, width)."""
        training = self.training
        self.eval()
        try:
            answer = self(images).answer
        finally:
            self.train(training)
        heights_widths = torch.tensor(sizes, dtype=torch.float32, device=answer.boxes.device)
        return self.postprocess(answer, heights_widths, self.names)

    def optimise(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,  # noqa: A002  (PyTorch's own word)
        check: bool = False,
    ) -> "Detector":
        """A copy of this detector that predicts faster and cannot be trained or saved.

        In torch.float32 its answers are the same to 1e-4, in torch.bfloat16 within the tolerance
        that docs/fast.md tells. `compile` also has PyTorch compile the large parts, which takes
        a C++ compiler and minutes for every new image size. `check` compares both on noise first
        and raises `LeanDetrError` when they differ too much.
        """
        fast = optimise(self, dtype=dtype, compile=compile)
        if check:
            check_agreement(self, fast, dtype=dtype)
        return fast

    def predict(
        self,
        sources: Any,
        *,
        threshold: float = 0.5,
        batch: int = 8,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> list[Detections]:
        """What is in each image, best first, scores of at least `threshold`.

        `sources` is one image or a sequence: paths, PIL images, H x W x 3 arrays, 3 x H x W
        tensors. Boxes are xyxy pixels of each (upright) image. Raises `ImageError` on the first
        image that cannot be used; `leandetr.deploy.predict` skips such images instead.
        What is found in an image does not depend on the others.
        """
        items = list(sources) if isinstance(sources, list | tuple) else [sources]
        found: list[Detections] = []
        with Lanes(self, min(batch, len(items))) as lanes:
            for group in _batches(items, batch):
                photos = [read_image(item, max_pixels=max_pixels) for item in group]
                found += self._look(photos, lanes)
        return [detections.above(threshold) for detections in found]

    def _look(self, photos: Sequence[Photo], lanes: Lanes) -> list[Detections]:
        """What is in each photo; only those of one shape share a batch, so none is padded."""
        device = next(self.parameters()).device
        sizes = [photo.size for photo in photos]
        batches = arrange([self.preprocess.resized(*size) for size in sizes], lanes.share)

        def look(chosen: Sequence[int]) -> list[Detections]:
            images = self.preprocess.prepare([photos[index] for index in chosen]).to(device)
            return self.detect(images, [sizes[index] for index in chosen])

        found: dict[int, Detections] = {}
        for chosen, answers in zip(batches, lanes.map(look, batches), strict=True):
            found |= zip(chosen, answers, strict=True)
        return [found[index] for index in range(len(photos))]


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
