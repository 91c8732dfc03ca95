"""Samples to batches: decode, augment, normalise, pad.

data = load_data("data/cells", "train")
items = DetectionSet(data, preprocess, augment=SmallDataAugment(), seed=0, cache=True)
batches = DataLoader(items, batch_size=8, shuffle=True, collate_fn=collate)
items.set_epoch(1)                          # new augmentations, the same in every run
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from leandetr.boxes import to_unit, xyxy_to_cxcywh
from leandetr.data.dataset import DetectionData, Sample
from leandetr.data.transforms import AugmentConfig, PlainAugment
from leandetr.data.view import View
from leandetr.errors import DataError, ImageError
from leandetr.images import DEFAULT_MAX_PIXELS, Preprocess, pad, read_image, resize
from leandetr.types import Images, Target

CACHE_BYTES = 2 * 2**30
"""Most memory the pixel cache of one `DetectionSet` takes; the rest is decoded when asked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One image ready for the network; `size` is (height, width) of the original."""

    pixels: Float[Tensor, "3 H W"]
    target: Target
    image_id: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Padded images with their targets, source image ids and original (height, width)."""

    images: Images
    targets: list[Target]
    image_ids: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        targets = [target.to(device) for target in self.targets]
        return Batch(self.images.to(device), targets, self.image_ids, self.sizes)


class DetectionSet(Dataset[Item]):
    """Images of a data set, augmented for training or, without `augment`, as evaluation wants them.

    Crowd boxes are never targets. An item depends on `seed`, the epoch and its index only, so
    any number of workers gives the same. With `cache`, decoded pixels (shrunk to at most twice
    the prepared size) are read now and kept, up to `CACHE_BYTES`. With `coarse`, JPEG files are
    decoded to no more than evaluation needs. Raises `DataError` naming the file that cannot be
    read.
    """

    def __init__(
        self,
        data: DetectionData,
        preprocess: Preprocess,
        *,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        cache: bool = False,
        coarse: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.data = data
        self.preprocess = preprocess
        self.seed = seed
        self.max_pixels = max_pixels
        self._enough = preprocess.enough if coarse else None
        self._keep = 2 if augment else 1
        self._change = (augment or PlainAugment()).build(preprocess)
        # shared memory: workers that outlive an epoch see the next one
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._cache = self._filled_cache() if cache else {}

    def __len__(self) -> int:
        return len(self.data.samples)

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations; to be called before an epoch's first batch."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> Item:
        sample, view = self.data.samples[index], self.view(index)
        size = torch.tensor(view.size, dtype=torch.float32)
        boxes = xyxy_to_cxcywh(to_unit(view.boxes, size))
        return Item(
            self.preprocess.normalise(view.pixels),
            Target(view.labels, boxes),
            sample.image_id,
            sample.size,
        )

    def view(self, index: int) -> View:
        """An image as this epoch shows it, before its colours are normalised."""
        sample = self.data.samples[index]
        pixels = self._cache[index] if index in self._cache else self._decoded(sample)
        return self._change(_view(sample, pixels), self._generator(index))

    def _generator(self, index: int) -> torch.Generator:
        words = np.random.SeedSequence((self.seed, int(self._epoch), index)).generate_state(2)
        return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def _decoded(self, sample: Sample) -> UInt8[Tensor, "3 H W"]:
        try:
            photo = read_image(sample.path, max_pixels=self.max_pixels, enough=self._enough)
        except ImageError as error:
            raise DataError(f"{self.data.name}: {error} ({sample.path})") from error
        if photo.size != sample.size:
            raise DataError(
                f"{sample.path}: changed since the annotations were read, expected "
                f"(height, width) {sample.size}, got {photo.size}; read the data again"
            )
        if photo.whole is None:
            return photo.pixels
        return resize(photo.pixels, *self.preprocess.resized(*photo.size))

    def _filled_cache(self) -> dict[int, Tensor]:
        """Pixels by index, from the first on, until the memory allowed is used."""
        cache: dict[int, Tensor] = {}
        used = 0
        for index, sample in enumerate(self.data.samples):
            height, width = (self._keep * side for side in self.preprocess.resized(*sample.size))
            pixels = self._decoded(sample)
            if height * width < pixels[0].numel():
                pixels = resize(pixels, height, width)
            used += pixels.numel()
            if used > CACHE_BYTES:
                _log.warning(
                    "%s: the cache holds %d of %d images", self.data.name, index, len(self)
                )
                break
            cache[index] = pixels
        return cache


def _view(sample: Sample, pixels: UInt8[Tensor, "3 H W"]) -> View:
    """Pixels, at full size or shrunk, with the boxes to learn from."""
    learn = ~sample.crowd
    height, width = sample.size
    ratio = torch.tensor((pixels.shape[2] / width, pixels.shape[1] / height)).repeat(2)
    return View(pixels, sample.boxes[learn] * ratio, sample.labels[learn], sample.crowd[learn])


def collate(items: Sequence[Item]) -> Batch:
    """One batch, padded to its largest height and width."""
    return Batch(
        pad([item.pixels for item in items]),
        [item.target for item in items],
        tuple(item.image_id for item in items),
        tuple(item.size for item in items),
    )
