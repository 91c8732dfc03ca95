"""What is noticed while annotations are read: errors that stop training, repairs, and notes.

A `Log` is strict or not: a strict one raises at the first error, which training wants; the other
collects all of them, which `doctor` and `convert` want.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from leandetr.errors import DataError

Level = Literal["error", "warning", "note"]
"""error: training stops, or its scores would be wrong; warning: it goes on; note: good to know."""

SHOWN = 5
"""How many places a finding names; the rest is a number."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing, how often it was met, and the first places.

    `kind` is a short name that scripts can rely on, `what` says it in words.
    """

    kind: str
    level: Level
    source: str
    what: str
    count: int
    places: tuple[str, ...] = ()
    advice: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one line, without the advice."""
        more = ", ..." if len(self.places) < self.count and self.places else ""
        where = f" ({', '.join(self.places)}{more})" if self.places else ""
        return f"{self.source}: {self.what}: {self.count}{where}"


def unwatched(items: Sequence[Any]) -> Iterator[Any]:
    """The elements, without a progress bar."""
    return iter(items)


@dataclass(frozen=True)
class How:
    """How to read.

    Strict reading raises `DataError` at the first thing that leaves the author's meaning in doubt.
    With `skip_missing`, images that are missing or unreadable are a warning. `watch` is handed
    every long list of files and yields its elements: a place for a progress bar.
    """

    strict: bool = True
    skip_missing: bool = False
    watch: Callable[[Sequence[Any]], Iterable[Any]] = unwatched


@dataclass(frozen=True)
class Log:
    """Findings about one source, one entry a kind."""

    source: str
    how: How = How()
    found: dict[str, Finding] = field(default_factory=dict)

    def refuse(self, kind: str, what: str, sentence: str, advice: str = "") -> None:
        """An error; `sentence` says all about this one case. Raises `DataError` when strict."""
        if self.how.strict:
            raise DataError(sentence)
        self._add(Finding(kind, "error", self.source, what, 1, (sentence,), advice))

    def repair(self, kind: str, what: str, count: int, places: Sequence[str] = ()) -> None:
        """Something was repaired or left out, `count` times; `places` are the first of them."""
        if count:
            self._add(Finding(kind, "warning", self.source, what, count, tuple(places)))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order in which they were first met."""
        return tuple(self.found.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences of the warnings."""
        return tuple(one.sentence for one in self.found.values() if one.level == "warning")

    def _add(self, new: Finding) -> None:
        old = self.found.get(new.kind)
        if old is not None:
            places = (old.places + new.places)[:SHOWN]
            new = replace(old, count=old.count + new.count, places=places)
        self.found[new.kind] = replace(new, places=new.places[:SHOWN])
