"""Detect in files and folders, as many as there are: JSON, and pictures with boxes.

A file that cannot be read is noted and passed over. Files are decoded ahead and pictures drawn by a
few threads; never more than a few batches are in memory. Results are written as they come, so an
interrupted run keeps what it had.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from leandetr.boxes import clip, xyxy_to_xywh
from leandetr.deploy.draw import draw, require_supervision
from leandetr.errors import ImageError
from leandetr.files import JsonArray, refuse_existing, whole
from leandetr.images import DEFAULT_MAX_PIXELS, Photo, list_images, read_image
from leandetr.models.detector import Detector
from leandetr.types import Detections

RESULTS, IMAGES, PICTURES = "results.json", "images.json", Path("pictures")
"""What is written: COCO results; a line for every input file; the folder of drawn pictures."""

DRAWN = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes a drawn picture keeps; others get `.jpg` behind."""

BATCH_PIXELS = 50_000_000
"""A batch is cut short when its photos have this many pixels, so that memory stays bounded."""


@dataclass(frozen=True)
class PredictOptions:
    """How `predict` works: `threshold` is the lowest score; `threads` read files and draw.

    Raises `ValueError` for numbers that make no sense.
    """

    threshold: float = 0.5
    batch: int = 8
    pictures: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    overwrite: bool = False
    threads: int = 4

    def __post_init__(self) -> None:
        for name in ("batch", "max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1; got {getattr(self, name)}")


@dataclass(frozen=True)
class Looked:
    """What became of one file: a photo and what was detected in it, or the problem with it."""

    image_id: int
    path: Path
    photo: Photo | None = None
    detections: Detections | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Summary:
    """The end of a run; `skipped` is one sentence a file."""

    pictures: int
    detections: int
    skipped: tuple[str, ...]


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
    there are results already, `ImageError` where no image is found, `MissingExtra` without
    supervision.
    """
    options = options or PredictOptions()
    out = Path(out)
    files = _inputs(paths, out)
    outputs = [out / name for name in (RESULTS, IMAGES, PICTURES)]
    refuse_existing(outputs, overwrite=options.overwrite)
    if options.pictures:
        require_supervision()
    out.mkdir(parents=True, exist_ok=True)
    count, skipped = 0, []
    with (
        ThreadPoolExecutor(options.threads) as pool,
        JsonArray(out / RESULTS) as results,
        JsonArray(out / IMAGES) as images,
    ):
        most = options.batch + options.threads
        drawing = (
            _Drawing(pool, out, names=picture_names(files), most=most) if options.pictures else None
        )
        for one in _look(model, files, options, pool):
            results.extend(_results(model, one))
            images.extend([_about(one, drawing.start(one) if drawing else None)])
            count += len(one.detections or ())
            if one.problem is not None:
                skipped.append(one.problem)
            if tell:
                tell(one, len(files))
        if drawing:
            drawing.finish()
    return Summary(len(files) - len(skipped), count, tuple(skipped))


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
    files = [file for file in list_images(paths) if drawn not in file.resolve().parents]
    if not files:
        raise ImageError(f"expected images, found only the drawn ones in {out / PICTURES}")
    return files


def _look(
    model: Detector, files: Sequence[Path], options: PredictOptions, pool: ThreadPoolExecutor
) -> Iterator[Looked]:
    """Every file in order, with what was detected in it."""
    device = next(model.parameters()).device
    for tried in _batches(_read_ahead(pool, files, options), options.batch):
        photos = [one.photo for one in tried if one.photo is not None]
        found: Iterator[Detections] = iter(())
        if photos:
            images = model.preprocess.prepare(photos).to(device)
            found = iter(model.detect(images, [photo.size for photo in photos]))
        for one in tried:
            if one.photo is None:
                yield one
            else:
                yield replace(one, detections=_inside(next(found), one.photo, options.threshold))


def _read_ahead(
    pool: ThreadPoolExecutor, files: Iterable[Path], options: PredictOptions
) -> Iterator[Looked]:
    """Every file in order, decoded by the pool a few files before it is asked for."""
    waiting: deque[Future[Looked]] = deque()
    for image_id, path in enumerate(files, start=1):
        waiting.append(pool.submit(_read, image_id, path, options.max_pixels))
        if len(waiting) > options.threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(image_id: int, path: Path, max_pixels: int) -> Looked:
    try:
        return Looked(image_id, path, read_image(path, max_pixels=max_pixels))
    except ImageError as error:
        reason = str(error).removeprefix(f"{path.name}: ")
        return Looked(image_id, path, problem=f"{_plain(path)}: {reason}")


def _batches(files: Iterable[Looked], size: int) -> Iterator[list[Looked]]:
    """Files with `size` photos among them, or fewer where photos are huge."""
    batch: list[Looked] = []
    photos = pixels = 0
    for one in files:
        batch.append(one)
        if one.photo is not None:
            photos += 1
            pixels += one.photo.size[0] * one.photo.size[1]
        if photos == size or pixels > BATCH_PIXELS or len(batch) > 2 * size:
            yield batch
            batch, photos, pixels = [], 0, 0
    if batch:
        yield batch


def _inside(detections: Detections, photo: Photo, threshold: float) -> Detections:
    """The detections above the threshold, on the CPU, clipped to the picture."""
    kept = detections.above(threshold)
    boxes = clip(kept.boxes.cpu(), photo.size)
    return replace(kept, boxes=boxes, scores=kept.scores.cpu(), labels=kept.labels.cpu())


def _results(model: Detector, one: Looked) -> list[dict[str, Any]]:
    """COCO results of one file, with names beside the ids."""
    if one.detections is None:
        return []
    boxes = xyxy_to_xywh(one.detections.boxes).tolist()
    labels, scores = one.detections.labels.tolist(), one.detections.scores.tolist()
    return [
        {
            "image_id": one.image_id,
            "file_name": _plain(one.path),
            "category_id": model.category_ids[label] if model.category_ids else label,
            "category": one.detections.name(index),
            "bbox": [round(side, 2) for side in boxes[index]],
            "score": round(scores[index], 5),
        }
        for index, label in enumerate(labels)
    ]


def _about(one: Looked, picture: Path | None) -> dict[str, Any]:
    """The line of one file in `images.json`."""
    about: dict[str, Any] = {"id": one.image_id, "file_name": _plain(one.path)}
    if one.photo is None:
        return about | {"skipped": (one.problem or "").removeprefix(f"{_plain(one.path)}: ")}
    height, width = one.photo.size
    about |= {"height": height, "width": width, "detections": len(one.detections or ())}
    if picture is not None:
        about["picture"] = _plain(picture)
    return about | ({"note": one.photo.note} if one.photo.note else {})


def _plain(path: Path) -> str:
    """A path as text that UTF-8 can hold, with forward slashes."""
    return path.as_posix().encode("utf-8", "replace").decode()


class _Drawing:
    """Pictures on their way to the disk; `start` waits while too many of them are."""

    def __init__(
        self, pool: ThreadPoolExecutor, out: Path, *, names: Sequence[Path], most: int
    ) -> None:
        self._pool = pool
        self._out = out
        self._names = names
        self._most = most
        self._waiting: deque[Future[None]] = deque()

    def start(self, one: Looked) -> Path | None:
        """Begin to draw a file; its picture's path within the output folder."""
        if one.photo is None or one.detections is None:
            return None
        if len(self._waiting) >= self._most:
            self._waiting.popleft().result()
        name = PICTURES / self._names[one.image_id - 1]
        self._waiting.append(self._pool.submit(_draw, one.photo, one.detections, self._out / name))
        return name

    def finish(self) -> None:
        """Wait for the pictures under way."""
        while self._waiting:
            self._waiting.popleft().result()


def _draw(photo: Photo, detections: Detections, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = Image.registered_extensions()[path.suffix.lower()]
    with whole(path) as partial:
        draw(photo, detections).save(partial, format=kind, quality=92)
