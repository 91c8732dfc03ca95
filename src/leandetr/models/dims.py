"""Sizes that all parts of one detector agree on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dims:
    """`dim` channels a token, `levels` scales, `classes` kinds of object."""

    dim: int
    levels: int
    classes: int
