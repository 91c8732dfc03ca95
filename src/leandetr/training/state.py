"""What a run needs to go on exactly where it stopped: one file, written whole or not at all."""

import pickle
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError

from leandetr.errors import CheckpointError, TrainingError
from leandetr.files import whole
from leandetr.training.step import Parts

VERSION = 2

STATE = "state.pt"
"""The file in `last/` that a run goes on from."""

STOPPED_SHORT = ("inline_container", "iostream", "writ")
"""What is in the message of a `RuntimeError` by which `torch.save` gives up on a file."""


@dataclass
class Position:
    """How far a run has come: `batch` batches into epoch `epoch`, both from 0."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    """Best AP of any validation so far, in 0..1."""
    validations: int = 0
    stale: int = 0
    """Validations since the best."""
    lowest_loss: float | None = None
    """Lowest mean loss of an epoch so far."""


@dataclass(frozen=True)
class Snapshot:
    """A run as it is stored: tensors and plain values only, so that loading it runs no code.

    `random` holds the random state of every process by its number.
    """

    about: dict[str, Any]
    position: Position
    parts: dict[str, Any] = field(default_factory=dict)
    random: dict[int, dict[str, Any]] = field(default_factory=dict)


def take(parts: Parts, position: Position, about: dict[str, Any]) -> Snapshot:
    """A snapshot of a run; `about` is what must be the same when it goes on.

    All processes have to ask for it at the same time.
    """
    stored = {
        "model": parts.model.state_dict(),
        "optimiser": parts.optimiser.state_dict(),
        "schedule": parts.schedule.state_dict(),
        "ema": None if parts.ema is None else parts.ema.state_dict(),
        "scaler": parts.scaler.state_dict(),  # empty unless it is enabled
    }
    return Snapshot(about, position, stored, _random_states(parts))


def restore(snapshot: Snapshot, parts: Parts) -> None:
    """Put weights, optimiser, schedule, average, scale of the loss and random state back.

    There have to be as many processes as there were.
    """
    parts.model.load_state_dict(snapshot.parts["model"])
    parts.optimiser.load_state_dict(snapshot.parts["optimiser"])
    parts.schedule.load_state_dict(snapshot.parts["schedule"])
    if parts.ema is not None and snapshot.parts["ema"] is not None:
        parts.ema.load_state_dict(snapshot.parts["ema"])
    if snapshot.parts.get("scaler"):
        parts.scaler.load_state_dict(snapshot.parts["scaler"])
    _set_random_state(snapshot.random[parts.accelerator.process_index])


def write(snapshot: Snapshot, path: Path) -> None:
    """Store a snapshot; an interruption leaves the former file or the new one, never a part.

    Raises `OSError` if there is no room for all of it.
    """
    content = {
        "version": VERSION,
        "about": snapshot.about,
        "position": asdict(snapshot.position),
        "parts": snapshot.parts,
        "random": snapshot.random,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:
            if not any(sign in str(error) for sign in STOPPED_SHORT):
                raise
            said = f"only a part of {path.name} could be written, as on a full disk"
            raise OSError(said) from error


@contextmanager
def clearly(folder: Path) -> Iterator[None]:
    """Turns what a full or failing disk says into a `TrainingError` with the way out."""
    try:
        yield
    except (OSError, CheckpointError) as error:
        cause = error.__cause__ if isinstance(error, CheckpointError) else error
        if not isinstance(cause, OSError | SafetensorError):
            raise
        raise TrainingError(
            f"{folder}: expected to write a checkpoint or its record, but {error}; the checkpoint "
            "before is whole: make room, and go on by repeating the command with --resume"
        ) from error


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into `folder` left behind."""
    for partial in folder.glob(".*.partial"):
        number = partial.name.split(".")[-2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            partial.unlink(missing_ok=True)


def require(path: Path) -> None:
    """Raise `CheckpointError` unless there is a file at `path`."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no run to go on with; train without --resume, "
            "or name the folder of a run"
        )


def read(path: Path) -> Snapshot:
    """The snapshot stored at `path`, on the CPU. Raises `CheckpointError` if there is none."""
    require(path)
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not the state of a training run, or damaged")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["version"] != VERSION:
            raise CheckpointError(
                f"{path}: expected state version {VERSION}, got {content['version']}; "
                f"start a new run from its weights with --weights {path.parent}"
            )
        position = Position(**content["position"])
        return Snapshot(content["about"], position, content["parts"], content["random"])
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not the state of a training run ({error})") from error


def _random_states(parts: Parts) -> dict[int, dict[str, Any]]:
    """The random state of each process."""
    if parts.accelerator.num_processes == 1:
        return {0: _random_state()}
    from accelerate.utils import gather_object

    return dict(enumerate(gather_object([_random_state()])))


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - whatever an augmentation may use
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
