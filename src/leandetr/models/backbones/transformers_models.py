"""Backbones of transformers, by its AutoBackbone: `hf:NAME`."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from leandetr.errors import MissingExtra, RecipeError
from leandetr.models.backbones.adapters import (
    SIDE,
    check_adapter,
    choose,
    first_line,
    freeze,
    unreachable,
    unused,
)
from leandetr.models.backbones.base import backbones, with_padding
from leandetr.types import FeatureMaps, Images


@backbones.register("hf")
@dataclass(frozen=True)
class HubConfig:
    """A model of transformers with an AutoBackbone: its name on the hub, or a folder.

    Building reads the model's `config.json`, from the hub the first time. `outputs`: indices of the
    strides 4, 8, 16 and 32 to return; where several stages have a stride, the last of them is
    taken. `weights`: "pretrained" for those published with the name, or None.
    """

    name: str
    outputs: tuple[int, ...] = (1, 2, 3)
    weights: str | None = None

    def __post_init__(self) -> None:
        check_adapter(self, "hf:microsoft/resnet-18")

    @property
    def architecture(self) -> str:
        """`hf:microsoft/resnet-18` and so on."""
        return f"hf:{self.name}"

    def build(self) -> nn.Module:
        """The backbone, with random weights. Raises `RecipeError`, `MissingExtra`.

        Raises `NetworkUnavailable` where the model's configuration cannot be had.
        """
        config = self._config()
        sketch = self._create(config, "meta")
        maps = sketch(torch.zeros(1, 3, SIDE, SIDE, device="meta")).feature_maps
        backbone = HubBackbone(
            self._create(config, "cpu"), channels=tuple(level.shape[1] for level in maps)
        )
        freeze(backbone.model, unused(sketch, maps))
        return backbone

    def load_weights(self, backbone: nn.Module) -> str:
        """Fill what `build` returned with the published weights. Raises `NetworkUnavailable`."""
        model = backbone.get_submodule("model")
        try:  # not AutoBackbone, which asks the hub even for a folder
            trained = type(model).from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
                self.name, config=self._config(), dtype=torch.float32
            )
        except OSError as error:
            raise unreachable(self.architecture, error, self._by_hand) from error
        model.load_state_dict(trained.state_dict())
        return f"weights of {self.name}, as published for transformers"

    @property
    def _by_hand(self) -> str:
        return (
            f", or fetch config.json and model.safetensors of https://huggingface.co/{self.name} "
            "by hand into a folder and type backbone=hf:FOLDER"
        )

    def _config(self) -> Any:
        """The model's own configuration, with the stages that `outputs` asks for."""
        transformers = _transformers(self.architecture)
        try:
            config = transformers.AutoConfig.from_pretrained(self.name)
        except OSError as error:
            raise unreachable(self.architecture, error, self._by_hand) from error
        except ValueError as error:
            raise RecipeError(f"{self.architecture}: {first_line(error)}") from error
        stages = getattr(config, "stage_names", None)
        if not stages:
            raise RecipeError(
                f"{self.architecture} gives no feature maps; choose a model with a backbone, such "
                "as backbone=hf:microsoft/resnet-18"
            )
        config.out_features = list(stages)
        every = self._create(config, "meta")(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
        strides = [round(SIDE / level.shape[-1]) for level in every.feature_maps]
        chosen = choose(strides, self.outputs, self.architecture)
        config.out_features = [stages[index] for index in chosen]
        return config

    def _create(self, config: Any, device: str) -> Any:
        transformers = _transformers(self.architecture)
        try:
            with torch.device(device):
                return transformers.AutoBackbone.from_config(config, dtype=torch.float32)
        except (ValueError, TypeError) as error:
            raise RecipeError(
                f"transformers cannot make feature maps of '{self.name}' ({first_line(error)}); "
                "choose a model with a backbone, such as backbone=hf:microsoft/resnet-18"
            ) from error


class HubBackbone(nn.Module):
    """The feature maps that a backbone of transformers gives; `channels` are theirs."""

    def __init__(self, model: Any, *, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.channels = channels

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first, each with the image's padding at its own size."""
        return with_padding(self.model(images.pixels).feature_maps, images)


def _transformers(architecture: str) -> ModuleType:
    """The module transformers."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            f"the backbone {architecture}", "transformers", "transformers"
        ) from error
    return transformers
