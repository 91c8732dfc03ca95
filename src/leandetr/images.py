"""Anything image-like becomes upright 8-bit RGB, and those become one normalised, padded batch.

    photo = read_image("street.jpg")            # path, PIL image, array or tensor
    batch = Preprocess().prepare([photo])       # resize, normalise, pad

`list_images` finds the files.
"""

import glob
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

from leandetr.decode import (
    Decoded,
    Enough,
    check_pixels,
    decode_file,
    decode_pil,
    guarded,
    to_bytes,
)
from leandetr.errors import ImageError, RecipeError, UnreadableImage
from leandetr.types import Images

DEFAULT_MAX_PIXELS = 100_000_000
"""Height x width above which an image is refused before it is decoded (300 MB of RGB)."""

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What `list_images` takes from folders and patterns, in upper or lower case."""

Source = str | Path | Image.Image | np.ndarray | Tensor
"""What `read_image` takes."""


@dataclass(frozen=True)
class Photo:
    """One upright RGB picture; `note` says what was changed or left out while reading it.

    In memory the three colours of a pixel may lie side by side: decoders and resizing like it so.
    `whole` is (height, width) of a picture of which fewer pixels were decoded than it has.
    """

    pixels: UInt8[Tensor, "3 H W"]
    name: str
    note: str | None = None
    whole: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the whole picture."""
        return self.whole or (self.pixels.shape[-2], self.pixels.shape[-1])


def read_image(
    source: Source,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    enough: Enough | None = None,
) -> Photo:
    """Decode a file, or convert a PIL image, an array or a tensor, to upright RGB.

    Arrays are H x W, H x W x 3 or H x W x 4 (alpha), tensors 3 x H x W; both uint8, or float in
    0..1. EXIF orientation is applied, alpha is composited over white, 16-bit values are scaled,
    and of an animation the first frame is taken; `note` tells. Where `enough` gives less than
    half of the (height, width) that it gets, a JPEG file is decoded coarsely, but never to less.
    Raises `UnreadableImage`, or `ImageTooLarge` before decoding; both messages start with the name.
    """
    if isinstance(source, Tensor):
        return guarded("tensor", lambda: _from_tensor(source, max_pixels))
    if isinstance(source, np.ndarray):
        return guarded("array", lambda: _from_array(source, max_pixels))
    if isinstance(source, Image.Image):
        name = Path(str(getattr(source, "filename", "") or "PIL image")).name
        return _photo(guarded(name, lambda: decode_pil(source, name, max_pixels)), name)
    path = Path(source)
    name = path.name or str(path)
    return _photo(guarded(name, lambda: decode_file(path, max_pixels, enough)), name)


def _photo(decoded: Decoded, name: str) -> Photo:
    pixels = torch.from_numpy(decoded.pixels).permute(2, 0, 1)  # 3 H W, a view
    note = "; ".join(decoded.notes) or None
    coarse = decoded.size != (pixels.shape[1], pixels.shape[2])
    return Photo(pixels, name, note, decoded.size if coarse else None)


def _from_array(values: np.ndarray, max_pixels: int) -> Photo:
    shape = values.shape
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in (3, 4)):
        raise UnreadableImage(
            "array: expected H x W, H x W x 3 or H x W x 4, "
            f"got {' x '.join(map(str, shape)) or 'a scalar'}"
        )
    check_pixels("array", shape[0], shape[1], max_pixels)
    if np.issubdtype(values.dtype, np.floating):
        values = to_bytes(values, "array")
    _check_uint8("array", values.dtype == np.uint8, str(values.dtype))
    image = Image.fromarray(np.ascontiguousarray(values))
    return _photo(decode_pil(image, "array", max_pixels), "array")


def _from_tensor(values: Tensor, max_pixels: int) -> Photo:
    if values.ndim != 3 or values.shape[0] != 3:
        shape = " x ".join(map(str, values.shape)) or "a scalar"
        raise UnreadableImage(f"tensor: expected 3 x H x W, got {shape}")
    check_pixels("tensor", values.shape[1], values.shape[2], max_pixels)
    values = values.detach().cpu()
    if values.is_floating_point():
        values = torch.from_numpy(to_bytes(values.float().numpy(), "tensor"))
    _check_uint8("tensor", values.dtype == torch.uint8, str(values.dtype))
    return Photo(values.contiguous(), "tensor")


def _check_uint8(name: str, passed: bool, dtype: str) -> None:
    if not passed:
        raise UnreadableImage(
            f"{name}: expected uint8, or float in 0..1, got {dtype}; convert it first"
        )


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes network input: the side lengths in pixels, and the RGB statistics.

    The rule is DETR's (facebookresearch/detr:datasets/transforms.py:79-97): the short side
    becomes `short`, unless the long side would then pass `long`. Statistics are ImageNet's, of
    values in 0..1. Raises `RecipeError`.
    """

    short: int = 800
    long: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.short < 1 or self.long < self.short:
            raise RecipeError(
                f"preprocess expects 1 <= short <= long, got short {self.short}, long {self.long}; "
                "DETR's own are 800 and 1333"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise RecipeError(f"preprocess {name} expects three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise RecipeError(f"preprocess std expects positive numbers, got {self.std}")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing; at least 1 and at most `long` on each side."""
        return fit(height, width, self.short, self.long)

    def enough(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture needs at least to be resized well: twice the network's."""
        high, wide = self.resized(height, width)
        return 2 * high, 2 * wide

    def normalise(self, pixels: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Zero mean and unit deviation by the statistics."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)

    def prepare(self, photos: Sequence[Photo]) -> Images:
        """Resize, normalise and pad: one batch, in the order given."""
        return self.batch([resize(photo.pixels, *self.resized(*photo.size)) for photo in photos])

    def batch(
        self, resized: Sequence[UInt8[Tensor, "3 _ _"]], device: torch.device | str = "cpu"
    ) -> Images:
        """Normalise and pad what is resized already, on `device`: bytes travel, not floats."""
        pixels, padding = (tensor.to(device) for tensor in _padded(resized))
        normalised = self.normalise(pixels)
        if any(image.shape != resized[0].shape for image in resized):
            normalised.masked_fill_(padding[:, None], 0)
        return Images(normalised, padding)


def fit(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """(height, width) whose short side is `short`, or less where the long one would pass `long`.

    Rounding is the official code's; the bounds (1, `long`) only matter for extreme shapes.
    """
    low, high = min(height, width), max(height, width)
    if high / low * short > long:
        short = max(1, round(long * low / high))
    other = min(long, max(1, int(short * high / low)))
    return (short, other) if height <= width else (other, short)


def resize(
    pixels: UInt8[Tensor, "3 H W"], height: int, width: int
) -> UInt8[Tensor, "3 {height} {width}"]:
    """Antialiased bilinear resize, within 1/255 of Pillow's and faster than it."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(
        pixels[None], (height, width), mode="bilinear", antialias=True, align_corners=False
    )[0]


def pad(images: Sequence[Float[Tensor, "3 _ _"]]) -> Images:
    """Zero-pad normalised images at the right and bottom to the largest height and width."""
    return Images(*_padded(images))


def _padded(
    images: Sequence[Shaped[Tensor, "3 _ _"]],
) -> tuple[Shaped[Tensor, "N 3 H W"], Bool[Tensor, "N H W"]]:
    """The images in one tensor, and where it is padding."""
    if not images:
        raise ImageError("expected at least one image to make a batch of, got none")
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    pixels = images[0].new_zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool, device=pixels.device)
    for index, image in enumerate(images):  # sizes differ: there is no batched form
        pixels[index, :, : image.shape[1], : image.shape[2]] = image
        padding[index, : image.shape[1], : image.shape[2]] = False
    return pixels, padding


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """The files behind files, folders and glob patterns, in the order given, each once.

    A file named outright is taken whatever its suffix. Folders are searched all the way down,
    sorted, leaving out hidden entries and other suffixes than `IMAGE_SUFFIXES`. Raises
    `ImageError` for a path or pattern behind which there is no image.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        files = list(_behind(given))
        if not files:
            raise ImageError(
                f"{given}: expected an image file, a folder or a pattern, found no image "
                f"({', '.join(IMAGE_SUFFIXES)}); check the path"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise ImageError("expected at least one file, folder or pattern, got none")
    return list(found.values())


def _behind(given: str | Path) -> Iterator[Path]:
    path = Path(given)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists():
        yield path
    else:
        matches = glob.glob(str(given), recursive=True)  # noqa: PTH207  (takes absolute patterns)
        for match in sorted(matches):
            if Path(match).is_dir():
                yield from _in_folder(Path(match))
            elif _is_image_name(match):
                yield Path(match)


def _in_folder(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_image_name(name):
                yield Path(here, name)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
