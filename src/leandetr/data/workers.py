"""What goes wrong in the processes that read images, in one sentence of this one."""

from collections.abc import Iterator
from contextlib import contextmanager

from leandetr.errors import DataError

HANDED_OVER = "\nOriginal Traceback (most recent call last):"
"""In an error of a worker, as torch hands it to the main process."""

WORKER = "DataLoader worker"
"""In the message of a `RuntimeError` by which torch says that a worker is gone."""


@contextmanager
def reading_told(way_out: str) -> Iterator[None]:
    """Keeps of an error in a worker what it says, and tells the `way_out` if a worker is gone.

    Raises `DataError`, naming the file or what became of the worker.
    """
    try:
        yield
    except DataError as error:
        if HANDED_OVER not in str(error):
            raise
        raise DataError(str(error).rpartition(f"{DataError.__qualname__}: ")[2].strip()) from error
    except RuntimeError as error:
        if WORKER not in str(error):
            raise
        gone = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"expected processes that read images, but {gone}. They often run "
            f"out of memory: {way_out}"
        ) from error
