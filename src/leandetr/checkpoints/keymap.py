"""Official key names to ours and back: every key is used once, every parameter is filled once.

Keys are matched by templates: `{i}` stands for one dotted part, `{rest}` for everything that
follows. The same template reads a checkpoint and writes one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from leandetr.errors import CheckpointMismatch

SHOWN = 5
"""How many keys of each side an error lists."""


@dataclass(frozen=True)
class Rename:
    """One official key is one of our parameters."""

    official: str
    ours: str


@dataclass(frozen=True)
class Alias:
    """An official key repeats another: modules that share weights are stored many times."""

    official: str
    of: str


@dataclass(frozen=True)
class Drop:
    """An official key that has no use here, and why."""

    official: str
    reason: str


@dataclass(frozen=True)
class Fuse:
    """Several official tensors of one shape are the parts of one of ours, stacked in this order."""

    officials: tuple[str, ...]
    ours: str


@dataclass(frozen=True)
class Implied:
    """An official key that may be left out, for it repeats another; it is then put back."""

    official: str
    of: str


Rule = Rename | Alias | Drop | Fuse | Implied


@dataclass(frozen=True)
class Converted:
    """A state dict under our names, and the official keys left out with their reasons."""

    state: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)


def to_ours(official: Mapping[str, Tensor], rules: Sequence[Rule]) -> Converted:
    """Rename a whole official state dict; the first rule that matches a key decides.

    Raises `CheckpointMismatch` for keys that no rule knows, for two keys that claim one parameter,
    for an alias whose values differ from what it repeats, and for a part whose others are missing
    or of another shape.
    """
    official = _with_implied(official, rules)
    converted = Converted({})
    unknown = []
    parts: dict[str, list[str]] = {}
    for key, value in official.items():
        rule, name = _first(key, rules)
        match rule:
            case Rename():
                if name in converted.state:
                    raise CheckpointMismatch(f"two official keys fill {name}; one is {key}")
                converted.state[name] = value
            case Alias():
                _check_alias(official, key, name)
            case Drop(_, reason):
                converted.dropped[key] = reason
            case Fuse():
                parts[name] = _siblings(key, rule)
            case None:
                unknown.append(key)
    _stack_parts(official, parts, converted.state)
    if unknown:
        raise CheckpointMismatch(f"{len(unknown)} official keys are not known: {_some(unknown)}")
    return converted


def to_official(ours: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Rename our state dict to the official keys, aliases included; dropped keys do not return.

    Raises `CheckpointMismatch` for a parameter that no rule names.
    """
    official: dict[str, Tensor] = {}
    for key, value in ours.items():
        named = next(filter(None, (_named(key, value, rule) for rule in rules)), None)
        if named is None:
            raise CheckpointMismatch(f"no official name for {key}")
        official |= named
    repeats = [(rule.of, rule.official) for rule in rules if isinstance(rule, Alias)]
    for source, copy in repeats:
        for key in list(official):
            name = _rename(key, [(source, copy)])
            if name is not None:
                official[name] = official[key]
    return official


def fill(model: nn.Module, official: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, str]:
    """Load an official state dict strictly into `model`; returns the dropped keys with reasons.

    Raises `CheckpointMismatch` listing both sides: keys the model lacks, parameters left unfilled,
    shapes that differ.
    """
    converted = to_ours(official, rules)
    wanted = model.state_dict()
    check_fits(wanted, converted.state)
    with torch.no_grad():
        model.load_state_dict(converted.state)
    return converted.dropped


def check_fits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointMismatch` unless both have the same keys with the same shapes."""
    problems = {
        "missing": [key for key in wanted if key not in given],
        "not in the model": [key for key in given if key not in wanted],
        "other shapes": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in wanted.items()
            if key in given and given[key].shape != tensor.shape
        ],
    }
    listed = [f"{what}: {_some(keys)}" for what, keys in problems.items() if keys]
    if listed:
        raise CheckpointMismatch(f"weights and model differ; {'; '.join(listed)}")


def _first(key: str, rules: Iterable[Rule]) -> tuple[Rule | None, str]:
    """The first rule that knows `key`, and the name it leads to."""
    for rule in rules:
        match rule:
            case Rename(official, ours):
                name = _rename(key, [(official, ours)])
            case Alias(official, of):
                name = _rename(key, [(official, of)])
            case Drop(official, _):
                name = _rename(key, [(official, "")])
            case Fuse(officials, ours):
                name = _rename(key, [(official, ours) for official in officials])
            case Implied():
                name = None
        if name is not None:
            return rule, name
    return None, ""


def _with_implied(official: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """All official keys, with those that were left out; the first rule that finds one decides."""
    whole = dict(official)
    for rule in rules:
        if isinstance(rule, Implied):
            for key in list(whole):
                name = _rename(key, [(rule.of, rule.official)])
                if name is not None:
                    whole.setdefault(name, whole[key])
    return whole


def _named(key: str, value: Tensor, rule: Rule) -> dict[str, Tensor]:
    """Our tensor under the official names that a rule gives it; empty if it gives none."""
    match rule:
        case Rename(official, ours):
            name = _rename(key, [(ours, official)])
            return {} if name is None else {name: value}
        case Fuse(officials, ours) if _rename(key, [(ours, "")]) is not None:
            parts = value.chunk(len(officials))
            names = [str(_rename(key, [(ours, official)])) for official in officials]
            return {name: part.clone() for name, part in zip(names, parts, strict=True)}
    return {}


def _siblings(key: str, rule: Fuse) -> list[str]:
    """All official keys that go where `key` goes, in order."""
    mine = [official for official in rule.officials if _rename(key, [(official, "")]) is not None]
    return [str(_rename(key, [(mine[0], official)])) for official in rule.officials]


def _stack_parts(
    official: Mapping[str, Tensor], parts: Mapping[str, Sequence[str]], state: dict[str, Tensor]
) -> None:
    """Add each of our parameters that is made of several official keys."""
    for name, keys in parts.items():
        if name in state:
            raise CheckpointMismatch(f"two official keys fill {name}; one is {keys[0]}")
        missing = [key for key in keys if key not in official]
        if missing:
            raise CheckpointMismatch(f"{name} has {len(keys)} parts, missing: {_some(missing)}")
        shapes = [tuple(official[key].shape) for key in keys]
        if len(set(shapes)) > 1:
            raise CheckpointMismatch(
                f"the parts of {name} differ in shape: {', '.join(map(str, shapes))}"
            )
        state[name] = torch.cat([official[key] for key in keys])


def _rename(key: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for template, target in pairs:
        found = pattern(template).fullmatch(key)
        if found:
            return target.format(**found.groupdict())
    return None


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


def _check_alias(official: Mapping[str, Tensor], key: str, source: str) -> None:
    if source not in official:
        raise CheckpointMismatch(f"{key} repeats {source}, which is not there")
    if not torch.equal(official[key], official[source]):
        raise CheckpointMismatch(
            f"{key} and {source} differ, though the model shares them; "
            "was it trained with separate heads? type --set model.shared_heads=false"
        )


def _some(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
