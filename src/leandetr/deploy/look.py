"""What is detected in files, in their order; pictures of one shape share a batch."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leandetr.batching import arrange, padding_share
from leandetr.boxes import clip
from leandetr.deploy.feed import Read, Ready
from leandetr.images import Photo
from leandetr.lanes import Lanes
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

    Each lane looks at a batch of its own. With `most_padding` of 0, batches hold one shape only,
    so that an answer depends on nothing but its picture.
    """

    def __init__(
        self, model: Detector, lanes: Lanes, *, threshold: float, most_padding: float = 0.0
    ) -> None:
        self._model = model
        self._lanes = lanes
        self._threshold = threshold
        self._most_padding = most_padding
        self._area = self._padded = 0.0

    @property
    def padding(self) -> float:
        """Share of the pixels of all batches so far that was padding."""
        return self._padded / self._area if self._area else 0.0

    def look(self, groups: Iterable[Sequence[Read]]) -> Iterator[Looked]:
        """The files in order, numbered from 1, each as soon as it and those before it are done.

        Pictures of one group share batches; the next group is asked for while lanes are at work.
        """
        waiting: deque[tuple[int, Read]] = deque()
        found: dict[int, Detections] = {}
        for some in self._lanes.map(self._detect, self._batches(groups, waiting)):
            found |= some
            while waiting and (waiting[0][0] in found or waiting[0][1].ready is None):
                number, one = waiting.popleft()
                yield _looked(one, number, found.pop(number, None))
        for number, one in waiting:  # nothing but problems
            yield _looked(one, number, None)

    def _batches(
        self, groups: Iterable[Sequence[Read]], waiting: deque[tuple[int, Read]]
    ) -> Iterator[dict[int, Ready]]:
        """Pictures by their number, batch by batch; every file joins those `waiting`."""
        first = 1
        for group in groups:
            numbered = list(enumerate(group, first))
            first += len(numbered)
            waiting.extend(numbered)
            good = [(number, one.ready) for number, one in numbered if one.ready is not None]
            shapes = [(one.resized.shape[1], one.resized.shape[2]) for _, one in good]
            for chosen in arrange(shapes, self._lanes.share, padding=self._most_padding):
                self._count([shapes[index] for index in chosen])
                yield dict(good[index] for index in chosen)

    def _detect(self, pictures: Mapping[int, Ready]) -> dict[int, Detections]:
        """What scores enough, on the CPU, clipped to each picture."""
        device = next(self._model.parameters()).device
        resized = [one.resized for one in pictures.values()]
        sizes = [one.size for one in pictures.values()]
        answers = self._model.detect(self._model.preprocess.batch(resized, device), sizes)
        return {
            number: _inside(answer.above(self._threshold), size)
            for number, answer, size in zip(pictures, answers, sizes, strict=True)
        }

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
