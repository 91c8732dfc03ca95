"""Checkpoints of every golden model with the right keys and shapes, that take no memory.

Only keys and shapes are read: no number of the official code is proven by them.
"""

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from golden_data import cases, golden_root

MODELS = [
    *cases("detr/r50*", "conditional_detr/r50*", "deformable_detr/r50*", "h_deformable_detr/r50*"),
    *cases("sparse_detr/r50*", "focus_detr/focus_r50_*", "dino/dino_*", "lite_detr/lite_dino_*"),
]
"""Golden cases of whole models."""


@cache
def described(name: str) -> dict[str, Any]:
    """The json of a golden case. Skips where only the repository's subset is there without it."""
    path = golden_root() / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} is not in the repository's subset of the golden data")
    return json.loads(path.read_text(encoding="utf-8"))


def shaped(name: str) -> dict[str, Tensor]:
    """The official state dict of a case with one number a tensor; tied keys have the same."""
    shapes, tied = described(name)["key_shapes"], described(name).get("tied") or {}
    number = {key: float(index) for index, key in enumerate(shapes)}
    return {
        key: torch.tensor(number[tied.get(key, key)]).expand(shape) for key, shape in shapes.items()
    }


def arguments(name: str) -> dict[str, Any]:
    """What the training script was told."""
    return described(name).get("args") or described(name)["hyper_parameters"]
