"""One model of a comparison: opened from whatever name it has, run image by image."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leandetr.checkpoints.store import load, recipe_of
from leandetr.data.dataset import DetectionData
from leandetr.data.loader import DetectionSet, collate
from leandetr.evaluation.evaluate import category_of, coco_results
from leandetr.evaluation.memory import peak_memory
from leandetr.evaluation.turns import timed
from leandetr.models.detector import Detector
from leandetr.models.optimise import best_dtype
from leandetr.recipes.assemble import create_model, list_models


@dataclass
class Contestant:
    """A model with what it found and the milliseconds it took, an entry an image.

    `trained` is False for a model with random weights, whose findings mean nothing. `parameters`
    are those before it was optimised.
    """

    name: str
    model: Detector
    trained: bool
    parameters: int
    items: DetectionSet
    categories: dict[int, int]
    found: list[dict[str, Any]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def look(self, index: int) -> None:
        """Detect in one image of the data. Reading and resizing it is not timed."""
        batch = collate([self.items[index]])
        images = batch.images.to(self.device)
        found, spent = timed(lambda: self.model.detect(images, batch.sizes), self.device)
        self.milliseconds.append(spent)
        self.found += coco_results(found, batch.image_ids, self.categories)

    def forget(self) -> None:
        """Drop what was found and timed so far: the warm-up."""
        self.found.clear()
        self.milliseconds.clear()

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every image as the model gets it."""
        return [self.model.preprocess.resized(*s.size) for s in self.items.data.samples]

    def memory(self) -> int:
        """The most bytes in use beyond weights and input, in the largest image."""
        sizes = self.sizes()
        largest = max(range(len(sizes)), key=lambda index: math.prod(sizes[index]))
        batch = collate([self.items[largest]])
        images = batch.images.to(self.device)
        return peak_memory(lambda: self.model.detect(images, batch.sizes), self.device)

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the images stayed below."""
        return float(np.quantile(self.milliseconds, share))


def enter(
    name: str, data: DetectionData, device: torch.device, *, fast: bool = False
) -> Contestant:
    """The model called `name`, ready for `data`.

    A model folder, run, shipped model or `hf:owner/name` has weights; a preset or a YAML recipe
    gets random ones, and the classes of `data`. With `fast` it is optimised, in the precision that
    is fastest there. Raises `LeanDetrError` for what cannot be loaded,
    and for a model that lacks a class of `data`.
    """
    trained = _has_weights(name)
    if trained:
        model = load(name)
    else:
        model = create_model(recipe_of(name), num_classes=max(len(data.categories), 1)).eval()
        model.names, model.category_ids = data.names, data.category_ids
    categories = category_of(model, data)
    items = DetectionSet(data, model.preprocess)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model = model.to(device)
    placed = model.optimise(dtype=best_dtype(device)) if fast else model
    return Contestant(name, placed, trained, parameters, items, categories)


def _has_weights(name: str) -> bool:
    """Whether `name` is a model rather than a recipe; what is neither, `load` complains about."""
    is_recipe = name in list_models() or Path(name).is_file()
    return Path(name).is_dir() or not is_recipe
