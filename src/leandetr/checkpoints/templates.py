"""Templates of keys: `{i}` stands for one dotted part, `{rest}` for everything that follows."""

import re
from collections.abc import Iterable
from functools import cache


@cache
def pattern(template: str) -> re.Pattern[str]:
    """`{rest}` matches anything, any other `{name}` one part; a name used twice matches itself."""
    text, seen = "", set()
    for piece in re.split(r"(\{\w+\})", template):
        if not piece.startswith("{"):
            text += re.escape(piece)
            continue
        name = piece[1:-1]
        body = ".+" if name == "rest" else r"[^.]+"
        text += f"(?P={name})" if name in seen else f"(?P<{name}>{body})"
        seen.add(name)
    return re.compile(text)


class Renaming:
    """Pairs of templates, tried in order: a key that fits the first is written like the second.

    There are as many pairs as hundreds of keys are asked for, so a key is compared with a pattern
    only where it begins alike.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [
            (template.partition("{")[0], pattern(template), target) for template, target in pairs
        ]

    def first(self, key: str) -> tuple[int, str] | None:
        """Which pair knows the key, and the name it leads to; None if there is none."""
        for number, (begin, known, target) in enumerate(self._pairs):
            if key.startswith(begin):
                found = known.fullmatch(key)
                if found:
                    return number, target.format(**found.groupdict())
        return None

    def all(self, keys: Iterable[str]) -> dict[str, str]:
        """Each of the keys that a pair knows, and the name it leads to."""
        found = ((key, self.first(key)) for key in keys)
        return {key: name[1] for key, name in found if name is not None}


def renamed(key: str, template: str, target: str) -> str | None:
    """The key written like `target`, if it fits the template."""
    found = pattern(template).fullmatch(key)
    return target.format(**found.groupdict()) if found else None
