"""One training step: forward, loss, backward, clip, update, average; nothing hidden.

A step may learn from several batches in turn, whose gradients add up: what one large batch would
have given, but for batch norms, which see each batch by itself.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from leandetr.data.loader import Batch
from leandetr.models.detector import Detector
from leandetr.training.criterion import Criterion, Losses, Share, average_boxes

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Arithmetic:
    """How a step computes: `clip` is the largest gradient norm (0: any), `bf16` turns autocast on.

    It learns from `accumulate` batches. Matching, losses, weights and their updates are float32 in
    any case.
    """

    clip: float = 0.1
    bf16: bool = False
    accumulate: int = 1


@dataclass(frozen=True)
class Parts:
    """Everything that a step uses or changes.

    `model` is the bare one, which is saved; `wrapped` is the same as Accelerate prepared it for
    several processes, which is run.
    """

    model: Detector
    wrapped: nn.Module
    criterion: Criterion
    optimiser: Optimizer
    schedule: LRScheduler
    ema: AveragedModel | None
    accelerator: "Accelerator"
    arithmetic: Arithmetic

    @property
    def best(self) -> Detector:
        """The model to validate and save: the averaged one where there is one."""
        return self.model if self.ema is None else cast(Detector, self.ema.module)


def train_step(parts: Parts, batches: Sequence[Batch]) -> tuple[Losses, str | None]:
    """Learn from batches as if they were one; what was not finite, if nothing was learned.

    Returns the losses of all batches together. A step with a NaN or infinite loss or gradient
    changes no weight, on no process.
    """
    device = parts.accelerator.device
    batches = [batch.to(device) for batch in batches]
    held = average_boxes([target for batch in batches for target in batch.targets])
    images, found = sum(len(batch) for batch in batches), []
    for batch in batches:
        last = len(found) + 1 == len(batches)
        with nullcontext() if last else parts.accelerator.no_sync(parts.wrapped):
            losses, bad = _learn(parts, batch, Share(held, len(batch) / images))
        if bad is not None:
            parts.optimiser.zero_grad()
            return losses, bad
        found.append(losses)
    bad = _update(parts)
    return (found[0] if len(found) == 1 else Losses.joined(found)), bad


def _learn(parts: Parts, batch: Batch, share: Share) -> tuple[Losses, str | None]:
    """Add the gradients of a batch to those that are there, unless a loss is not finite."""
    bf16 = parts.arithmetic.bf16
    with torch.autocast(parts.accelerator.device.type, torch.bfloat16, enabled=bf16):
        outputs = parts.wrapped(batch.images, batch.targets)
    losses = parts.criterion(outputs, batch.targets, share)
    bad = losses.first_bad()
    if any(anywhere(parts.accelerator, bad is not None)):
        return losses, bad or "another process"
    parts.accelerator.backward(losses.total)
    return losses, None


def _update(parts: Parts) -> str | None:
    """Change the weights by their gradients, or say which gradient forbids it."""
    named = [(name, p.grad) for name, p in parts.model.named_parameters() if p.grad is not None]
    norm = get_total_norm([grad for _, grad in named])
    bad = None if bool(norm.isfinite()) else f"the gradient of {_nearest_bad(named)}"
    if bad is None:
        limit = parts.arithmetic.clip or math.inf
        clip_grads_with_norm_(parts.model.parameters(), limit, norm)
        parts.optimiser.step()
        parts.schedule.step()
    parts.optimiser.zero_grad()
    if bad is None and parts.ema is not None:
        parts.ema.update_parameters(parts.model)
    return bad


def _nearest_bad(named: Sequence[tuple[str, Tensor]]) -> str:
    """Of the gradients that are not finite, the one nearest to the loss: where it began."""
    bad = [name for name, grad in named if not bool(grad.isfinite().all())]
    return bad[-1] if bad else "all parameters together"


def anywhere(accelerator: "Accelerator", *flags: bool) -> tuple[bool, ...]:
    """Which of the flags are true on any process; all of them must ask."""
    if accelerator.num_processes == 1:
        return flags
    counts = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    counts = cast(torch.Tensor, accelerator.reduce(counts, reduction="sum"))
    return tuple(count > 0 for count in counts.tolist())
