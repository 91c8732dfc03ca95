"""Less memory for more time: what is inside a layer is computed again in the backward pass."""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from leandetr.models.detector import Detector


def recompute_layers(model: Detector) -> int:
    """Let each layer of encoder and decoder keep its inputs only; how many layers do.

    Gradients are the same. To be called after copies of the model were made, such as its average.
    """
    wrapped = 0
    for part in ("encoder", "decoder"):
        for layers in model.get_submodule(part).children():
            for layer in layers if isinstance(layers, nn.ModuleList) else ():
                layer.forward = partial(_forward, layer.forward, layer)
                wrapped += 1
    return wrapped


def _forward(forward: Any, layer: nn.Module, *given: Any, **named: Any) -> Any:
    if layer.training and torch.is_grad_enabled():
        return checkpoint(forward, *given, use_reentrant=False, **named)
    return forward(*given, **named)
