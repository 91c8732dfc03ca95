"""What is detected in files, in their order; pictures of one shape share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leandetr.batching import arrange, padding_share
from leandetr.boxes import clip
from leandetr.deploy.feed import Read, Ready
from leandetr.images import Photo
from leandetr.models.detector import Detector
from leandetr.types import Detections


@dataclass(frozen=True)
class Looked:
    """What became of one file: what was detected in it, or the problem with it.

    `size` is (height, width); `photo` is there where its picture is to be drawn.
    """

    image_id: int
    path: Path
    size: tuple[int, int] | None = None
    note: str | None = None
    photo: Photo | None = None
    detections: Detections | None = None
    problem: str | None = None


class Looker:
    """A model at work; `padding` is the share of all batches so far that was padding.

    With `most_padding` of 0, batches hold one shape only, so that an answer depends on nothing but
    its picture.
    """

    def __init__(
        self, model: Detector, *, threshold: float, batch: int, most_padding: float = 0.0
    ) -> None:
        self._model = model
        self._threshold = threshold
        self._batch = batch
        self._most_padding = most_padding
        self._area = self._padded = 0.0

    @property
    def padding(self) -> float:
        """Share of the pixels of all batches so far that was padding."""
        return self._padded / self._area if self._area else 0.0

    def look(self, files: Sequence[Read], first_id: int) -> Iterator[Looked]:
        """The files in order, each as soon as it and those before it are done."""
        good = [(place, one.ready) for place, one in enumerate(files) if one.ready is not None]
        shapes = [(one.resized.shape[1], one.resized.shape[2]) for _, one in good]
        found: dict[int, Detections] = {}
        given = 0
        for chosen in arrange(shapes, self._batch, padding=self._most_padding):
            self._count([shapes[index] for index in chosen])
            answers = self._detect([good[index][1] for index in chosen])
            found |= zip((good[index][0] for index in chosen), answers, strict=True)
            while given < len(files) and (given in found or files[given].ready is None):
                yield _looked(files[given], first_id + given, found.pop(given, None))
                given += 1
        for place in range(given, len(files)):  # nothing but problems
            yield _looked(files[place], first_id + place, None)

    def _detect(self, pictures: Sequence[Ready]) -> list[Detections]:
        """What scores enough, on the CPU, clipped to each picture."""
        device = next(self._model.parameters()).device
        images = self._model.preprocess.batch([one.resized for one in pictures], device)
        sizes = [one.size for one in pictures]
        answers = [answer.above(self._threshold) for answer in self._model.detect(images, sizes)]
        return [_inside(answer, size) for answer, size in zip(answers, sizes, strict=True)]

    def _count(self, shapes: Sequence[tuple[int, int]]) -> None:
        area = sum(height * width for height, width in shapes)
        share = padding_share(shapes)
        self._area += area / (1 - share)
        self._padded += area * share / (1 - share)


def _looked(one: Read, image_id: int, found: Detections | None) -> Looked:
    if one.ready is None:
        return Looked(image_id, one.path, problem=one.problem)
    ready = one.ready
    return Looked(image_id, one.path, ready.size, ready.note, ready.photo, found)


def _inside(found: Detections, size: tuple[int, int]) -> Detections:
    """The same detections on the CPU, clipped to the picture."""
    boxes, scores, labels = (tensor.cpu() for tensor in (found.boxes, found.scores, found.labels))
    return replace(found, boxes=clip(boxes, size), scores=scores, labels=labels)
