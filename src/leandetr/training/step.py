"""One training step: forward, loss, backward, clip, update, average; nothing hidden.

A step may learn from several batches in turn, whose gradients add up: what one large batch would
have given, but for batch norms, which see each batch by itself. In float16 losses are scaled up
before they go backward, or small gradients would be zero; a scale that turns out too large for
large ones costs a step, and is halved.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from leandetr.data.loader import Batch
from leandetr.models.detector import Detector
from leandetr.training.criterion import Criterion, Losses, Share, average_boxes

if TYPE_CHECKING:
    from accelerate import Accelerator


LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, by the precision of a recipe; in fp32 there is none."""

SMALLEST_SCALE = 1.0
"""Scale of the loss from which on a gradient that is not finite is the model's own fault."""


@dataclass(frozen=True)
class Arithmetic:
    """How a step computes: `clip` is the largest gradient norm (0: any).

    It learns from `accumulate` batches. Matching, losses, weights and their updates are float32
    whatever the `precision` (fp32, bf16, fp16).
    """

    clip: float = 0.1
    precision: str = "fp32"
    accumulate: int = 1


@dataclass(frozen=True)
class Skipped:
    """Why a step changed nothing: `what` was not finite.

    With `searching`, since the loss was scaled up too far; the next scale is half of that.
    """

    what: str
    searching: bool = False

    @property
    def reason(self) -> str:
        """The same in words."""
        too_far = "the loss was scaled up too far for float16"
        return too_far if self.searching else f"{self.what} was not finite"


@dataclass(frozen=True)
class Parts:
    """Everything that a step uses or changes.

    `model` is the bare one, which is saved; `wrapped` is the same as Accelerate prepared it for
    several processes, which is run. The `scaler` of losses does nothing unless it is enabled.
    """

    model: Detector
    wrapped: nn.Module
    criterion: Criterion
    optimiser: Optimizer
    schedule: LRScheduler
    ema: AveragedModel | None
    accelerator: "Accelerator"
    arithmetic: Arithmetic
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))

    @property
    def best(self) -> Detector:
        """The model to validate and save: the averaged one where there is one."""
        return self.model if self.ema is None else cast(Detector, self.ema.module)


def train_step(parts: Parts, batches: Sequence[Batch]) -> tuple[Losses, Skipped | None]:
    """Learn from batches as if they were one; why not, if nothing was learned.

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
            losses, bad = learn(parts, batch, Share(held, len(batch) / images))
        if bad is not None:
            parts.optimiser.zero_grad()
            return losses, Skipped(bad)
        found.append(losses)
    skipped = update(parts)
    return (found[0] if len(found) == 1 else Losses.joined(found)), skipped


def learn(parts: Parts, batch: Batch, share: Share) -> tuple[Losses, str | None]:
    """Add the gradients of a batch to those that are there, unless a loss is not finite."""
    lower = LOWER.get(parts.arithmetic.precision)
    with torch.autocast(parts.accelerator.device.type, lower, enabled=lower is not None):
        outputs = parts.wrapped(batch.images, batch.targets)
    losses = parts.criterion(outputs, batch.targets, share)
    bad = losses.first_bad()
    if any(anywhere(parts.accelerator, bad is not None)):
        return losses, bad or "another process"
    parts.accelerator.backward(parts.scaler.scale(losses.total))
    return losses, None


def update(parts: Parts) -> Skipped | None:
    """Change the weights by their gradients, or say which gradient forbids it."""
    parts.scaler.unscale_(parts.optimiser)
    named = [(name, p.grad) for name, p in parts.model.named_parameters() if p.grad is not None]
    norm = get_total_norm([grad for _, grad in named])
    skipped = None
    if bool(norm.isfinite()):
        limit = parts.arithmetic.clip or math.inf
        clip_grads_with_norm_(parts.model.parameters(), limit, norm)
        parts.scaler.step(parts.optimiser)
        parts.schedule.step()
        parts.scaler.update()
    else:
        skipped = Skipped(f"the gradient of {_nearest_bad(named)}", _halve(parts.scaler))
    parts.optimiser.zero_grad()
    if skipped is None and parts.ema is not None:
        parts.ema.update_parameters(parts.model)
    return skipped


def _halve(scaler: GradScaler) -> bool:
    """Take a smaller scale after a gradient that was not finite; whether there was one to take."""
    if not scaler.is_enabled():
        return False
    before = scaler.get_scale()
    scaler.update()
    if scaler.get_scale() < SMALLEST_SCALE:
        scaler.update(SMALLEST_SCALE)
    return scaler.get_scale() < before


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
