from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leandetr.data.loader import Batch
from leandetr.data.sources import load_data
from leandetr.errors import TrainingError
from leandetr.recipes.recipe import Recipe
from leandetr.training import fit, loop, record, run
from leandetr.training.build import build_accelerator
from leandetr.training.fit import Worst, as_before, fit_to_memory
from leandetr.training.memory import is_out_of_memory
from leandetr.training.run import train


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "write_preview", lambda images, path: path.touch())
    monkeypatch.setattr(record, "_draw", lambda *arguments: True)


def fitted(recipe: Recipe, pictures: Path) -> Recipe:
    return fit_to_memory(recipe, load_data(pictures, "train"), build_accelerator())


def failing_above(most: int, tried: list[int]) -> Callable[..., Any]:
    """A step that runs out of memory with more images than `most`."""

    def step(parts: Any, worst: Worst, images: int) -> None:
        tried.append(images)
        if images > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    return step


def test_smaller_batches_are_tried_until_one_fits(
    tiny: Recipe,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[int] = []
    monkeypatch.setattr(fit, "_measured", fit._tried)
    monkeypatch.setattr(fit, "_step", failing_above(2, tried))
    with caplog.at_level("INFO", "leandetr"):
        found = fitted(tiny.with_train(batch=1, accumulate=4), pictures).train
    assert tried == [4, 2, 2]  # a second step has the optimiser's averages, too
    assert (found.batch, found.accumulate) == (2, 2)
    assert "train.batch: 1 -> 2, train.accumulate: 4 -> 2, and a step learns from 4" in caplog.text
    monkeypatch.setattr(fit, "_step", failing_above(0, tried))
    with pytest.raises(TrainingError, match=r"at least one image of 32 x 40 .*recompute=true"):
        fitted(tiny.with_train(batch=1), pictures)


def test_another_error_of_a_trial_is_not_hidden(
    tiny: Recipe, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(fit, "_measured", fit._tried)
    monkeypatch.setattr(fit, "_step", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fitted(tiny, pictures)


def test_on_a_processor_it_is_reckoned_from_what_is_measured(
    tiny: Recipe, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, device = tiny.with_train(ema=0.9), torch.device("cpu")
    worst = Worst.of(recipe, load_data(pictures, "train"))
    assert worst == Worst((32, 40), 2)
    parts = fit._trial(recipe, device)
    fit._step(parts, worst, 1)
    weights = sum(p.nbytes for p in parts.model.parameters())
    resting = sum(tensor.nbytes for tensor in fit._lasting(parts))
    assert 4 * weights <= resting < 4.5 * weights  # themselves, an average, and Adam's two
    one, two, three = (
        fit.peak_memory(lambda n=n: fit._step(parts, worst, n), device) for n in (1, 2, 3)
    )
    assert 0 < one < two
    assert two + (two - one) == pytest.approx(three, rel=0.1)
    peaks = iter((one, two))
    monkeypatch.setattr(fit, "peak_memory", lambda call, device: next(peaks))
    room = resting + fit.OVERHEAD * (two + (two - one))  # for three, not for four
    monkeypatch.setattr(fit, "free_memory", lambda device: room / fit.SHARE[1])
    assert fitted(recipe.with_train(batch=8), pictures).train.batch == 2


def test_a_run_with_smaller_batches_goes_on_with_them(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda device: 0)
    short = ["train.epochs=1"]
    out = train(tiny, pictures, tmp_path / "run", overrides=short, fit_memory=True)
    before = as_before(tiny, out).train
    assert (before.batch, before.accumulate) == (1, 2)
    monkeypatch.setattr(run, "fit_to_memory", None)  # is not asked again
    train(tiny, pictures, out, resume=True, fit_memory=True)
    assert [row.step for row in record.read_rows(out / "metrics.csv")] == [3, 6]
    assert as_before(tiny.with_train(batch=16), out).train.batch == 16


def test_running_out_of_memory_in_a_step_tells_the_ways_out(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, taken = loop.train_step, []

    def step(parts: Any, batches: list[Batch]) -> Any:
        taken.append(1)
        if len(taken) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.")
        return original(parts, batches)

    monkeypatch.setattr(loop, "train_step", step)
    told = (
        r"step 3: expected enough memory for a batch of 2 images, 32 x 40 pixels with padding, up "
        r"to 2 boxes in one, but DefaultCPUAllocator.* --fit-memory .*last is whole: --resume"
    )
    with pytest.raises(TrainingError, match=told):
        train(tiny, pictures, tmp_path / "run")
    train(tiny, pictures, tmp_path / "run", resume=True)
    assert [row.step for row in record.read_rows(tmp_path / "run" / "metrics.csv")] == [2, 4]


def test_what_allocators_say_is_known() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] not enough memory: you tried to allocate"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
