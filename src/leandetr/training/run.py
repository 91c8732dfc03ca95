"""`train`: from a recipe and a folder of annotated images to a folder with a trained model."""

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leandetr.checkpoints import store
from leandetr.data.loader import DetectionSet
from leandetr.data.sources import Given
from leandetr.errors import OutputExists, TrainingError
from leandetr.models.detector import Detector
from leandetr.recipes.codec import to_dict
from leandetr.recipes.recipe import Recipe
from leandetr.training import state
from leandetr.training.about import write_about
from leandetr.training.batches import Batches, EpochBatches
from leandetr.training.build import build_accelerator, build_parts, note_precision, seed_all
from leandetr.training.by_heart import ENOUGH, likely_causes
from leandetr.training.display import Display, show
from leandetr.training.fit import as_before, fit_to_memory
from leandetr.training.loop import Keep, Limits, Loop
from leandetr.training.prepare import (
    Data,
    by_heart,
    choose_recipe,
    fit_recipe,
    prepare_model,
    read_data,
)
from leandetr.training.preview import PREVIEW, write_preview
from leandetr.training.record import METRICS, read_rows
from leandetr.training.state import STATE
from leandetr.training.trackers import Tracker, check_trackers
from leandetr.training.validation import Validation
from leandetr.training.workers import workers_told

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

MAY_CHANGE = ("epochs", "workers", "validate_every", "patience", "save_minutes", "recompute")
"""What of `train` may be another when a run goes on."""


def train(  # noqa: PLR0913 - keywords of the front door
    recipe: str | Recipe | Detector,
    data: Given,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    weights: str | Path | None = None,
    splits: tuple[str, str] = ("train", "val"),
    minutes: float | None = None,
    fit_memory: bool = False,
    trackers: Sequence[Tracker | str] = (),
) -> Path:
    """Train a detector on one data set, or on several as one; returns `out`.

    That folder then holds `best/` and `last/` (model folders; `last/state.pt` is what resuming
    needs), `metrics.csv`, `curves.png`, `train.log`, `tensorboard/`, and what the run is made of:
    `recipe.yaml`, `run.json` and `preview.png`, which shows what the model sees.

    `recipe` is a preset's name, a recipe, or a detector to fine-tune; `weights` names a model
    whose tensors are taken over where they fit. `overrides` are `path=value` texts such as
    "train.epochs=30". The classes come from the data. `minutes` ends the run early, with
    validation and checkpoint. With `resume`, the run in `out` goes on as if it had never stopped.
    With `fit_memory`, batches are as large as memory allows, and a step learns from as many images
    as the recipe says. `trackers` are objects with `log` and `close`, or names such as "wandb".

    Raises `OutputExists` if `out` holds a run and `resume` is not set, `RecipeError`, `DataError`,
    `CheckpointError` or `TrainingError` for what cannot be used, and `KeyboardInterrupt` after a
    Ctrl-C, when all is saved.
    """
    start = weights if weights is not None else recipe if isinstance(recipe, Detector) else None
    chosen = choose_recipe(recipe, overrides)
    check_trackers(trackers)
    with _opened(Path(out), resume) as (accelerator, display):
        read = read_data(data, splits, chosen)
        begun = store.read_recipe(Path(out) / "last") if resume else None
        fitted = fit_recipe(chosen, read, overrides, begun)
        if fit_memory and resume:
            fitted = as_before(fitted, Path(out))
        elif fit_memory:
            fitted = fit_to_memory(fitted, read.train, accelerator)
        loop = _prepare(fitted, read, accelerator, Path(out), start=start, resume=resume)
        loop.limits = replace(loop.limits, minutes=minutes)
        loop.keep = replace(loop.keep, trackers=tuple(trackers))
        loop.run(display)
        log.info("done; the model is in %s", _result(Path(out)))
    return Path(out)


def overfit(
    recipe: str | Recipe | Detector,
    data: Given,
    out: str | Path,
    *,
    images: int = 8,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    minutes: float | None = None,
) -> Path:
    """Learn a few images by heart, as a test of data and settings; returns `out`, a run's folder.

    `images` of the split `train` are drawn by the recipe's seed. Ends as soon as AP50 on them is
    0.9. Raises `TrainingError` with the likely causes if that never comes, and what `train` raises.
    """
    start = weights if weights is not None else recipe if isinstance(recipe, Detector) else None
    chosen = choose_recipe(recipe, overrides)
    with _opened(Path(out), resume=False) as (accelerator, display):
        read = read_data(data, ("train", "train"), chosen)
        chosen = chosen.with_model(classes=len(read.train.categories))
        learner, few = by_heart(chosen, read, images, overrides)
        loop = _prepare(learner, few, accelerator, Path(out), start=start, resume=False)
        loop.limits = replace(loop.limits, minutes=minutes, enough=ENOUGH)
        position = loop.run(display)
        rows = read_rows(Path(out) / METRICS)
        best = max((row.ap50 for row in rows if not math.isnan(row.ap50)), default=0.0)
        said = f"AP50 {best:.2f} on {few.train.name} after {position.step} steps"
        if best >= ENOUGH:
            log.info("learned by heart: %s", said)
            return Path(out)
        causes = "\n- ".join(likely_causes(loop.parts.model, few.train, rows))
        raise TrainingError(f"not learned by heart: {said}, expected {ENOUGH}\n- {causes}")


@contextmanager
def _opened(out: Path, resume: bool) -> Iterator[tuple["Accelerator", Display]]:
    """Processes and device of a run, and its folder with a log in it."""
    accelerator = build_accelerator()
    if accelerator.is_main_process:
        _claim(out, resume)
    with workers_told():
        accelerator.wait_for_everyone()
        with show(out, main=accelerator.is_main_process) as display:
            yield accelerator, display


def _prepare(
    recipe: Recipe,
    data: Data,
    accelerator: "Accelerator",
    out: Path,
    *,
    start: str | Path | Detector | None,
    resume: bool,
) -> Loop:
    """The loop of a run, where it stands: at the start, or where it stopped."""
    model = prepare_model(recipe, data.train, start, resume)
    if accelerator.is_main_process:
        note_precision(recipe.train.precision, accelerator.device)
    seed_all(recipe.train.seed + accelerator.process_index)
    loop = _loop(recipe, model, data, accelerator, out)
    if resume:
        _resume(loop, out)
    if accelerator.is_main_process:  # a run that was refused leaves the record as it was
        if not (resume and (out / PREVIEW).exists()):
            write_preview(loop.batches.data, out / PREVIEW)
        write_about(out, recipe, list(data.splits), accelerator.device, resume=resume)
    return loop


def _claim(out: Path, resume: bool) -> None:
    """Make the folder. Raises `OutputExists` if a run is in it that nobody asked to go on with.

    Raises `CheckpointError` if none is there to go on with, `TrainingError` if nothing can be
    written.
    """
    former = [out / name for name in ("last", "best", "metrics.csv") if (out / name).exists()]
    if former and not resume:
        raise OutputExists(
            f"{out}: there is a run already ({', '.join(path.name for path in former)}); "
            "go on with it by --resume, or choose another folder with --out"
        )
    if resume:
        state.require(out / "last" / STATE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for folder in (out, out / "last", out / "best"):
            state.sweep(folder)
    except OSError as error:
        raise TrainingError(
            f"{out}: expected a folder to write a run to, but {error}; choose another with --out"
        ) from error


def _loop(
    recipe: Recipe,
    model: Detector,
    data: Data,
    accelerator: "Accelerator",
    out: Path,
) -> Loop:
    how = recipe.train
    images = DetectionSet(data.train, recipe.preprocess, augment=how.augment, seed=how.seed)
    order = EpochBatches(
        len(images),
        how.batch,
        seed=how.seed,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        rounds=data.rounds,
    )
    steps = math.ceil(len(order) / how.accumulate)
    parts = build_parts(recipe, model, accelerator, steps)
    about = {"recipe": to_dict(recipe), "names": list(model.names)}
    validation = None
    if data.val is not None:
        validation = Validation(
            data.val, model, accelerator=accelerator, batch=how.batch, workers=how.workers
        )
    return Loop(
        parts,
        Batches(images, order, workers=how.workers),
        limits=Limits(
            how.epochs,
            validate_every=how.validate_every,
            patience=how.patience,
            save_minutes=how.save_minutes,
        ),
        keep=Keep(out, store.save, about),  # pyright: ignore[reportArgumentType]
        validate=validation,
    )


def _resume(loop: Loop, out: Path) -> None:
    """Put a loop where the run in `out` stopped. Raises if that was another run."""
    snapshot = state.read(out / "last" / STATE)
    changed = differences(snapshot.about, loop.keep.about)
    before, now = len(snapshot.random), loop.parts.accelerator.num_processes
    if before != now:
        changed.append(f"processes: {before} -> {now}")
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
