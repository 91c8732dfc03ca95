"""One training step: forward, loss, backward, clip, update, average; nothing hidden."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from leandetr.data.loader import Batch
from leandetr.models.detector import Detector
from leandetr.training.criterion import Criterion, Losses

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Arithmetic:
    """How a step computes: `clip` is the largest gradient norm (0: any), `bf16` turns autocast on.

    Matching, losses, weights and their updates are float32 in any case.
    """

    clip: float = 0.1
    bf16: bool = False


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


def train_step(parts: Parts, batch: Batch) -> tuple[Losses, str | None]:
    """Learn from one batch; returns its losses, and what was not finite if nothing was learned.

    A step with a NaN or infinite loss or gradient changes no weight, on no process.
    """
    device = parts.accelerator.device
    batch = batch.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=parts.arithmetic.bf16):
        outputs = parts.wrapped(batch.images, batch.targets)
    losses = parts.criterion(outputs, batch.targets)
    bad = losses.first_bad()
    if any(anywhere(parts.accelerator, bad is not None)):
        return losses, bad or "another process"
    parts.accelerator.backward(losses.total)
    limit = parts.arithmetic.clip or math.inf
    norm = parts.accelerator.clip_grad_norm_(parts.wrapped.parameters(), limit)
    if norm is not None and not bool(norm.isfinite()):
        parts.optimiser.zero_grad()
        return losses, "gradient"
    parts.optimiser.step()
    parts.optimiser.zero_grad()
    parts.schedule.step()
    if parts.ema is not None:
        parts.ema.update_parameters(parts.model)
    return losses, None


def anywhere(accelerator: "Accelerator", *flags: bool) -> tuple[bool, ...]:
    """Which of the flags are true on any process; all of them must ask."""
    if accelerator.num_processes == 1:
        return flags
    counts = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    counts = cast(torch.Tensor, accelerator.reduce(counts, reduction="sum"))
    return tuple(count > 0 for count in counts.tolist())
