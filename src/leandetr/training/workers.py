"""What goes wrong in other processes of a run, in one sentence of this one."""

from collections.abc import Iterator
from contextlib import contextmanager

from leandetr.data.workers import reading_told
from leandetr.errors import TrainingError

NO_ANSWER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
"""In the message of a `RuntimeError`, where a process is gone that learns together with this."""

GO_ON = "the last checkpoint is whole, and --resume goes on from it"
FEWER = f"add --set train.workers=0, or fewer than there are; {GO_ON}"


@contextmanager
def workers_told() -> Iterator[None]:
    """Says in words what became of processes that read images, or learn together with this one.

    Raises `DataError` naming the file or the reading process, or `TrainingError`.
    """
    with reading_told(FEWER):
        try:
            yield
        except RuntimeError as error:
            if not any(sign in str(error) for sign in NO_ANSWER):
                raise
            raise TrainingError(
                "expected an answer of the other processes of this run, but one has ended: its "
                f"own message says why; {GO_ON}"
            ) from error
