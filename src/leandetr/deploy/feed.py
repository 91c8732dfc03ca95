"""Files become pictures of network size, read by threads ahead of the model or in turns with it.

Memory is bounded, however many files there are and however large: reading waits while
`AHEAD_PIXELS` are ahead.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from leandetr.decode import guarded
from leandetr.errors import ImageError
from leandetr.images import Photo, Preprocess, read_image, resize

AHEAD_PIXELS = 50_000_000
"""Pixels, as decoded, that are read ahead at most; a photo or two more where they are huge."""


@dataclass(frozen=True)
class Ready:
    """A picture at the size of the network; `photo` is the whole one where it is still needed.

    `size` is (height, width) of the whole, upright picture.
    """

    resized: UInt8[Tensor, "3 _ _"]
    size: tuple[int, int]
    note: str | None
    photo: Photo | None


@dataclass(frozen=True)
class Read:
    """What became of a file: a picture, or one sentence that starts with the path."""

    path: Path
    ready: Ready | None
    problem: str | None = None


@dataclass(frozen=True)
class Reader:
    """How files are read; `whole` keeps each decoded photo beside the resized one.

    With `coarse`, JPEG files are decoded to no more than the network needs.
    """

    preprocess: Preprocess
    max_pixels: int
    whole: bool
    coarse: bool = False

    def read(self, path: Path) -> Read:
        """Decode and resize one file."""
        try:
            enough = self.preprocess.enough if self.coarse else None
            photo = read_image(path, max_pixels=self.max_pixels, enough=enough)
            wanted = self.preprocess.resized(*photo.size)
            resized = guarded(path.name, lambda: resize(photo.pixels, *wanted))
        except ImageError as error:
            reason = str(error).removeprefix(f"{path.name}: ")
            return Read(path, None, f"{plain(path)}: {reason}")
        kept = photo if self.whole else None
        return Read(path, Ready(resized, photo.size, photo.note, kept))


def read_ahead(
    pool: ThreadPoolExecutor, files: Iterable[Path], reader: Reader, most: int
) -> Iterator[Read]:
    """Every file in order, at most `most` of them read before they are asked for."""
    waiting: deque[Future[Read]] = deque()
    pixels = pictures = 0
    try:
        for path in files:
            waiting.append(pool.submit(reader.read, path))
            while len(waiting) > _room(pixels, pictures, most):
                one = waiting.popleft().result()
                if one.ready is not None:
                    pixels, pictures = pixels + _area(one.ready), pictures + 1
                yield one
        while waiting:
            yield waiting.popleft().result()
    finally:
        for one in waiting:  # whoever asked was interrupted
            one.cancel()


def read_in_turns(
    pool: ThreadPoolExecutor, files: Iterable[Path], reader: Reader, most: int
) -> Iterator[Read]:
    """Every file in order, up to `most` read together before the first of them is given away.

    For a model that works on all processors: threads that read beside it would disturb its own.
    """
    waiting = iter(files)
    pixels = pictures = 0
    while group := list(islice(waiting, _room(pixels, pictures, most))):
        for one in list(pool.map(reader.read, group)):
            if one.ready is not None:
                pixels, pictures = pixels + _area(one.ready), pictures + 1
            yield one


def _room(pixels: int, pictures: int, most: int) -> int:
    """How many pictures may be ahead, by the size of those so far; eight before any is known."""
    usual = pixels // pictures if pictures else AHEAD_PIXELS // 8
    return max(1, min(most, AHEAD_PIXELS // max(usual, 1)))


def chunks(files: Iterable[Read], most: int) -> Iterator[list[Read]]:
    """Files in order, `most` at a time, or fewer where the photos are huge."""
    chunk: list[Read] = []
    pixels = 0
    for one in files:
        chunk.append(one)
        pixels += _area(one.ready) if one.ready is not None else 0
        if len(chunk) == most or pixels > AHEAD_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def plain(path: Path) -> str:
    """A path as text that UTF-8 can hold, with forward slashes."""
    return path.as_posix().encode("utf-8", "replace").decode()


def _area(one: Ready) -> int:
    return one.size[0] * one.size[1]
