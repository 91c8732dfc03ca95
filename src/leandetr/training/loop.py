"""The training loop: epochs of steps, each epoch validated, recorded and saved."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from leandetr.errors import TrainingError
from leandetr.models.detector import Detector
from leandetr.training import state
from leandetr.training.batches import Batches, steps
from leandetr.training.display import Display, Moment
from leandetr.training.interrupt import Interrupt
from leandetr.training.memory import memory_told
from leandetr.training.record import Means, Record, build_row, mean_over_processes
from leandetr.training.runs import flat
from leandetr.training.state import Position, clearly
from leandetr.training.step import Parts, Skipped, anywhere, train_step
from leandetr.training.trackers import Tracker, open_trackers
from leandetr.training.watch import advice, note_loss, note_score

if TYPE_CHECKING:
    from leandetr.evaluation.coco import CocoScores

log = logging.getLogger(__name__)

Validate = Callable[[Detector], "CocoScores | None"]
"""Called on all processes; the first gets the scores."""
Save = Callable[[Detector, Path], None]


@dataclass(frozen=True)
class Limits:
    """When a run ends, and when it is validated.

    It ends after `epochs`, when it has run for `minutes`, after `patience` validations without
    a better one, or when AP50 (in 0..1) is `enough`, whichever is first. Every `validate_every`
    epochs it is validated, and when it ends. It is saved at the end of an epoch, and within one
    when `save_minutes` have gone by.
    """

    epochs: int
    minutes: float | None = None
    validate_every: int = 1
    patience: int | None = None
    save_minutes: float | int = 10
    enough: float | None = None

    def validates(self, epoch: int, *, late: bool) -> bool:
        """Whether validation is due after `epoch` epochs; `late` says that time is up."""
        return late or epoch >= self.epochs or epoch % self.validate_every == 0


@dataclass(frozen=True)
class Keep:
    """Where and how a run is kept: `save` writes a model folder, `about` describes the run.

    `trackers` get the numbers of every epoch, besides TensorBoard; see `open_trackers`.
    """

    folder: Path
    save: Save
    about: dict[str, Any]
    trackers: tuple[Tracker | str, ...] = ()


class Loop:
    """Trains `parts` on `batches` until `limits`, going on from `position`.

    After each epoch: validation, a row in the record, `last/` and, if it is the best so far,
    `best/`. Ctrl-C ends the step under way, saves, and raises `KeyboardInterrupt`.
    """

    def __init__(
        self,
        parts: Parts,
        batches: Batches,
        *,
        limits: Limits,
        keep: Keep,
        validate: Validate | None = None,
        position: Position | None = None,
    ) -> None:
        self.parts = parts
        self.batches = batches
        self.limits = limits
        self.keep = keep
        self.validate = validate
        self.position = position or Position()
        self._skipped: Counter[str] = Counter()
        self._ap: float | None = None
        self._ap50: float | None = None
        self._began = self._before = self._saved = 0.0
        self._asked = self._late = self._due = self._over = self._searched = False

    def run(self, display: Display) -> Position:
        """Train to the end of the limits; returns how far it came."""
        self._began = self._saved = time.monotonic()
        self._before = self.position.seconds
        record = self._open_record() if self._main else None
        with Interrupt() as interrupt, closing(record) if record else nullcontext():
            while self.position.epoch < self.limits.epochs:
                terms = self._train_epoch(display, interrupt)
                if not self._asked:
                    self._finish_epoch(terms, record)
                    self._look(interrupt)
                if self._asked and self.position.epoch < self.limits.epochs:
                    self._save_last()
                    log.warning(self._how_to_resume())
                    raise KeyboardInterrupt(self._how_to_resume())
                if self._late:
                    log.info("time is up after %d steps", self.position.step)
                    break
                if self._over:
                    log.info("stopped early: %s", self._why_over)
                    break
        return self.position

    def _train_epoch(self, display: Display, interrupt: Interrupt) -> dict[str, float]:
        """Steps to the end of the epoch, of the time, or until interrupted; means of the terms."""
        self.parts.model.train()
        means = Means()
        self._skipped.clear()
        self._searched = False
        batches = self.batches.epoch(self.position.epoch, self.position.batch)
        for step in steps(batches, self.parts.arithmetic.accumulate):
            with memory_told(self.position.step + 1, step, self.keep.folder / "last"):
                losses, skipped = train_step(self.parts, step)
            self.position.batch += len(step)
            self.position.step += 1
            if skipped is None or skipped.searching:
                means.add(losses)
            if skipped is not None:
                self._count(skipped)
            display.step(self._moment(losses.total.item()))
            self._look(interrupt)
            if self._asked or self._late:
                break
            if self._due and self.position.batch < len(self.batches):
                self._save_last()
        self._check_any_step()
        return means.all()

    def _finish_epoch(self, terms: dict[str, float], record: Record | None) -> None:
        """Validate, write the row, save `last` and perhaps `best`."""
        epoch, at_end = self.position.epoch + 1, self.position.batch >= len(self.batches)
        terms = mean_over_processes(self.parts.accelerator, terms)
        due = self.limits.validates(epoch, late=self._late)
        scores = self._validated() if due else None
        self.position.seconds = self._before + time.monotonic() - self._began
        if at_end:
            self.position.epoch, self.position.batch = epoch, 0
        if record is not None:
            row = build_row(
                terms,
                scores,
                epoch=epoch,
                step=self.position.step,
                seconds=self.position.seconds,
                lr=float(self.parts.schedule.get_last_lr()[0]),
                skipped=self._skipped.total(),
            )
            with clearly(self.keep.folder):
                record.add(row, terms)
            log.info(_summary(epoch, row.loss, scores, self._skipped))
        self._say(note_loss(self.position, terms.get("total", math.nan)))
        if scores is not None:
            self._ap50 = scores.ap50
            self._keep_best(scores.ap)
        self._save_last()

    def _validated(self) -> "CocoScores | None":
        """Scores of the model to use; training goes on as if nobody had looked."""
        scores = None
        if self.validate is not None:
            device = self.parts.accelerator.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                scores = self.validate(self.parts.best)
        self.parts.accelerator.wait_for_everyone()
        return scores

    def _keep_best(self, ap: float) -> None:
        """Save the model as the best if it is, and say what the validations suggest."""
        self._ap = ap
        if note_score(self.position, ap):
            with clearly(self.keep.folder / "best"):
                self.keep.save(self.parts.best, self.keep.folder / "best")
        self._say(advice(self.position))

    def _save_last(self) -> None:
        """The model to use and, beside it, all that is needed to go on."""
        self.position.seconds = self._before + time.monotonic() - self._began
        snapshot = state.take(self.parts, self.position, self.keep.about)
        if self._main:
            last = self.keep.folder / "last"
            with clearly(last):
                self.keep.save(self.parts.best, last)
                state.write(snapshot, last / state.STATE)
        self.parts.accelerator.wait_for_everyone()
        self._saved = time.monotonic()

    def _count(self, skipped: Skipped) -> None:
        if not self._skipped[skipped.reason]:
            level = logging.INFO if skipped.searching else logging.WARNING
            log.log(level, "step %d skipped: %s", self.position.step, skipped.reason)
        self._skipped[skipped.reason] += 1
        self._searched |= skipped.searching

    def _check_any_step(self) -> None:
        steps = math.ceil(len(self.batches) / self.parts.arithmetic.accumulate)
        if self._skipped.total() >= max(steps, 1) and not self._searched:
            reason, _ = self._skipped.most_common(1)[0]
            coarse = self.parts.arithmetic.precision != "fp32"
            raise TrainingError(
                f"every step of epoch {self.position.epoch + 1} was skipped because {reason}; "
                "lower the learning rate (--set train.lr=...)"
                + " or train with --set train.precision=fp32"
                * coarse
            )

    def _open_record(self) -> Record:
        """The files of the run and its trackers, which are told the recipe."""
        folder = self.keep.folder
        settings = flat(self.keep.about["recipe"])
        trackers = open_trackers(self.keep.trackers, folder, settings)
        return Record(folder, self.position.epoch, trackers=trackers)

    def _moment(self, loss: float) -> Moment:
        return Moment(
            epoch=self.position.epoch + 1,
            epochs=self.limits.epochs,
            batch=self.position.batch,
            batches=len(self.batches),
            loss=loss,
            ap=self._ap,
            most=self._seconds_given - (time.monotonic() - self._began),
        )

    @property
    def _seconds_given(self) -> float:
        return math.inf if self.limits.minutes is None else 60 * self.limits.minutes

    def _how_to_resume(self) -> str:
        stopped = f"stopped in epoch {self.position.epoch + 1} after step {self.position.step}"
        if self.limits.enough is not None:
            return f"{stopped}; this test begins anew, with another --out"
        return (
            f"{stopped}, saved in {self.keep.folder / 'last'}; to go on, repeat the command with "
            "--resume"
        )

    def _look(self, interrupt: Interrupt) -> None:
        """Note, on every process alike, whether to stop or to save."""
        now = time.monotonic()
        late = now - self._began >= self._seconds_given
        due = now - self._saved >= 60 * self.limits.save_minutes
        over = self._why_over is not None  # only the first process knows
        self._asked, self._late, self._due, self._over = anywhere(
            self.parts.accelerator, interrupt.asked, late, due, over
        )

    @property
    def _why_over(self) -> str | None:
        """Why the validations end the run, if they do."""
        patience, enough = self.limits.patience, self.limits.enough
        if patience is not None and self.position.stale >= patience:
            return f"no better AP for {self.position.stale} validations"
        if enough is not None and self._ap50 is not None and self._ap50 >= enough:
            return f"AP50 is {self._ap50:.2f}"
        return None

    def _say(self, warning: str | None) -> None:
        if warning is not None and self._main:
            log.warning(warning)

    @property
    def _main(self) -> bool:
        return self.parts.accelerator.is_main_process


def _summary(epoch: int, loss: float, scores: "CocoScores | None", skipped: Counter[str]) -> str:
    """One line about an epoch."""
    text = f"epoch {epoch}: loss {loss:.3f}"
    if scores is not None:
        text += f", AP {100 * scores.ap:.1f}, AP50 {100 * scores.ap50:.1f}"
    if skipped:
        counts = "; ".join(f"{count} because {reason}" for reason, count in skipped.most_common())
        text += f", {skipped.total()} steps skipped ({counts})"
    return text
