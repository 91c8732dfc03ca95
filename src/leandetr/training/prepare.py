"""What a run starts from: the recipe, the images of both splits, and the model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leandetr.checkpoints import store
from leandetr.data.dataset import DetectionData, require_boxes
from leandetr.data.sources import Given, each, find_splits, has_split, load_data
from leandetr.errors import DataError, NetworkUnavailable
from leandetr.models.backbones import load_pretrained
from leandetr.models.detector import Detector
from leandetr.recipes import assemble
from leandetr.recipes.codec import override
from leandetr.recipes.recipe import Recipe
from leandetr.training.build import seed_all
from leandetr.training.by_heart import learner, rounds, some_images
from leandetr.training.few import for_few
from leandetr.training.transfer import transfer

log = logging.getLogger(__name__)

CROWDED = 0.7
"""Share of the queries that objects of one image may take before a warning."""

MOST_QUERIES = 2000
"""Queries beyond which attention among them takes gigabytes."""


@dataclass(frozen=True)
class Data:
    """The images of a run; `val` is None where there is nothing to validate on.

    An epoch shows each image to learn from `rounds` times.
    """

    train: DetectionData
    val: DetectionData | None
    rounds: int = 1

    @property
    def splits(self) -> tuple[DetectionData, ...]:
        """Those that there are."""
        return (self.train,) if self.val is None else (self.train, self.val)


def choose_recipe(recipe: str | Recipe | Detector, overrides: Sequence[str]) -> Recipe:
    """The recipe asked for, with its overrides. Raises `RecipeError`."""
    source = recipe.recipe if isinstance(recipe, Detector) else recipe
    chosen: Recipe = assemble.recipe(source) if isinstance(source, str) else source
    return override(chosen, overrides) if overrides else chosen


def read_data(root: Given, splits: tuple[str, str], recipe: Recipe) -> Data:
    """Both splits; a validation split that is missing or has no box is said and accepted."""
    first, second = splits
    skip = recipe.train.skip_missing
    where, found = ", ".join(map(str, each(root))), ", ".join(find_splits(root))
    if not has_split(root, first):
        raise DataError(
            f"{where}: expected a split '{first}' to learn from, found {found}; rename one, or "
            "deal the images anew: leandetr data split DATA NEW"
        )
    data = load_data(root, first, skip_missing=skip)
    require_boxes(data)
    _warn_of_crowds(recipe, data)
    without = "there is no validation, and no best model is chosen"
    if not has_split(root, second):
        log.warning("%s has no split '%s': %s (splits found: %s)", where, second, without, found)
        return Data(data, None)
    held = load_data(root, second, skip_missing=skip)
    if not held.boxes:
        log.warning("%s has not one box to be found: %s", held.name, without)
        return Data(data, None)
    if unknown := [name for name in held.names if name not in data.names]:
        raise DataError(
            f"{held.name}: expected the classes of {data.name}, got {', '.join(unknown)} besides; "
            "add them there, or deal the images anew: leandetr data split DATA NEW"
        )
    return Data(data, held)


def _warn_of_crowds(recipe: Recipe, data: DetectionData) -> None:
    """Say so if an image holds more objects than the queries can find."""
    queries = getattr(recipe.model.queries, "count", None)
    if queries is None or data.most_boxes <= CROWDED * queries:
        return
    wanted = 2 * data.most_boxes
    cure = f"add --set queries.count={wanted}"
    if wanted > MOST_QUERIES:
        cure = "cut such images into smaller ones"
        cure += f", and add --set queries.count={MOST_QUERIES}" * (queries < MOST_QUERIES)
    log.warning(
        "an image of %s holds %d objects but the recipe has %d queries: some will be missed; %s",
        *(data.name, data.most_boxes, queries, cure),
    )


def fit_recipe(
    recipe: Recipe, data: Data, overrides: Sequence[str], begun: Recipe | None = None
) -> Recipe:
    """The recipe with the classes of the data; a preset as it is also learns to do with few images.

    What is changed for few images is said, and nothing that `overrides` set is. In a run that has
    `begun` the rate drops where it did, though it may go on for other epochs.
    """
    recipe = recipe.with_model(classes=len(data.train.categories))
    paths = _paths(overrides)
    if not _is_preset(recipe, paths):
        return recipe
    preset = assemble.recipe(recipe.name)
    if begun is not None and "train.drops" not in paths:
        recipe = recipe.with_train(drops=begun.train.drops)
        paths = [*paths, "train.drops"]
    changed, told = for_few(recipe, len(data.train), paths, preset=preset)
    if told:
        log.info(
            "%d images are few for %s, so: %s; --set gives another value, and a recipe of your own "
            "(leandetr show %s) is taken as it is",
            *(len(data.train), recipe.name, "; ".join(told), recipe.name),
        )
    return changed


def _is_preset(recipe: Recipe, paths: Sequence[str]) -> bool:
    """Whether training is as a preset has it, but for what `paths` name."""
    if recipe.name not in assemble.list_models():
        return False
    preset = assemble.recipe(recipe.name).train
    names = {path.removeprefix("train.").partition(".")[0] for path in paths}
    kept = {name: getattr(recipe.train, name) for name in names if hasattr(preset, name)}
    return replace(preset, **kept) == recipe.train


def by_heart(
    recipe: Recipe, data: Data, images: int, overrides: Sequence[str]
) -> tuple[Recipe, Data]:
    """The recipe and the few images, for training and validation alike, of an overfitting test.

    It ends after `train.epochs` only if `overrides` say how many.
    """
    few = some_images(data.train, images, recipe.train.seed)
    log.info("learning %s by heart, without augmentation or averaging", few.name)
    asked = "train.epochs" in _paths(overrides)
    changed = learner(recipe, len(few), epochs=recipe.train.epochs if asked else None)
    return changed, Data(few, few, rounds(changed, len(few)))


def _paths(overrides: Sequence[str]) -> list[str]:
    """The settings that are changed."""
    return [change.partition("=")[0].strip() for change in overrides]


def prepare_model(
    recipe: Recipe, data: DetectionData, start: str | Path | Detector | None, resume: bool
) -> Detector:
    """The model before the first step, named after the classes of the data."""
    seed_all(recipe.train.seed)
    model = assemble.build(recipe)
    model.names, model.category_ids = data.names, data.category_ids
    if resume:
        return model
    if start is not None:
        old = start if isinstance(start, Detector) else store.load(start)
        if _needs_backbone(recipe, old):
            log.info("backbone: %s", _pretrained(model, recipe))
        log.info("weights taken over:\n%s", transfer(old, model).table())
    elif recipe.model.backbone.weights is not None:
        log.info("backbone: %s", _pretrained(model, recipe))
    return model


def _needs_backbone(recipe: Recipe, old: Detector) -> bool:
    """Whether the old model has another backbone, and the recipe wants its own pretrained."""
    mine, other = recipe.model.backbone, old.recipe.model.backbone
    return mine.weights is not None and mine.architecture != other.architecture


def _pretrained(model: Detector, recipe: Recipe) -> str:
    """What was loaded into the backbone. Raises `NetworkUnavailable` with both ways out."""
    try:
        return load_pretrained(model.backbone, recipe.model.backbone)
    except NetworkUnavailable as error:
        raise NetworkUnavailable(
            f"{error}; or start from random weights: add --set backbone.weights=none "
            "(and for a ResNet --set backbone.norm=batch --set backbone.frozen_stages=0)"
        ) from error
