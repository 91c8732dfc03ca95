"""Names of parts: a public name maps to the frozen config dataclass that builds the part."""

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from leandetr.errors import RecipeError

Config = TypeVar("Config", bound=type)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause with the near names, or with all of them when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names) if names else 'none'}"


def at_least_one(config: object, path: str, *names: str) -> None:
    """Raise `RecipeError` unless these counts of a config are positive; `path` is its place."""
    for name in names:
        if getattr(config, name) < 1:
            raise RecipeError(
                f"expected {path}.{name} of at least 1; got {getattr(config, name)}; "
                f"type {path}.{name}=1 or more"
            )


class Registry:
    """One kind of part (`encoders`, `decoders`, ...) by name.

    Names are unique: registering one twice raises `RecipeError`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._configs: dict[str, type] = {}

    def register(self, name: str) -> Callable[[Config], Config]:
        """Decorate a config dataclass: `@encoders.register("lite")`."""

        def add(config: Config) -> Config:
            if name in self._configs:
                raise RecipeError(
                    f"{self.kind} '{name}' is already registered by "
                    f"{self._configs[name].__qualname__}; choose another name"
                )
            self._configs[name] = config
            return config

        return add

    def get(self, name: str) -> type:
        """The config class called `name`. Raises `RecipeError` naming the near ones."""
        if name not in self._configs:
            raise RecipeError(f"no {self.kind} '{name}'; {did_you_mean(name, self._configs)}")
        return self._configs[name]

    def name_of(self, config: type) -> str:
        """The registered name of a config class. Raises `RecipeError` if it has none."""
        for name, known in self._configs.items():
            if known is config:
                return name
        raise RecipeError(
            f"{config.__qualname__} is not registered; decorate it with @{self.kind}.register(name)"
        )

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._configs)
