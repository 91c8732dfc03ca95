"""A running average of the weights: it detects better than the weights that are being trained."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def warm_decay(decay: float, updates: int) -> float:
    """Decay of the average after `updates` updates: (1 + n) / (10 + n) until that exceeds `decay`.

    So the average of a short run is not made of its random start.
    """
    return min(decay, (1 + updates) / (10 + updates))


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of `model`, equal to it now; `.module` is the averaged model.

    Buffers are averaged too: a batch norm's statistics then fit the averaged weights.
    """

    def average(kept: Tensors, current: Tensors, updates: Tensor | int) -> None:
        get_ema_multi_avg_fn(warm_decay(decay, int(updates)))(kept, current, updates)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema.requires_grad_(False).eval()
