"""Start from another model's weights: keep every tensor that fits, leave the rest fresh."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Transfer:
    """What became of each tensor of the new model, and what of the old one had no place."""

    kept: tuple[str, ...]
    reshaped: tuple[str, ...]  # "name (old shape) -> (new shape)"
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def table(self) -> str:
        """A line for each kind, with the names of all but the kept ones."""
        lines = [f"{len(self.kept)} tensors kept"]
        for names, what in (
            (self.reshaped, "of another shape, fresh weights instead"),
            (self.fresh, "not in the old model, fresh weights instead"),
            (self.unused, "only in the old model, left out"),
        ):
            if names:
                lines.append(f"{len(names)} {what}:")
                lines += [f"  {name}" for name in names]
        return "\n".join(lines)


@torch.no_grad()
def transfer(old: nn.Module, new: nn.Module) -> Transfer:
    """Copy each parameter and buffer of `old` that has the same name and shape in `new`."""
    source, goal = old.state_dict(), new.state_dict()
    kept, reshaped = [], []
    for name in [name for name in goal if name in source]:
        if source[name].shape == goal[name].shape:
            goal[name].copy_(source[name])
            kept.append(name)
        else:
            reshaped.append(f"{name} {tuple(source[name].shape)} -> {tuple(goal[name].shape)}")
    fresh = tuple(name for name in goal if name not in source)
    unused = tuple(name for name in source if name not in goal)
    return Transfer(tuple(kept), tuple(reshaped), fresh, unused)
