"""What training does to an image and its boxes: named policies, frozen, seeded by a generator.

    change = SmallDataAugment().build(Preprocess(short=320, long=480))
    view = change(view, torch.Generator().manual_seed(0))

Another policy is a frozen dataclass with `build`, registered under a name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch

from leandetr.data.colour import adjust
from leandetr.data.view import (
    View,
    crop,
    flip_horizontal,
    flip_vertical,
    pad_to,
    quarter_turn,
    scale_to,
)
from leandetr.errors import RecipeError
from leandetr.images import Preprocess, fit
from leandetr.registry import Registry

augmentations = Registry("augmentation")
"""Augmentation policies by name."""

Range = tuple[float, float]
Choice = TypeVar("Choice")


Change = Callable[[View, torch.Generator], View]
"""A built policy: one view in, another out, all chance drawn from the generator."""


@runtime_checkable
class AugmentConfig(Protocol):
    """A policy's numbers; `build` fits them to the size the network is trained at."""

    def build(self, preprocess: Preprocess) -> Change:
        """The policy as a callable."""
        ...


def _uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _whole(rng: torch.Generator, low: int, high: int) -> int:
    """A whole number in low..high, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def _pick(rng: torch.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[_whole(rng, 0, len(choices) - 1)]


def _happens(rng: torch.Generator, probability: float) -> bool:
    return float(torch.rand((), generator=rng)) < probability


def _random_window(
    rng: torch.Generator, size: tuple[int, int], height: int, width: int
) -> tuple[int, int, int, int]:
    """(top, left, height, width) somewhere in a picture of `size`, no larger than it."""
    height, width = min(height, size[0]), min(width, size[1])
    top, left = _whole(rng, 0, size[0] - height), _whole(rng, 0, size[1] - width)
    return top, left, height, width


def _check_range(name: str, values: Range | tuple[int, int], low: float, high: float) -> None:
    if not low <= values[0] <= values[1] <= high:
        raise RecipeError(
            f"augment {name} expects two rising numbers in {low:g}..{high:g}, got {values}"
        )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RecipeError(f"augment {name} expects a number in 0..1, got {value}")


def _check_sides(name: str, sides: Sequence[int]) -> None:
    if not sides or min(sides) < 1:
        raise RecipeError(f"augment {name} expects side lengths of at least 1 pixel, got {sides}")


@augmentations.register("plain")
@dataclass(frozen=True)
class PlainAugment:
    """No change but the resizing of evaluation."""

    def build(self, preprocess: Preprocess) -> Change:
        """The policy as a callable."""

        def change(view: View, rng: torch.Generator) -> View:
            return scale_to(view, *preprocess.resized(*view.size))

        return change


@augmentations.register("detr")
@dataclass(frozen=True)
class DetrAugment:
    """Flip, then one of many sizes, half of the time after a random crop: the papers' policy.

    After facebookresearch/detr:datasets/coco.py:115-131. Lengths are pixels at the papers' short
    side of 800: `build` scales them by `Preprocess.short` / 800. A box survives the crop if
    any of it does (at least a pixel a side; the official code keeps thinner ones).
    """

    flip: float = 0.5
    crop: float = 0.5
    sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    crop_sides: tuple[int, ...] = (400, 500, 600)
    crop_range: tuple[int, int] = (384, 600)

    def __post_init__(self) -> None:
        _check_share("flip", self.flip)
        _check_share("crop", self.crop)
        _check_sides("sides", self.sides)
        _check_sides("crop_sides", self.crop_sides)
        _check_range("crop_range", self.crop_range, 1.0, math.inf)

    def build(self, preprocess: Preprocess) -> Change:
        """The policy as a callable."""
        factor = preprocess.short / 800

        def scaled(side: int) -> int:
            return max(1, round(side * factor))

        def sized(view: View, side: int, long: int) -> View:
            return scale_to(view, *fit(*view.size, scaled(side), long))

        def cropped(view: View, rng: torch.Generator) -> View:
            # the official code sets no limit on the long side here
            view = sized(view, _pick(rng, self.crop_sides), 100 * preprocess.long)
            low, high = map(scaled, self.crop_range)
            height, width = (_whole(rng, min(low, side), min(high, side)) for side in view.size)
            return crop(view, _random_window(rng, view.size, height, width))

        def change(view: View, rng: torch.Generator) -> View:
            if _happens(rng, self.flip):
                view = flip_horizontal(view)
            if _happens(rng, self.crop):
                view = cropped(view, rng)
            return sized(view, _pick(rng, self.sides), preprocess.long)

        return change


@augmentations.register("lsj")
@dataclass(frozen=True)
class LsjAugment:
    """Large-scale jitter: the picture 0.1 to 2 times as large in a fixed square of `size` pixels.

    Simple Copy-Paste (arXiv 2012.07177), section 3: the picture is fitted into the square, scaled
    by a random factor, and cropped or padded back to it. Flips come first.
    """

    size: int = 1024
    scale: Range = (0.1, 2.0)
    flip: float = 0.5

    def __post_init__(self) -> None:
        _check_share("flip", self.flip)
        _check_sides("size", (self.size,))
        _check_range("scale", self.scale, 0.01, 10.0)

    def build(self, preprocess: Preprocess) -> Change:
        """The policy as a callable; the size is the policy's own."""

        def change(view: View, rng: torch.Generator) -> View:
            if _happens(rng, self.flip):
                view = flip_horizontal(view)
            factor = _uniform(rng, *self.scale) * self.size / max(view.size)
            view = scale_to(view, *(max(1, round(side * factor)) for side in view.size))
            view = crop(view, _random_window(rng, view.size, self.size, self.size))
            return pad_to(view, self.size, self.size)

        return change


@augmentations.register("small-data")
@dataclass(frozen=True)
class SmallDataAugment:
    """For a few hundred pictures without an up: mirrors, turns, scale, crop and colour.

    `scale` multiplies the size of evaluation; what is larger than that size is cropped to it,
    where boxes stay of which at least `min_share` is visible. Colour factors are drawn from
    1 - x to 1 + x, the hue from -x to x turns. Set `turn` and `flip_vertical` to 0 where
    pictures have an up.
    """

    flip: float = 0.5
    flip_vertical: float = 0.5
    turn: float = 0.5
    scale: Range = (0.6, 1.4)
    min_share: float = 0.25
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02

    def __post_init__(self) -> None:
        for name in ("flip", "flip_vertical", "turn", "min_share"):
            _check_share(name, getattr(self, name))
        for name in ("brightness", "contrast", "saturation", "hue"):
            _check_share(name, getattr(self, name))
        _check_range("scale", self.scale, 0.05, 10.0)

    def build(self, preprocess: Preprocess) -> Change:
        """The policy as a callable."""

        def change(view: View, rng: torch.Generator) -> View:
            height, width = preprocess.resized(*view.size)
            turned = _happens(rng, self.turn)
            window = (width, height) if turned else (height, width)
            factor = _uniform(rng, *self.scale)
            view = scale_to(view, max(1, round(height * factor)), max(1, round(width * factor)))
            view = crop(view, _random_window(rng, view.size, *window), self.min_share)
            return self._coloured(self._mirrored(quarter_turn(view) if turned else view, rng), rng)

        return change

    def _mirrored(self, view: View, rng: torch.Generator) -> View:
        if _happens(rng, self.flip):
            view = flip_horizontal(view)
        return flip_vertical(view) if _happens(rng, self.flip_vertical) else view

    def _coloured(self, view: View, rng: torch.Generator) -> View:
        brightness, contrast, saturation = (
            _uniform(rng, 1 - x, 1 + x) for x in (self.brightness, self.contrast, self.saturation)
        )
        pixels = adjust(
            view.pixels,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=_uniform(rng, -self.hue, self.hue),
        )
        return replace(view, pixels=pixels)
