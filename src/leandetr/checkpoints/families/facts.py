"""What the keys of a checkpoint tell, what its arguments tell, and what must be assumed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from leandetr.checkpoints.templates import pattern
from leandetr.errors import CheckpointMismatch

Value = TypeVar("Value", bool, int, float, str)

HEADS = 8
"""Heads of every released model of the family."""

STAR = 0.9
"""Mean cosine between offsets and the rays of their heads above which they are seen to agree."""


@dataclass(frozen=True)
class Names:
    """Where a layout keeps what all detectors have; the defaults are the papers' repositories.

    `maps` are the weights of the neck's convolutions, `levels` the level embedding, `table` the
    learned queries, `encoder` and `decoder` the attention to tokens within a layer of each, `wide`
    the first linear layer of a feed-forward block.
    """

    backbone: str = "backbone.0.body"
    maps: tuple[str, ...] = ("input_proj.{i}.0.weight",)
    levels: str = "transformer.level_embed"
    table: str = "query_embed.weight"
    encoder: str = "self_attn"
    decoder: str = "cross_attn"
    wide: str = "linear1"


@dataclass(frozen=True)
class Facts:
    """A state dict under its official names, and what is found out about it.

    `args` are the arguments of its training script, `choices` what a person has decided (recipe
    paths to values). `assumed` says, for each recipe path, what was taken without proof and why.
    """

    state: Mapping[str, Tensor]
    args: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)
    names: Names = Names()

    def under(self, names: Names) -> "Facts":
        """The same facts for another layout; what is found out later is shared."""
        return replace(self, names=names)

    def keys(self, template: str) -> list[str]:
        """All keys that fit; `{i}` stands for one part of a key, `{rest}` for several."""
        known = pattern(template)
        return [key for key in self.state if known.fullmatch(key)]

    def has(self, *templates: str) -> bool:
        """Whether there is a key for every one of the templates."""
        return all(any(map(pattern(template).fullmatch, self.state)) for template in templates)

    def shape(self, *templates: str) -> tuple[int, ...]:
        """The shape of the first key that fits. Raises `CheckpointMismatch` if there is none."""
        for template in templates:
            for key in self.keys(template):
                return tuple(self.state[key].shape)
        raise CheckpointMismatch(
            f"expected a key like {' or '.join(templates)}, and there is none; "
            "is this the whole checkpoint?"
        )

    def rows(self, *templates: str) -> int:
        """The first side of the first key that fits."""
        return self.shape(*templates)[0]

    def count(self, template: str) -> int:
        """How many different numbers stand at the place of `{i}`."""
        found = map(pattern(template).fullmatch, self.state)
        return len({match.group("i") for match in found if match})

    def equal(self, first: str, second: str) -> bool:
        """Whether two keys hold the same numbers."""
        return torch.equal(self.state[first], self.state[second])

    def told(self, argument: str, default: Value) -> Value:
        """What the arguments say, or else the default; for what changes no prediction."""
        value = self._argument(argument, default)
        return default if value is None else value

    def asked(self, path: str, argument: str, default: Value, why: str) -> Value:
        """What a person chose, or the arguments say, or else the default, which is then assumed.

        `path` is where it stands in the recipe, `why` says what keys cannot tell.
        """
        if path in self.choices:
            return self.choices[path]
        value = self._argument(argument, default)
        if value is None:
            self.assumed[path] = f"{path}={str(default).lower()} is assumed: {why}"
            return default
        return value

    def _argument(self, name: str, like: Value) -> Value | None:
        """An argument, if it is there and of the right kind; a whole number may be a float."""
        value = self.args.get(name)
        if isinstance(like, float) and type(value) is int:
            return float(value)
        return value if type(value) is type(like) else None

    def heads(self, path: str, *, offsets: str | None = None) -> int:
        """Heads of attention: chosen, told, seen in the bias of the sampling offsets, or 8.

        Offsets start as a star with one ray a head, and learn slowly: trained ones still show it.
        """
        chosen = [self.choices[path]] if path in self.choices else []
        told = [self.args[name] for name in ("nheads", "num_heads") if name in self.args]
        seen = [_rays(self.state[key]) for key in self.keys(offsets)[:1]] if offsets else []
        for number in (*chosen, *told, *seen):
            if type(number) is int:
                return number
        self.assumed[path] = f"{path}={HEADS} is assumed: keys do not tell the number of heads"
        return HEADS


def _rays(bias: Tensor) -> int | None:
    """The number of heads whose star the offsets still resemble."""
    found: dict[float, int] = {}
    for heads in (1, 2, 4, 8, 16, 32):
        if not bias.is_meta and bias.numel() % (2 * heads) == 0:
            angles = torch.arange(heads) * (2 * math.pi / heads)
            rays = torch.stack((angles.cos(), angles.sin()), dim=-1)[:, None]
            steps = bias.float().reshape(heads, -1, 2)
            found[torch.cosine_similarity(steps, rays, dim=-1).mean().item()] = heads
    best = max(found, default=0.0)
    return found[best] if best > STAR else None
