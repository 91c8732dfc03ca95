"""Files and Pillow images become upright 8-bit RGB arrays; whatever goes wrong is one sentence.

`images.read_image` is the public door; this file knows the modes, the limits and the traps.
"""

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from leandetr.errors import ImageError, ImageTooLarge, UnreadableImage

Result = TypeVar("Result")

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
STRIP = 64
"""Rows of an image that are copied at a time, so that they stay in the processor's cache."""

_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Its values for which height and width change places."""

Enough = Callable[[int, int], tuple[int, int]]
"""(height, width) of an upright picture to those that are enough of it."""


@dataclass(frozen=True)
class Decoded:
    """Upright RGB, and what was changed or left out on the way.

    `size` is (height, width) of the whole picture, which pixels that were decoded coarsely lack.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    notes: tuple[str, ...]
    size: tuple[int, int]


def decode_file(path: Path, max_pixels: int, enough: Enough | None = None) -> Decoded:
    """Decode the first frame of a file. Raises `UnreadableImage` or `ImageTooLarge`.

    Where less than the whole picture is `enough`, every second, fourth or eighth row and column
    of a JPEG file is decoded, as long as that is no less.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableImage(f"{path.name}: is empty (0 bytes), expected an image")
    with _own_limit:
        image = Image.open(path)
    with image:
        if enough is None:
            return decode_pil(image, path.name, max_pixels)
        check_pixels(path.name, image.height, image.width, max_pixels)
        turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
        width, height = image.size
        size = (width, height) if turned else (height, width)
        high, wide = enough(*size)
        image.draft(image.mode, (high, wide) if turned else (wide, high))  # JPEG files only
        coarser = round(width / image.width)
        decoded = decode_pil(image, path.name, max_pixels)
    notes = (f"decoded at 1/{coarser} of its size",) if coarser > 1 else ()
    return Decoded(decoded.pixels, (*decoded.notes, *notes), size)


def decode_pil(image: Image.Image, name: str, max_pixels: int) -> Decoded:
    """Upright RGB of a Pillow image in any mode; the image itself is left as it was."""
    check_pixels(name, image.height, image.width, max_pixels)
    notes = []
    with _own_limit:
        frames = getattr(image, "n_frames", 1)
        image.load()
    if frames > 1:
        number = image.tell() + 1  # a Pillow image may have been wound on
        notes.append(f"{'first' if number == 1 else f'number {number}'} of {frames} frames")
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image  # always copies
    if upright.mode in _SIXTEEN_BIT:
        notes.append("16 bit scaled to 8")
        upright = _from_sixteen_bit(upright, name)
    elif upright.mode == "F":
        notes.append("float scaled to 8 bit")
        upright = Image.fromarray(to_bytes(np.asarray(upright), name))
    elif upright.mode in _ALPHA or "transparency" in upright.info:
        notes.append("alpha composited over white")
        upright = _over_white(upright)
    pixels = _array(upright if upright.mode == "RGB" else upright.convert("RGB"))
    return Decoded(pixels, tuple(notes), (pixels.shape[0], pixels.shape[1]))


def _array(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of an RGB image, some rows at a time: half of the time, and of the memory."""
    rows = np.empty((image.height, image.width, 3), np.uint8)
    with _own_limit:  # cropping looks at Pillow's
        for top in range(0, image.height, STRIP):
            part = (0, top, image.width, min(top + STRIP, image.height))
            rows[top : top + STRIP] = np.asarray(image.crop(part))
    return rows


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of a file as shown upright, read from its header alone.

    Raises `UnreadableImage` if the header cannot be read.
    """

    def look() -> tuple[int, int]:
        with _own_limit, Image.open(path) as image:
            width, height = image.size
            # for PNG, Pillow's own method decodes the picture to find EXIF data behind it
            if image.format == "PNG" and not _exif_behind(path):
                exif = Image.Image.getexif(image)
            else:
                exif = image.getexif()
            turned = exif.get(_ORIENTATION) in _ON_ITS_SIDE
        return (width, height) if turned else (height, width)

    return guarded(path.name, look)


def _exif_behind(path: Path) -> bool:
    """Whether a PNG file has its EXIF data behind the pixels; skips from chunk to chunk."""
    with path.open("rb") as file:
        file.seek(8)  # signature
        pixels = False
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            if pixels and head[4:] == b"eXIf":
                return True
            pixels = pixels or head[4:] == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)  # data and checksum
    return False


def guarded(name: str, read: Callable[[], Result]) -> Result:
    """Run `read` and turn whatever it throws into one sentence that starts with `name`."""
    try:
        return read()
    except ImageError:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise UnreadableImage(f"{name}: is a folder, expected an image file") from None
    except PermissionError:
        raise UnreadableImage(f"{name}: may not be read; check its permissions") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(
            f"{name}: is not an image of a known format; convert it to JPEG or PNG"
        ) from None
    except Exception as error:  # on damaged bytes decoders raise nearly anything
        raise UnreadableImage(
            f"{name}: cannot be decoded, it may be truncated or damaged ({error})"
        ) from error


def check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    """Refuse sizes above the limit (`ImageTooLarge`) and empty ones (`UnreadableImage`)."""
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"{name}: {width} x {height} is {height * width:,} pixels, the limit is "
            f"{max_pixels:,}; pass max_pixels={height * width} if you trust the file"
        )
    if height * width == 0:
        raise UnreadableImage(f"{name}: {width} x {height} has no pixels, expected at least 1 x 1")


def to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Floats in 0..1 as 0..255; NaN and other ranges are refused, not guessed."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UnreadableImage(f"{name}: has NaN or infinite values, expected 0..1")
    if low < 0 or high > 1:
        raise UnreadableImage(
            f"{name}: expected float values in 0..1, got {low:g}..{high:g}; "
            "scale them, or pass uint8"
        )
    return (values * 255 + 0.5).astype(np.uint8)


class _OwnLimit:
    """While anybody is inside, Pillow's own pixel limit is off.

    Ours is checked on the header, and can be raised. The lock guards the count, not the
    decoding: threads decode side by side, the first switches the limit off and the last on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._before


_own_limit = _OwnLimit()


def _over_white(image: Image.Image) -> Image.Image:
    colour = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)


def _from_sixteen_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(
            f"{name}: expected 16-bit values, got {values.min()}..{values.max()}; save it as 8 bit"
        )
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
