import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from leandetr.data.sources import load_data
from leandetr.errors import DataError, TrainingError
from leandetr.images import Preprocess
from leandetr.training.batches import Batches, EpochBatches
from leandetr.training.workers import workers_told


def batches(pictures: Path) -> Batches:
    """Batches of two, made by one other process."""
    from leandetr.data.loader import DetectionSet

    data = DetectionSet(load_data(pictures, "train"), Preprocess(short=32, long=48))
    return Batches(data, EpochBatches(len(data), 2, seed=0), workers=1)


def test_a_file_that_a_worker_cannot_read_is_one_sentence(
    make_split: Callable[..., None], tmp_path: Path
) -> None:
    make_split(tmp_path, "train", 4)
    made = batches(tmp_path)
    for path in (tmp_path / "images" / "train").iterdir():
        path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(DataError) as error, workers_told():
        list(made.epoch(0))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path.name}/train: ")
    assert ".png: cannot be decoded" in str(error.value)


def kill_the_worker(made: Batches) -> None:
    """Take a batch, and end the process that makes the next ones."""
    before = set(multiprocessing.active_children())
    for _ in made.epoch(0):
        for worker in set(multiprocessing.active_children()) - before:
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()


def test_a_worker_that_is_gone_is_told_with_the_way_out(pictures: Path) -> None:
    gone = r"DataLoader worker .*\. They often .*workers=0.*--resume"
    with pytest.raises(DataError, match=gone), workers_told():
        kill_the_worker(batches(pictures))


def test_a_process_of_the_run_that_is_gone_is_told() -> None:
    with pytest.raises(TrainingError, match="its own message says why"), workers_told():
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:8622. GLHF!")


def test_other_errors_are_left_alone() -> None:
    for error in (DataError("a sentence"), RuntimeError("something else")):
        with pytest.raises(type(error)) as raised, workers_told():
            raise error
        assert raised.value is error
