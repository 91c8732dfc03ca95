"""What goes wrong in other processes of a run, in one sentence of this one."""

from collections.abc import Iterator
from contextlib import contextmanager

from leandetr.errors import DataError, TrainingError

HANDED_OVER = "\nOriginal Traceback (most recent call last):"
"""In an error of a worker, as torch hands it to the main process."""

WORKER = "DataLoader worker"
"""In the message of a `RuntimeError` by which torch says that a worker is gone."""

NO_ANSWER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
"""The same, where a process is gone that learns together with this one."""


@contextmanager
def workers_told() -> Iterator[None]:
    """Keeps of an error in a worker what it says, and tells what to do if a process is gone.

    Raises `DataError` naming the file, or `TrainingError`.
    """
    try:
        yield
    except DataError as error:
        if HANDED_OVER not in str(error):
            raise
        raise DataError(str(error).rpartition(f"{DataError.__qualname__}: ")[2].strip()) from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in NO_ANSWER):
            raise TrainingError(
                "expected an answer of the other processes of this run, but one has ended: its own "
                "message says why; the last checkpoint is whole, and --resume goes on from it"
            ) from error
        if WORKER not in str(error):
            raise
        gone = str(error).splitlines()[0].rstrip(".")
        raise TrainingError(
            f"expected processes that read images, but {gone}. They often run "
            "out of memory: add --set train.workers=0, or fewer than there are; the last "
            "checkpoint is whole, and --resume goes on from it"
        ) from error
