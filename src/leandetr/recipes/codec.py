"""Recipes as dictionaries and YAML, and `a.b=c` overrides; every value is type-checked."""

import math
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Union

import yaml

from leandetr.errors import RecipeError
from leandetr.recipes.recipe import REGISTRY, ModelRecipe, Recipe
from leandetr.registry import Registry, did_you_mean

TYPE = "type"
"""Key under which a part's registered name is written."""


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain dicts, lists and scalars; the inverse of `from_dict`."""
    return _plain(recipe)


def from_dict(values: dict[str, Any]) -> Recipe:
    """The recipe that `to_dict` wrote. Raises `RecipeError` naming the path of what is wrong."""
    return _dataclass(Recipe, values, "recipe")


def dump_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def load_yaml(text: str) -> Recipe:
    """The recipe in YAML text. Raises `RecipeError` when it is not one."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"expected a recipe in YAML; {' '.join(str(error).split())}") from error
    return _dataclass(Recipe, values, "recipe")


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with `path=value` changes: `encoder.blocks=2`, `train.lr=1e-4`, `encoder=lite`.

    `model.` may be left out. A part that is exchanged by its registered name keeps the settings
    that it shares with the one before (`encoder=lite` keeps heads, points, hidden); written as a
    mapping, `encoder={type: lite}`, it has its own defaults. Raises `RecipeError` with the near
    paths for an unknown path, and with the expected type for a wrong value.
    """
    values = to_dict(recipe)
    for change in changes:
        path, separator, text = change.partition("=")
        if not separator:
            raise RecipeError(f"expected path=value, such as train.epochs=3; got '{change}'")
        path = path.strip().removesuffix(f".{TYPE}")  # the type of a part is the part
        value = _scalar(text.strip(), change)
        before = _assign(values, path, value)
        if isinstance(before, dict) and TYPE in before:
            values = to_dict(from_dict(values))  # another part brings its own settings
            if isinstance(value, str):
                part = _assign(values, path, before)
                shared = {key: before[key] for key in part if key in before and key != TYPE}
                _assign(values, path, part | shared)
    return from_dict(values)


def paths(recipe: Recipe) -> list[str]:
    """Every path that `override` takes for this recipe."""
    return _leaves(to_dict(recipe), "")


def _plain(value: Any, registry: Registry | None = None) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        head = {TYPE: registry.name_of(type(value))} if registry else {}
        return head | {
            item.name: _plain(getattr(value, item.name), item.metadata.get(REGISTRY))
            for item in fields(value)
        }
    if isinstance(value, tuple | list):
        return [_plain(item, registry) for item in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass(kind: type, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping, got {values!r}")
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if name not in known:
            raise RecipeError(f"{path}: no field '{name}'; {did_you_mean(str(name), known)}")
    required = {item.name for item in fields(kind) if _is_required(item)}
    if required - values.keys():
        missing = ", ".join(item for item in known if item in required - values.keys())
        raise RecipeError(f"{path}: expected also {missing}")
    arguments = {
        name: _value(
            _hints(kind)[name], known[name].metadata.get(REGISTRY), value, _below(path, name)
        )
        for name, value in values.items()
    }
    return kind(**arguments)


def _is_required(item: Field) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _value(hint: Any, registry: Registry | None, value: Any, path: str) -> Any:
    if registry is None:
        return _typed(hint, value, path)
    if typing.get_origin(hint) is tuple:
        items = _sequence(value, path)
        return tuple(_part(registry, item, f"{path}[{i}]") for i, item in enumerate(items))
    return _part(registry, value, path)


def _part(registry: Registry, value: Any, path: str) -> Any:
    if isinstance(value, str):
        value = {TYPE: value}
    if not isinstance(value, dict) or TYPE not in value:
        raise RecipeError(
            f"{path}: expected the name of a {registry.kind} under '{TYPE}', got {value!r}; "
            f"known: {', '.join(registry.names())}"
        )
    kind, colon, name = str(value[TYPE]).partition(":")  # timm:resnet18 has the name resnet18
    rest = ({"name": name} if colon else {}) | {k: v for k, v in value.items() if k != TYPE}
    return _dataclass(registry.get(kind), rest, path)


def _typed(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), value, path)
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [option for option in typing.get_args(hint) if option is not types.NoneType]
        return None if value is None else _typed(inner[0], value, path)
    if origin is tuple:
        return _tuple(hint, value, path)
    return _number_or_text(hint, value, path)


def _tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    items, kinds = _sequence(value, path), typing.get_args(hint)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(kinds) != len(items):
        raise RecipeError(f"{path}: expected {len(kinds)} values, got {len(items)}")
    return tuple(
        _typed(kind, item, f"{path}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, items, strict=True))
    )


def _sequence(value: Any, path: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{path}: expected a list such as [1, 2], got {value!r}")
    return value


def _number_or_text(hint: Any, value: Any, path: str) -> Any:
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as text
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif type(value) is hint:
        return value
    raise RecipeError(f"{path}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


def _below(path: str, name: str) -> str:
    return name if path == "recipe" else f"{path}.{name}"


def _leaves(values: Any, path: str) -> list[str]:
    """The path itself, and every path below it."""
    inner = values.items() if isinstance(values, dict) else ()
    below = [
        leaf for key, item in inner for leaf in _leaves(item, f"{path}.{key}" if path else key)
    ]
    return ([path] if path else []) + below


def _scalar(text: str, change: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"cannot read the value of '{change}'; quote it") from error


def _assign(values: dict[str, Any], path: str, value: Any) -> Any:
    """Put a value at a path; returns what was there."""
    steps = path.split(".")
    if steps[0] in {item.name for item in fields(ModelRecipe)}:
        steps = ["model", *steps]
    here: Any = values
    for step in steps[:-1]:
        here = here.get(step) if isinstance(here, dict) else None
    if not isinstance(here, dict) or steps[-1] not in here:
        short = [leaf.removeprefix("model.") for leaf in _leaves(values, "")]
        raise RecipeError(f"no setting '{path}'; {_near(path, short)}")
    before, here[steps[-1]] = here[steps[-1]], value
    return before


def _near(path: str, known: list[str]) -> str:
    """The near paths: by the whole path, else those that end in the same word."""
    last = path.rsplit(".", 1)[-1]
    same = [leaf for leaf in known if leaf.rsplit(".", 1)[-1] == last]
    return f"did you mean {' or '.join(same[:3])}?" if same else did_you_mean(path, known)
