"""Writing files that are whole or not there at all, and never over what a user made."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from leandetr.errors import OutputExists


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary sibling to write to, renamed to `path` when the block ends well.

    After an error, or a crash, `path` is what it was before.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON, whole or not at all. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise `OutputExists` naming the paths that are there already, unless `overwrite`."""
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputExists(
            f"expected to write new files, but found {', '.join(there)}; "
            "choose another place for them, or add --overwrite"
        )


def make_room(paths: Iterable[Path]) -> None:
    """Make the folders that files will be written to, before hours of work and not after them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)


class JsonArray:
    """A JSON array written one element a line while the work goes on.

    Leaving the `with` block, also by an error or Ctrl-C, closes the array and renames it to `path`:
    an interrupted run keeps what it had. A killed process leaves `<name>.partial`, whose lines are
    the elements.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._file: TextIO | None = None
        self._started = False

    def __enter__(self) -> "JsonArray":
        self._file = self._partial.open("w", encoding="utf-8", newline="\n")
        self._file.write("[")
        return self

    def extend(self, elements: Iterable[dict[str, Any]]) -> None:
        """Append elements and hand them to the operating system at once."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open; use `with JsonArray(path) as array:`")
        for element in elements:
            text = json.dumps(element, ensure_ascii=False, allow_nan=False)
            self._file.write(f"{',' if self._started else ''}\n{text}")
            self._started = True
        self._file.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        self._file.write("\n]\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)
