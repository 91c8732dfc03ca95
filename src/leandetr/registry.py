"""Names of parts: a public name maps to the frozen config dataclass that builds the part."""

import difflib
import logging
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from leandetr.errors import RecipeError

Config = TypeVar("Config", bound=type)
logger = logging.getLogger(__name__)


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


def a_share(config: object, path: str, *names: str) -> None:
    """Raise `RecipeError` unless these numbers of a config lie in 0..1; `path` is its place."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise RecipeError(
                f"expected {path}.{name} from 0 to 1; got {getattr(config, name)}; "
                f"type {path}.{name}=0.1, say"
            )


class Registry:
    """One kind of part (`encoders`, `decoders`, ...) by name.

    Names are unique: registering one twice raises `RecipeError`. With `entry_points`, installed
    packages that declare parts under this group are imported at the first look-up; one that fails
    is warned of once, and told again to whoever asks for its part.
    """

    def __init__(self, kind: str, *, entry_points: str | None = None) -> None:
        self.kind = kind
        self._configs: dict[str, type] = {}
        self._group = entry_points
        self._broken: dict[str, str] = {}

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
        self._import_installed()
        if name in self._configs:
            return self._configs[name]
        if name in self._broken:
            raise RecipeError(self._broken[name])
        raise RecipeError(f"no {self.kind} '{name}'; {did_you_mean(name, self._configs)}")

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
        self._import_installed()
        return sorted(self._configs)

    def _import_installed(self) -> None:
        """Import what installed packages declare, once."""
        group, self._group = self._group, None
        for entry in entry_points(group=group) if group else ():
            problem = self._import(entry)
            if problem is not None:
                self._broken[entry.name] = problem
                logger.warning(problem)

    def _import(self, entry: EntryPoint) -> str | None:
        """Import one declared part; what went wrong is a sentence, for the others still work."""
        package = entry.dist.name if entry.dist else entry.value
        asked = f"{self.kind} '{entry.name}' of the package {package}"
        try:
            entry.load()
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            return (
                f"{asked} cannot be imported ({type(error).__name__}: {error}); "
                f"update it, or type: pip uninstall {package}"
            )
        if entry.name not in self._configs:
            return (
                f"{asked} registers nothing under this name; {entry.value} should decorate its "
                f"config with register('{entry.name}')"
            )
        return None
