"""A JSON list of objects read column by column, with every complaint naming file, id and field."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float, Int

from leandetr.data.findings import Log
from leandetr.errors import DataError


def read_object(path: Path) -> dict:
    """The JSON object in a file. Raises `DataError` with line and column of a mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a COCO annotation file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: is not UTF-8 text (byte {error.start}), expected COCO JSON"
        ) from None
    if not text.strip():
        raise DataError(f"{path.name}: is empty at line 1 column 1, expected a COCO object {{...}}")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}: broken JSON at line {error.lineno} column {error.colno}: {error.msg}; "
            "the file may be truncated"
        ) from None
    except (ValueError, RecursionError) as error:  # absurd numbers or nesting
        raise DataError(f"{path.name}: JSON cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path.name}: expected a COCO object {{...}} at line 1 column 1, "
            f"got a {type(value).__name__}"
        )
    return value


@dataclass(frozen=True)
class Table:
    """Rows under one key of an annotation file; `what` names one row ("annotation").

    `start` is the place of the first row in the file.
    """

    file: str
    what: str
    rows: Sequence[dict]
    start: int = 0

    @staticmethod
    def of(file: str, value: dict, key: str, what: str) -> "Table":
        """The rows under `key`. Raises `DataError` unless it holds a list of objects."""
        if key not in value:
            raise DataError(f'{file}: has no "{key}" key, expected a list of {what} objects')
        rows = value[key]
        if not isinstance(rows, list):
            raise DataError(f'{file}: "{key}" should be a list, got {_short(rows)}')
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(
                    f'{file}: "{key}" entry {index} should be an object, got {_short(row)}'
                )
        return Table(file, what, rows)

    def fail(self, index: int, field: str, expected: str) -> NoReturn:
        """Raise `DataError` about one field of one row."""
        raise DataError(self.complaint(index, field, expected))

    def complaint(self, index: int, field: str, expected: str) -> str:
        """The sentence about one field of one row."""
        row = self.rows[index]
        got = _short(row[field]) if field in row else "nothing"
        return f'{self.file}: {self.name(index)}: field "{field}": expected {expected}, got {got}'

    def name(self, index: int) -> str:
        """How messages call a row: by id, or by position where it has none."""
        row = self.rows[index]
        return (
            f"{self.what} {row['id']}" if "id" in row else f"{self.what} entry {self.start + index}"
        )

    def sound(self, check: Callable[["Table"], object], log: Log, kind: str) -> "Table":
        """The rows that pass `check`, which raises `DataError` for tables with a row that does not.

        Bad rows are found by halving, so few of them among many cost little.
        """
        return replace(self, rows=list(self._passing(check, log, kind)), start=0)

    def _passing(self, check: Callable[["Table"], object], log: Log, kind: str) -> Iterator[dict]:
        try:
            check(self)
        except DataError as error:
            if log.how.strict:
                raise
            if len(self.rows) == 1:
                log.refuse(kind, f"{self.what} entries that cannot be used", str(error))
                return
            middle = len(self.rows) // 2
            halves = (self.rows[:middle], self.start), (self.rows[middle:], self.start + middle)
            for rows, start in halves:
                yield from replace(self, rows=rows, start=start)._passing(check, log, kind)
            return
        yield from self.rows

    def texts(self, field: str) -> list[str]:
        """A column of non-empty strings."""
        values = [row.get(field) for row in self.rows]
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value.strip():
                self.fail(index, field, "text")
        return values  # type: ignore[return-value]

    def whole(self, field: str, default: int | None = None) -> Int[np.ndarray, " R"]:
        """A column of whole numbers; 3.0 counts as 3, and `default` stands for a missing value."""
        values = [row.get(field, default) for row in self.rows]
        if not all(type(value) is int for value in values):
            values = [self._as_int(index, field, value) for index, value in enumerate(values)]
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            index = next(i for i, value in enumerate(values) if abs(value) >= 2**63)
            self.fail(index, field, "a whole number below 2**63")

    def _as_int(self, index: int, field: str, value: object) -> int:
        flag = isinstance(value, bool) and field == "iscrowd"
        if isinstance(value, int) and (flag or not isinstance(value, bool)):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return self.fail(index, field, "a whole number")

    def unique(self, field: str, values: Sequence, log: Log, kind: str) -> list[int]:
        """Indices of the rows that are the first to have their value of `field`."""
        seen: dict[object, int] = {}
        for index, value in enumerate(values):
            first = seen.setdefault(value, index)
            if first != index:
                expected = f"a value of its own, not that of entry {first}"
                what = f'{self.what} entries whose "{field}" is taken'
                log.refuse(kind, what, self.complaint(index, field, expected))
        return list(seen.values())

    def numbers(self, field: str, default: float) -> Float[np.ndarray, " R"]:
        """A column of numbers, NaN allowed; `default` stands for a missing value."""
        values = [row.get(field, default) for row in self.rows]
        for index, value in enumerate(values):
            if type(value) not in (int, float):
                self.fail(index, field, "a number")
        return np.array(values, dtype=np.float64)

    def boxes(self, field: str) -> Float[np.ndarray, "R 4"]:
        """A column of boxes: four finite numbers each."""
        values = [row.get(field) for row in self.rows]
        for index, value in enumerate(values):
            if type(value) is not list or len(value) != 4:
                self.fail(index, field, "four numbers x, y, width, height")
            for number in value:
                if type(number) is not float and type(number) is not int:
                    self.fail(index, field, "four numbers x, y, width, height")
        boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
        finite = np.isfinite(boxes).all(axis=1)
        if not finite.all():
            self.fail(int(np.flatnonzero(~finite)[0]), field, "finite numbers")
        return boxes


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
