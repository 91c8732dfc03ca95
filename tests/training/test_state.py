import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from leandetr.checkpoints import store
from leandetr.errors import CheckpointError, TrainingError
from leandetr.files import whole
from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe
from leandetr.training import state
from leandetr.training.build import build_parts
from leandetr.training.state import Position
from leandetr.training.step import Parts


def parts(tiny: Recipe) -> Parts:
    torch.manual_seed(0)
    return build_parts(tiny.with_train(ema=0.9), build(tiny), Accelerator(), 5)


def step(some: Parts) -> None:
    """Change weights, optimiser, schedule and average."""
    for parameter in some.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    some.optimiser.step()
    some.schedule.step()
    assert some.ema is not None
    some.ema.update_parameters(some.model)


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002


def test_a_run_comes_back_as_it_was(tiny: Recipe, tmp_path: Path) -> None:
    first, path = parts(tiny), tmp_path / "new" / "state.pt"
    step(first)
    position = Position(epoch=1, batch=2, step=7, seconds=3.0, best=0.5)
    state.write(state.take(first, position, {"names": ["a"]}), path)
    expected = draws()
    second = parts(tiny)
    snapshot = state.read(path)
    state.restore(snapshot, second)
    assert draws() == expected
    assert snapshot.position == position
    assert snapshot.about == {"names": ["a"]}
    step(first)
    step(second)
    for one, other in ((first.model, second.model), (first.ema, second.ema)):
        assert one is not None
        assert other is not None
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_an_interrupted_write_leaves_the_former_state(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, some = tmp_path / "state.pt", parts(tiny)
    state.write(state.take(some, Position(epoch=1), {}), path)

    def broken(content: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        state.write(state.take(some, Position(epoch=2), {}), path)
    assert state.read(path).position.epoch == 1
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]


def test_no_state_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to go on with"):
        state.read(tmp_path / "state.pt")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04rubbish"])
def test_a_damaged_state_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        state.read(path)


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"version": state.VERSION, "about": Path("x")}, path)
    with pytest.raises(CheckpointError, match="not the state of a training run"):
        state.read(path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"version": state.VERSION + 1}, path)
    with pytest.raises(CheckpointError, match="--weights"):
        state.read(path)


def test_a_full_disk_is_told_with_the_way_out(tmp_path: Path) -> None:
    full = pytest.raises(TrainingError, match=r"No space left.*make room.*--resume")
    with full, state.clearly(tmp_path):
        raise OSError(28, "No space left on device")
    with pytest.raises(RuntimeError, match="something else"), state.clearly(tmp_path):
        raise RuntimeError("something else")


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left = tmp_path / f".state.pt.{killed.pid}.partial"
    for one in (path, left):
        one.write_bytes(b"x")
    with whole(path) as mine:  # written at this moment, by a process that lives
        mine.write_bytes(b"new")
        state.sweep(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]
    assert path.read_bytes() == b"new"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: to who writes it, the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("what", ["state", "model"])
def test_the_checkpoint_before_survives_a_disk_that_fills_up(
    what: str, tiny: Recipe, tmp_path: Path
) -> None:
    some = parts(tiny)

    def save() -> None:
        if what == "state":
            state.write(state.take(some, Position(), {}), tmp_path / "state.pt")
        else:
            store.save(some.model, tmp_path)

    some.model.names = tuple(f"class {i}" for i in range(tiny.model.classes))
    save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    step(some)
    full = pytest.raises(TrainingError, match=r"make room.*--resume")
    with full, files_of_at_most(20_000), state.clearly(tmp_path):
        save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
