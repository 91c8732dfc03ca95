"""Backbones of other libraries: `timm:NAME`, and `hf:NAME` for AutoBackbone of transformers.

Whatever gives feature maps at strides of 4, 8, 16 or 32 pixels for images of any size can stand in
for our own backbones: `--set backbone=timm:convnext_tiny`. Images are normalised like those of all
backbones here (`preprocess` in the recipe).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import MissingExtra, NetworkUnavailable, RecipeError
from leandetr.models.backbones.base import backbones, check_outputs, with_padding
from leandetr.types import FeatureMaps, Images

STRIDES = (4, 8, 16, 32)
"""Pixels a cell; `outputs` of a config are indices of these."""

SIDE = 128
"""Pixels a side of the image on which a model is tried out, without memory or arithmetic."""

PUBLISHED = (None, "pretrained", "imagenet")
"""What `weights` may be; "imagenet", the word of our own backbones, means the same here."""


def _check(config: "TimmConfig | HubConfig", example: str) -> None:
    if not config.name:
        raise RecipeError(f"expected the name of a model; type backbone={example}, say")
    check_outputs(config.outputs, len(STRIDES))
    if config.weights not in PUBLISHED:
        raise RecipeError(
            f"no weights '{config.weights}' are known for {config.architecture}; type "
            "backbone.weights=pretrained for those published under its name, or none"
        )


@backbones.register("timm")
@dataclass(frozen=True)
class TimmConfig:
    """A model of timm by its name there, such as `convnext_tiny`; all of it is trained.

    `outputs`: indices of the strides 4, 8, 16 and 32 to return. `weights`: "pretrained" for those
    that timm publishes under the name (`resnet50.a1_in1k` names one of several), or None.
    """

    name: str
    outputs: tuple[int, ...] = (1, 2, 3)
    weights: str | None = None

    def __post_init__(self) -> None:
        _check(self, "timm:resnet18")

    @property
    def architecture(self) -> str:
        """`timm:convnext_tiny` and so on."""
        return f"timm:{self.name}"

    def build(self) -> nn.Module:
        """The backbone, with random weights. Raises `RecipeError`, `MissingExtra`."""
        options = self._options()
        sketch = self._create(options)
        maps = sketch(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
        backbone = TimmBackbone(self._create(options, device="cpu"))
        _freeze(backbone.model, _unused(sketch, maps))
        return backbone

    def load_weights(self, backbone: nn.Module) -> str:
        """Fill what `build` returned with timm's weights. Raises `NetworkUnavailable`."""
        try:
            trained = self._create(self._options(), device="cpu", pretrained=True)
        except OSError as error:
            raise _unreachable(self.architecture, error) from error
        backbone.get_submodule("model").load_state_dict(trained.state_dict())
        return f"timm's weights of {self.name}"

    def _options(self) -> dict[str, Any]:
        """What timm must be told: which maps, and that images are of any size."""
        sketch = self._create({})
        fixed = (getattr(sketch, "pretrained_cfg", None) or {}).get("fixed_input_size")
        strides = [info["reduction"] for info in sketch.feature_info.info]
        chosen = choose(strides, self.outputs, self.architecture)
        return {"out_indices": chosen} | ({"dynamic_img_size": True} if fixed else {})

    def _create(
        self, options: dict[str, Any], *, device: str = "meta", pretrained: bool = False
    ) -> Any:
        timm = _timm(self.architecture)
        try:
            with torch.device(device):
                return timm.create_model(
                    self.name, features_only=True, pretrained=pretrained, **options
                )
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            near = ", ".join(timm.list_models(f"*{self.name.split('.')[0]}*")[:5])
            raise RecipeError(
                f"timm cannot make feature maps of '{self.name}' ({_line(error)}); "
                f"{f'near names: {near}' if near else 'timm.list_models() lists all names'}"
            ) from error


class TimmBackbone(nn.Module):
    """The feature maps that a timm model gives; `channels` are theirs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.channels = tuple(model.feature_info.channels())
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first, each with the image's padding at its own size."""
        maps = self.model(images.pixels)
        if self.channels_last:
            maps = [rearrange(level, "n h w c -> n c h w").contiguous() for level in maps]
        return with_padding(maps, images)


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
        _check(self, "hf:microsoft/resnet-18")

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
        _freeze(backbone.model, _unused(sketch, maps))
        return backbone

    def load_weights(self, backbone: nn.Module) -> str:
        """Fill what `build` returned with the published weights. Raises `NetworkUnavailable`."""
        model = backbone.get_submodule("model")
        try:  # not AutoBackbone, which asks the hub even for a folder
            trained = type(model).from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
                self.name, config=self._config(), dtype=torch.float32
            )
        except OSError as error:
            raise _unreachable(self.architecture, error, self._by_hand) from error
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
            raise _unreachable(self.architecture, error, self._by_hand) from error
        except ValueError as error:
            raise RecipeError(f"{self.architecture}: {_line(error)}") from error
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
                f"transformers cannot make feature maps of '{self.name}' ({_line(error)}); choose "
                "a model with a backbone, such as backbone=hf:microsoft/resnet-18"
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


def _unused(sketch: nn.Module, maps: Sequence[Float[Tensor, "..."]]) -> list[str]:
    """Names of parameters on which the maps do not depend: later stages, class tokens."""
    torch.stack([level.sum() for level in maps]).sum().backward()
    return [name for name, parameter in sketch.named_parameters() if parameter.grad is None]


def _freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Do not train what nothing depends on: several processes would wait for its gradient."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)


def _timm(architecture: str) -> ModuleType:
    """The module timm."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra(f"the backbone {architecture}", "timm", "timm") from error
    except (RuntimeError, OSError) as error:  # a torchvision that was built for another torch
        raise RecipeError(
            f"timm is installed but cannot be imported ({_line(error)}); install torch and "
            "torchvision of one release for the same device"
        ) from error
    return timm


def _transformers(architecture: str) -> ModuleType:
    """The module transformers."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            f"the backbone {architecture}", "transformers", "transformers"
        ) from error
    return transformers


def _unreachable(architecture: str, error: OSError, folder: str = "") -> NetworkUnavailable:
    return NetworkUnavailable(
        f"cannot get {architecture} ({_line(error)}); check the name and the network{folder}"
    )


def _line(error: Exception) -> str:
    """The first line of what another library says."""
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".;:")
