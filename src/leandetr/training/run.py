"""`train`: from a recipe and a folder of annotated images to a folder with a trained model."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leandetr.checkpoints import store
from leandetr.data.dataset import DetectionData, require_boxes
from leandetr.data.loader import DetectionSet
from leandetr.data.sources import Given, find_splits, has_split, load_data
from leandetr.errors import NetworkUnavailable, OutputExists, TrainingError
from leandetr.models.backbones import load_pretrained
from leandetr.models.detector import Detector
from leandetr.recipes import assemble
from leandetr.recipes.codec import override, to_dict
from leandetr.recipes.recipe import Recipe
from leandetr.training import state
from leandetr.training.batches import Batches, EpochBatches
from leandetr.training.build import build_accelerator, build_parts, seed_all
from leandetr.training.display import show
from leandetr.training.loop import Keep, Limits, Loop, Validate
from leandetr.training.transfer import transfer

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

CROWDED = 0.7
"""Share of the queries that objects of one image may take before a warning."""

MAY_CHANGE = ("epochs", "workers", "validate_every", "patience", "save_minutes")
"""What of `train` may be another when a run goes on."""


@dataclass(frozen=True)
class _Data:
    train: DetectionData
    val: DetectionData | None


def train(
    recipe: str | Recipe | Detector,
    data: Given,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    weights: str | Path | None = None,
    splits: tuple[str, str] = ("train", "val"),
    minutes: float | None = None,
) -> Path:
    """Train a detector on one data set, or on several as one; returns `out`.

    That folder then holds `best/` and `last/` (model folders; `last/state.pt` is what resuming
    needs), `metrics.csv`, `curves.png`, `train.log` and `tensorboard/`.

    `recipe` is a preset's name, a recipe, or a detector to fine-tune; `weights` names a model
    whose tensors are taken over where they fit. `overrides` are `path=value` texts such as
    "train.epochs=30". The classes come from the data. `minutes` ends the run early, with
    validation and checkpoint. With `resume`, the run in `out` goes on as if it had never stopped.

    Raises `OutputExists` if `out` holds a run and `resume` is not set, `RecipeError`, `DataError`,
    `CheckpointError` or `TrainingError` for what cannot be used, and `KeyboardInterrupt` after a
    Ctrl-C, when all is saved.
    """
    out = Path(out)
    start = weights if weights is not None else recipe if isinstance(recipe, Detector) else None
    chosen = _choose(recipe, overrides)
    accelerator = build_accelerator()
    if accelerator.is_main_process:
        _claim(out, resume)
    accelerator.wait_for_everyone()
    with show(out, main=accelerator.is_main_process) as display:
        read = _read(data, splits, chosen)
        chosen = chosen.with_model(classes=len(read.train.categories))
        model = _model(chosen, read.train, start, resume)
        seed_all(chosen.train.seed + accelerator.process_index)
        loop = _loop(chosen, model, read, accelerator, out, minutes)
        if resume:
            _resume(loop, out)
        loop.run(display)
        log.info("done; the model is in %s", _result(out))
    return out


def _choose(recipe: str | Recipe | Detector, overrides: Sequence[str]) -> Recipe:
    source = recipe.recipe if isinstance(recipe, Detector) else recipe
    chosen: Recipe = assemble.recipe(source) if isinstance(source, str) else source
    return override(chosen, overrides) if overrides else chosen


def _claim(out: Path, resume: bool) -> None:
    """Make the folder. Raises `OutputExists` if a run is in it that nobody asked to go on with."""
    former = [out / name for name in ("last", "best", "metrics.csv") if (out / name).exists()]
    if former and not resume:
        raise OutputExists(
            f"{out}: there is a run already ({', '.join(path.name for path in former)}); "
            "go on with it by --resume, or choose another folder with --out"
        )
    out.mkdir(parents=True, exist_ok=True)


def _read(root: Given, splits: tuple[str, str], recipe: Recipe) -> _Data:
    """Both splits; a missing validation split is said and accepted."""
    first, second = splits
    skip = recipe.train.skip_missing
    data = load_data(root, first, skip_missing=skip)
    require_boxes(data)
    queries = getattr(recipe.model.queries, "count", None)
    if queries is not None and data.most_boxes > CROWDED * queries:
        log.warning(
            "an image of %s holds %d objects but the recipe has %d queries: some will be missed; "
            "add --set queries.count=%d",
            *(data.name, data.most_boxes, queries, 2 * data.most_boxes),
        )
    if not has_split(root, second):
        log.warning(
            "%s has no split '%s': there is no validation, and no best model is chosen "
            "(splits found: %s)",
            *(root, second, ", ".join(find_splits(root))),
        )
        return _Data(data, None)
    return _Data(data, load_data(root, second, skip_missing=skip))


def _model(
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


def _loop(
    recipe: Recipe,
    model: Detector,
    data: _Data,
    accelerator: "Accelerator",
    out: Path,
    minutes: float | None,
) -> Loop:
    how = recipe.train
    images = DetectionSet(data.train, recipe.preprocess, augment=how.augment, seed=how.seed)
    order = EpochBatches(
        len(images),
        how.batch,
        seed=how.seed,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    steps = math.ceil(len(order) / how.accumulate)
    parts = build_parts(recipe, model, accelerator, steps)
    about = {"recipe": to_dict(recipe), "names": list(model.names)}
    return Loop(
        parts,
        Batches(images, order, workers=how.workers),
        limits=Limits(how.epochs, minutes, how.validate_every, how.patience, how.save_minutes),
        keep=Keep(out, store.save, about),  # pyright: ignore[reportArgumentType]
        validate=_validation(data.val, model, recipe),
    )


def _validation(data: DetectionData | None, model: Detector, recipe: Recipe) -> Validate | None:
    """How to validate. Raises `DataError` now if `data` has a class that training does not."""
    if data is None:
        return None
    from leandetr.evaluation.evaluate import category_of, evaluate

    category_of(model, data)
    return partial(evaluate, data=data, batch=recipe.train.batch, workers=recipe.train.workers)


def _resume(loop: Loop, out: Path) -> None:
    """Put a loop where the run in `out` stopped. Raises if that was another run."""
    snapshot = state.read(out / "last" / "state.pt")
    changed = differences(snapshot.about, loop.keep.about)
    if changed:
        raise TrainingError(
            f"{out}: resuming goes on with the same run, but these differ: {'; '.join(changed)}; "
            f"give the former values, or start anew from its weights with --weights {out / 'last'}"
        )
    state.restore(snapshot, loop.parts)
    loop.position = snapshot.position
    planned = snapshot.about["recipe"]["train"]["epochs"]
    if planned != loop.limits.epochs and loop.keep.about["recipe"]["train"]["schedule"] == "cosine":
        log.warning(
            "planned for %d epochs and going on to %d: the cosine schedule jumps to its new place",
            *(planned, loop.limits.epochs),
        )
    if loop.position.epoch >= loop.limits.epochs:
        log.info("all %d epochs are done; raise train.epochs to go on", loop.limits.epochs)


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """`path: before -> now` for everything that differs, but for what may."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in {**before, **now}:
            below = f"{path}.{key}" if path else str(key)
            if below not in {f"recipe.train.{name}" for name in MAY_CHANGE}:
                found += differences(before.get(key), now.get(key), below)
        return found
    same = before == now
    return [] if same else [f"{path.removeprefix('recipe.')}: {before} -> {now}"]


def _result(out: Path) -> Path:
    best = out / "best"
    return best if best.exists() else out / "last"
