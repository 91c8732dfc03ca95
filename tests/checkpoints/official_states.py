"""Checkpoints of every golden model with the right keys and shapes, that take no memory."""

from typing import Any

import torch
from torch import Tensor

from golden_data import Case


def shaped(case: Case) -> dict[str, Tensor]:
    """The official state dict with one number a tensor; tied keys have the same number."""
    shapes, tied = case.meta["key_shapes"], case.meta.get("tied") or {}
    number = {key: float(index) for index, key in enumerate(shapes)}
    return {
        key: torch.tensor(number[tied.get(key, key)]).expand(shape) for key, shape in shapes.items()
    }


def arguments(case: Case) -> dict[str, Any]:
    """What the training script was told."""
    return case.meta.get("args") or case.meta["hyper_parameters"]
