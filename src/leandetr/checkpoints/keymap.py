"""Official key names to ours and back: every key is used once, every parameter is filled once.

Keys are matched by templates: `{i}` stands for one dotted part, `{rest}` for everything that
follows. The same template reads a checkpoint and writes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from leandetr.checkpoints.templates import Renaming, pattern, renamed
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
    known = [(rule, pair) for rule in rules for pair in _from_official(rule)]
    renaming = Renaming(pair for _, pair in known)
    for key, value in official.items():
        number, name = renaming.first(key) or (None, "")
        rule = None if number is None else known[number][0]
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
    known = [rule for rule in rules if isinstance(rule, Rename | Fuse)]
    renaming = Renaming((rule.ours, _targets(rule)[0]) for rule in known)
    for key, value in ours.items():
        found = renaming.first(key)
        if found is None:
            raise CheckpointMismatch(f"no official name for {key}")
        official |= _named(key, value, known[found[0]])
    for rule in rules:
        if isinstance(rule, Alias):
            copies = Renaming([(rule.of, rule.official)]).all(list(official))
            official |= {copy: official[source] for source, copy in copies.items()}
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


def _from_official(rule: Rule) -> list[tuple[str, str]]:
    """Templates of official keys that a rule decides on, and where each leads."""
    match rule:
        case Rename(official, ours):
            return [(official, ours)]
        case Alias(official, of):
            return [(official, of)]
        case Drop(official, _):
            return [(official, "")]
        case Fuse(officials, ours):
            return [(official, ours) for official in officials]
        case Implied():
            return []


def _with_implied(official: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """All official keys, with those that were left out; the first rule that finds one decides."""
    whole = dict(official)
    for rule in rules:
        if isinstance(rule, Implied):
            copies = Renaming([(rule.of, rule.official)]).all(list(whole))
            whole = {copy: whole[source] for source, copy in copies.items()} | whole
    return whole


def _targets(rule: Rename | Fuse) -> tuple[str, ...]:
    """The official templates that one of our parameters goes to."""
    return (rule.official,) if isinstance(rule, Rename) else rule.officials


def _named(key: str, value: Tensor, rule: Rename | Fuse) -> dict[str, Tensor]:
    """Our tensor under the official names that a rule gives it."""
    names = [str(renamed(key, rule.ours, official)) for official in _targets(rule)]
    if len(names) == 1:
        return {names[0]: value}
    return {name: part.clone() for name, part in zip(names, value.chunk(len(names)), strict=True)}


def _siblings(key: str, rule: Fuse) -> list[str]:
    """All official keys that go where `key` goes, in order."""
    mine = next(one for one in rule.officials if pattern(one).fullmatch(key))
    return [str(renamed(key, mine, official)) for official in rule.officials]


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
