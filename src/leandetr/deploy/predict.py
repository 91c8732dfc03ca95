"""Detect in files and folders, as many as there are: JSON, and pictures with boxes.

A file that cannot be read is noted and passed over. Files are read and pictures drawn by a few
threads, ahead of a model that leaves processors free and in turns with one that does not; never
more than a few batches are in memory. What is found in a picture does not depend on its
neighbours: batches hold pictures of one shape. Results are written in the order of the files, as
they come, so an interrupted run keeps what it had.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from leandetr.boxes import xyxy_to_xywh
from leandetr.deploy.draw import draw
from leandetr.deploy.feed import AHEAD_PIXELS, Reader, chunks, plain, read_ahead, read_in_turns
from leandetr.deploy.look import Looked, Looker
from leandetr.errors import ImageError
from leandetr.files import JsonArray, refuse_existing, whole
from leandetr.images import DEFAULT_MAX_PIXELS, Photo, list_images
from leandetr.lanes import Lanes
from leandetr.models.detector import Detector
from leandetr.types import Detections

RESULTS, IMAGES, PICTURES = "results.json", "images.json", Path("pictures")
"""What is written: COCO results; a line for every input file; the folder of drawn pictures."""

DRAWN = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes a drawn picture keeps; others get `.jpg` behind."""

CHUNK = 4
"""Batches' worth of pictures that are at hand when it is decided which share a batch."""


def _threads() -> int:
    """As many as there are processors, up to eight: decoding uses no more than one each."""
    return min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class PredictOptions:
    """How `predict` works: `threshold` is the lowest score; `threads` read files and draw.

    With `padding` above 0, pictures of similar shape share a batch as long as no larger share of
    it is padding: larger batches, but what is found then depends a little on the neighbours.
    With `coarse`, and without pictures, huge JPEG files are decoded to twice the network's size:
    several times faster, and hardly other pixels. Raises `ValueError` for what makes no sense.
    """

    threshold: float = 0.5
    batch: int = 8
    padding: float = 0.0
    pictures: bool = True
    coarse: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    overwrite: bool = False
    threads: int = field(default_factory=_threads)

    def __post_init__(self) -> None:
        for name in ("batch", "max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1; got {getattr(self, name)}")
        if not 0 <= self.padding < 1:
            raise ValueError(f"expected padding of 0 to 1, 1 left out; got {self.padding}")
        if self.coarse and self.pictures:
            raise ValueError(
                "coarse photos cannot be drawn: add --no-pictures, or leave out coarse"
            )


@dataclass(frozen=True)
class Summary:
    """The end of a run; `skipped` is one sentence a file, `padding` its share of all batches.

    `seconds` are those from the first file to the last result, without loading the model.
    """

    pictures: int
    detections: int
    skipped: tuple[str, ...]
    seconds: float = field(default=0.0, compare=False)
    padding: float = field(default=0.0, compare=False)

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds if self.seconds else 0.0


def predict(
    model: Detector,
    paths: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions | None = None,
    *,
    tell: Callable[[Looked, int], None] | None = None,
) -> Summary:
    """Detect in every image behind `paths` (files, folders, patterns) and write into `out`.

    `results.json` has COCO results with file and class names besides the ids, boxes xywh in pixels
    of the upright picture and clipped to it; `images.json` has every file with its size or the
    reason it was skipped; `pictures/` has the drawn pictures under the inputs' relative names.
    `tell` hears of every file in order, with the number of files. Raises `OutputExists` where
    there are results already, and `ImageError` where no image is found.
    """
    options = options or PredictOptions()
    out = Path(out)
    files = _inputs(paths, out)
    outputs = [out / name for name in (RESULTS, IMAGES, PICTURES)]
    refuse_existing(outputs, overwrite=options.overwrite)
    out.mkdir(parents=True, exist_ok=True)
    count, skipped, began = 0, [], time.perf_counter()
    with (
        ThreadPoolExecutor(options.threads) as pool,
        Lanes(model, options.batch) as lanes,
        JsonArray(out / RESULTS) as results,
        JsonArray(out / IMAGES) as images,
    ):
        looker = Looker(model, lanes, threshold=options.threshold, most_padding=options.padding)
        drawing = _Drawing(pool, out, names=picture_names(files)) if options.pictures else None
        for one in _look(looker, model, files, options, pool):
            results.extend(_results(model, one))
            images.extend([_about(one, drawing.start(one) if drawing else None)])
            count += len(one.detections or ())
            if one.problem is not None:
                skipped.append(one.problem)
            if tell:
                tell(one, len(files))
        if drawing:
            drawing.finish()
    seconds = time.perf_counter() - began
    return Summary(len(files) - len(skipped), count, tuple(skipped), seconds, looker.padding)


def picture_names(files: Sequence[Path]) -> list[Path]:
    """Where each input's drawn picture goes, relative to `pictures/`; no two are the same.

    The folders above which all files lie together are left out.
    """
    whole = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100  (follows no links)
    try:
        shared = Path(os.path.commonpath([file.parent for file in whole]))
        relative = [file.relative_to(shared) for file in whole]
    except ValueError:  # several drives
        relative = [file.relative_to(file.anchor) for file in whole]
    names: dict[Path, None] = {}
    for path in relative:
        name = path if path.suffix.lower() in DRAWN else path.with_name(f"{path.name}.jpg")
        number = 2
        while name in names:
            name = name.with_name(f"{path.stem}-{number}{name.suffix}")
            number += 1
        names[name] = None
    return list(names)


def _inputs(paths: Sequence[str | Path], out: Path) -> list[Path]:
    """The files to look at, without the pictures an earlier run drew into `out`."""
    drawn = (out / PICTURES).resolve()
    files = list_images(paths)
    if drawn.exists():
        files = [file for file in files if drawn not in file.resolve().parents]
    if not files:
        raise ImageError(f"expected images, found only the drawn ones in {out / PICTURES}")
    return files


def _look(
    looker: Looker,
    model: Detector,
    files: Sequence[Path],
    options: PredictOptions,
    pool: ThreadPoolExecutor,
) -> Iterator[Looked]:
    """Every file in order, with what was detected in it."""
    most = CHUNK * options.batch
    reader = Reader(
        model.preprocess, options.max_pixels, whole=options.pictures, coarse=options.coarse
    )
    read = read_in_turns if _is_everywhere(model) else read_ahead
    return looker.look(chunks(read(pool, files, reader, most), most))


def _is_everywhere(model: Detector) -> bool:
    """Whether the model works on all processors, so that none is free beside it."""
    processors = os.cpu_count() or 1
    return next(model.parameters()).device.type == "cpu" and torch.get_num_threads() >= processors


def _results(model: Detector, one: Looked) -> list[dict[str, Any]]:
    """COCO results of one file, with names beside the ids."""
    if one.detections is None:
        return []
    boxes = xyxy_to_xywh(one.detections.boxes).tolist()
    labels, scores = one.detections.labels.tolist(), one.detections.scores.tolist()
    return [
        {
            "image_id": one.image_id,
            "file_name": plain(one.path),
            "category_id": model.category_ids[label] if model.category_ids else label,
            "category": one.detections.name(index),
            "bbox": [round(side, 2) for side in boxes[index]],
            "score": round(scores[index], 5),
        }
        for index, label in enumerate(labels)
    ]


def _about(one: Looked, picture: Path | None) -> dict[str, Any]:
    """The line of one file in `images.json`."""
    about: dict[str, Any] = {"id": one.image_id, "file_name": plain(one.path)}
    if one.size is None:
        return about | {"skipped": (one.problem or "").removeprefix(f"{plain(one.path)}: ")}
    height, width = one.size
    about |= {"height": height, "width": width, "detections": len(one.detections or ())}
    if picture is not None:
        about["picture"] = plain(picture)
    return about | ({"note": one.note} if one.note else {})


class _Drawing:
    """Pictures on their way to the disk; `start` waits while `AHEAD_PIXELS` of them are."""

    def __init__(self, pool: ThreadPoolExecutor, out: Path, *, names: Sequence[Path]) -> None:
        self._pool = pool
        self._out = out
        self._names = names
        self._pixels = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def start(self, one: Looked) -> Path | None:
        """Begin to draw a file; its picture's path within the output folder."""
        if one.photo is None or one.detections is None:
            return None
        while self._pixels > AHEAD_PIXELS or (self._waiting and self._waiting[0][1].done()):
            self._wait()
        name = PICTURES / self._names[one.image_id - 1]
        drawing = self._pool.submit(_draw, one.photo, one.detections, self._out / name)
        self._waiting.append((one.photo.size[0] * one.photo.size[1], drawing))
        self._pixels += self._waiting[-1][0]
        return name

    def finish(self) -> None:
        """Wait for the pictures under way."""
        while self._waiting:
            self._wait()

    def _wait(self) -> None:
        pixels, drawing = self._waiting.popleft()
        drawing.result()
        self._pixels -= pixels


def _draw(photo: Photo, detections: Detections, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = Image.registered_extensions()[path.suffix.lower()]
    with whole(path) as partial:
        draw(photo, detections).save(partial, format=kind, quality=92)
