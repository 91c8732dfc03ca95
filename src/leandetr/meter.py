"""What a person sees of a download: a bar while it runs, a sentence when it is done."""

import contextlib
import logging
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)


def tell(text: str) -> None:
    """Say `text` on the terminal if there is one, else in the log."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        logger.info(text)


@contextlib.contextmanager
def shown(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; the function it gives takes the bytes that came since.

    `start` bytes were there before, `total` is None for a server that does not tell.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.update(task, advance=count)


def megabytes(size: int) -> str:
    """Bytes as a person says them."""
    return f"{size / 1e6:.1f} MB"
