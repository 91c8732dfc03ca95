"""What the course of a run says about it: nothing learned, no longer better, or running away."""

import math

from leandetr.training.state import Position

RUNAWAY = 2.0
"""An epoch's mean loss, as a multiple of the lowest so far, from which a run is running away."""

NOTHING_FOUND = 0.001
"""AP, in 0..1, up to which a model has found nothing."""

EARLY = 5
"""Validations after which a model should have found something."""

STALE = 10
"""Validations without a better one after which it is said, and said again."""


def note_loss(position: Position, loss: float) -> str | None:
    """Remember the mean loss of an epoch; a warning if it is far above the lowest."""
    if math.isnan(loss):
        return None
    lowest = position.lowest_loss
    position.lowest_loss = loss if lowest is None else min(lowest, loss)
    if lowest is None or loss <= RUNAWAY * lowest:
        return None
    return (
        f"the loss is {loss:.3g}, {loss / lowest:.1f} times its lowest ({lowest:.3g}): the run is "
        "diverging; start again with a lower rate (--set train.lr=...) or with train.warmup"
    )


def note_score(position: Position, ap: float) -> bool:
    """Remember the AP of a validation, in 0..1; whether it is the best so far.

    An undefined AP (NaN) never is.
    """
    better = not math.isnan(ap) and (position.best is None or ap > position.best)
    position.validations += 1
    position.stale = 0 if better else position.stale + 1
    if better:
        position.best = ap
    return better


def advice(position: Position) -> str | None:
    """What the validations so far suggest to do, or None."""
    best = position.best or 0.0
    if best <= NOTHING_FOUND and position.validations % EARLY == 0 and position.validations:
        return (
            f"nothing was found in {position.validations} validations: look at the boxes with "
            "leandetr data check, and see whether the model can learn a few images by heart with "
            "--overfit 8"
        )
    if position.stale and position.stale % STALE == 0:
        return (
            f"no better AP for {position.stale} validations (best {100 * best:.1f}); stop with "
            "Ctrl-C, best/ is kept, or let train.patience stop such a run by itself"
        )
    return None
