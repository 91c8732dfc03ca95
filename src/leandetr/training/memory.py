"""Out of memory in the middle of a step: told with what was too much, and what to type instead."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from leandetr.data.loader import Batch
from leandetr.errors import TrainingError

SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""What is in the message of a `RuntimeError` by which an allocator gives up."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on a GPU or beside it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def memory_told(step: int, batches: Sequence[Batch], last: Path) -> Iterator[None]:
    """Turns running out of memory in a step into a `TrainingError` with the ways out.

    `last` is where the run is kept; it is not touched.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        kept = "nothing was saved yet"
        if last.exists():
            kept = (
                f"{last} is whole: --resume goes on from it with train.recompute=true, and "
                f"--weights {last} begins a new run with anything else"
            )
        raise TrainingError(
            f"step {step}: expected enough memory for {_said(batches)}, but {_first_line(error)}. "
            "To need less, add --fit-memory (smaller batches, the same images a step), "
            "--set train.recompute=true, --set train.precision=bf16, or smaller images with "
            f"--set preprocess.short=...; {kept}"
        ) from error


def _said(batches: Sequence[Batch]) -> str:
    """The largest of some batches, in words."""
    batch = max(batches, key=lambda one: one.images.pixels.numel())
    height, width = batch.images.pixels.shape[-2:]
    boxes = max(len(target.labels) for one in batches for target in one.targets)
    count = len(batch)
    return (
        f"a batch of {count} image{'s' * (count != 1)}, {height} x {width} pixels with padding, "
        f"up to {boxes} boxes in one"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
