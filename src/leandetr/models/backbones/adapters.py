"""What backbones of other libraries share: which maps are asked for, and what to say if not.

Whatever gives feature maps at strides of 4, 8, 16 or 32 pixels for images of any size can stand in
for our own backbones: `--set backbone=timm:convnext_tiny` (timm_models.py), or `backbone=hf:NAME`
(transformers_models.py). Images are normalised like those of all backbones here (`preprocess` in
the recipe).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import NetworkUnavailable, RecipeError
from leandetr.models.backbones.base import check_outputs

STRIDES = (4, 8, 16, 32)
"""Pixels a cell; `outputs` of a config are indices of these."""

SIDE = 128
"""Pixels a side of the image on which a model is tried out, without memory or arithmetic."""

PUBLISHED = (None, "pretrained", "imagenet")
"""What `weights` may be; "imagenet", the word of our own backbones, means the same here."""


@runtime_checkable
class Adapter(Protocol):
    """The config of a model in another library."""

    @property
    def name(self) -> str:
        """Its name there."""
        ...

    @property
    def outputs(self) -> tuple[int, ...]:
        """Indices of the strides to return."""
        ...

    @property
    def weights(self) -> str | None:
        """One of PUBLISHED."""
        ...

    @property
    def architecture(self) -> str:
        """The word for it in recipes."""
        ...


def check_adapter(config: Adapter, example: str) -> None:
    """Raise `RecipeError` for an adapter that no model can be made from."""
    if not config.name:
        raise RecipeError(f"expected the name of a model; type backbone={example}, say")
    check_outputs(config.outputs, len(STRIDES))
    if config.weights not in PUBLISHED:
        raise RecipeError(
            f"no weights '{config.weights}' are known for {config.architecture}; type "
            "backbone.weights=pretrained for those published under its name, or none"
        )


def choose(strides: Sequence[int], outputs: Sequence[int], architecture: str) -> tuple[int, ...]:
    """Which of a model's maps are the `outputs`: the last of each stride, finest first.

    Raises `RecipeError` with the outputs that the model can give.
    """
    there = {stride: index for index, stride in enumerate(strides)}
    if any(STRIDES[index] not in there for index in outputs):
        possible = [index for index, stride in enumerate(STRIDES) if stride in there]
        advice = f"type backbone.outputs={possible}" if possible else "choose another backbone"
        raise RecipeError(
            f"{architecture} gives maps at strides {sorted(there)}, expected "
            f"{[STRIDES[index] for index in outputs]}; {advice}"
        )
    return tuple(there[STRIDES[index]] for index in outputs)


def unused(sketch: nn.Module, maps: Sequence[Float[Tensor, "..."]]) -> list[str]:
    """Names of parameters on which the maps do not depend: later stages, class tokens."""
    torch.stack([level.sum() for level in maps]).sum().backward()
    return [name for name, parameter in sketch.named_parameters() if parameter.grad is None]


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Do not train what nothing depends on: several processes would wait for its gradient."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)


def unreachable(architecture: str, error: OSError, folder: str = "") -> NetworkUnavailable:
    """The error for a model that another library cannot get; `folder` is one more way out."""
    return NetworkUnavailable(
        f"cannot get {architecture} ({first_line(error)}); check the name and the network{folder}"
    )


def first_line(error: Exception) -> str:
    """The first line of what another library says."""
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".;:")
