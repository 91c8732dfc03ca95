"""The optimiser and learning-rate schedules of the papers: AdamW with factors by part."""

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from leandetr.errors import RecipeError
from leandetr.registry import did_you_mean

DROP = 0.1
"""What a step of the `steps` schedule multiplies the learning rate by."""

COSINE_END = 0.01
"""Share of the learning rate at which the `cosine` schedule ends."""


def build_optimiser(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    factors: Sequence[tuple[str, float]] = (),
) -> AdamW:
    """AdamW over all trainable parameters; a name that starts with a prefix has its factor of lr.

    A `*` in a prefix stands for anything. Of several that fit, the longest counts. Raises
    `RecipeError` for a prefix that no parameter starts with.
    """
    for prefix, _ in factors:
        if not any(_starts(name, prefix) for name, _ in model.named_parameters()):
            parts = {name.split(".")[0] for name, _ in model.named_parameters()}
            raise RecipeError(
                f"train.lr_factors: no parameter starts with '{prefix}'; "
                f"{did_you_mean(prefix, parts)}"
            )
    ordered = sorted(factors, key=lambda pair: -len(pair[0]))
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ("", *dict(ordered))}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            home = next((prefix for prefix, _ in ordered if _starts(name, prefix)), "")
            groups[home].append(parameter)
    scale = {"": 1.0, **dict(ordered)}
    return AdamW(
        [
            {"params": parameters, "lr": lr * scale[prefix], "name": prefix or "rest"}
            for prefix, parameters in groups.items()
            if parameters
        ],
        lr=lr,
        weight_decay=weight_decay,
        fused=True,  # one pass over the weights instead of ten
    )


def _starts(name: str, prefix: str) -> bool:
    return fnmatchcase(name, f"{prefix}*")


def steps_factor(drops: Sequence[int], steps_per_epoch: int) -> Callable[[int], float]:
    """Factor of the learning rate at an optimiser step: times `DROP` from each epoch of `drops` on.

    Epochs count from 0, so `drops=(11,)` lowers the rate for the twelfth.
    """
    return lambda step: DROP ** sum(step >= drop * steps_per_epoch for drop in drops)


def cosine_factor(total: int) -> Callable[[int], float]:
    """Factor of the learning rate at an optimiser step: half a cosine from 1 to `COSINE_END`."""

    def factor(step: int) -> float:
        done = min(step / max(total, 1), 1.0)
        return COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2

    return factor


def build_schedule(
    optimiser: Optimizer,
    *,
    kind: str,
    epochs: int,
    steps_per_epoch: int,
    drops: Sequence[int] = (),
    warmup: int = 0,
) -> LambdaLR:
    """The schedule called `kind` ("steps" or "cosine"), to be stepped after every optimiser step.

    The first `warmup` steps rise in a straight line from 1/warmup of the rate, on top of it.
    """
    if kind == "steps":
        factor = steps_factor(drops, steps_per_epoch)
    elif kind == "cosine":
        factor = cosine_factor(epochs * steps_per_epoch)
    else:
        raise RecipeError(f"train.schedule is '{kind}'; {did_you_mean(kind, ('steps', 'cosine'))}")
    rise = max(warmup, 1)
    return LambdaLR(optimiser, lambda step: min((step + 1) / rise, 1.0) * factor(step))
