"""Public ImageNet weights of the backbones: fetched once, checked, kept in a cache folder."""

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from leandetr.errors import CheckpointError, CheckpointMismatch, RecipeError
from leandetr.fetch import fetch
from leandetr.models.backbones.base import BackboneConfig, OwnWeights

TORCHVISION = "https://download.pytorch.org/models/"
SWIN = "https://github.com/SwinTransformer/storage/releases/download/"


@dataclass(frozen=True)
class Weights:
    """One public weights file.

    `sha256` is the known beginning of its hash; None where the publisher names none. `ignored`
    matches keys of the file that no backbone has a use for, `fresh` matches keys of a backbone that
    the file does not hold, `parts` matches the names of parts that a backbone may be built without.
    `inside` is the key of the state dict in the file, if it is nested.
    """

    url: str
    trained_on: str
    sha256: str | None
    ignored: str
    fresh: str
    parts: str
    inside: str | None = None

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    def left_out(self, key: str, own: Iterable[str]) -> bool:
        """Whether the key belongs to a part of which a backbone with the keys `own` has nothing."""
        part = re.match(self.parts, key)
        return part is not None and not any(name.startswith(part.group()) for name in own)


def _resnet(depth: int, sha256: str) -> Weights:
    return Weights(
        url=f"{TORCHVISION}resnet{depth}-{sha256}.pth",
        trained_on="ImageNet-1k",
        sha256=sha256,
        ignored=r"fc\.|.*\.num_batches_tracked$",
        fresh=r".*\.num_batches_tracked$",
        parts=r"layer\d\.",
    )


def _swin(path: str, trained_on: str) -> Weights:
    return Weights(
        url=SWIN + path,
        trained_on=trained_on,
        sha256=None,
        ignored=r"head\.|norm\.|.*\.attn_mask$",
        fresh=r"norm\d\.",
        parts=r"layers\.\d\.(blocks|downsample)\.",
        inside="model",
    )


KNOWN: dict[tuple[str, str], Weights] = {
    ("resnet18", "imagenet"): _resnet(18, "f37072fd"),
    ("resnet34", "imagenet"): _resnet(34, "b627a593"),
    ("resnet50", "imagenet"): _resnet(50, "0676ba61"),
    ("resnet101", "imagenet"): _resnet(101, "63fe2227"),
    ("swin-tiny-w7", "imagenet"): _swin("v1.0.0/swin_tiny_patch4_window7_224.pth", "ImageNet-1k"),
    ("swin-small-w7", "imagenet"): _swin("v1.0.0/swin_small_patch4_window7_224.pth", "ImageNet-1k"),
    ("swin-base-w7", "imagenet"): _swin("v1.0.0/swin_base_patch4_window7_224.pth", "ImageNet-1k"),
    ("swin-base-w12", "imagenet"): _swin("v1.0.0/swin_base_patch4_window12_384.pth", "ImageNet-1k"),
    ("swin-tiny-w7", "imagenet-22k"): _swin(
        "v1.0.8/swin_tiny_patch4_window7_224_22k.pth", "ImageNet-22k"
    ),
    ("swin-small-w7", "imagenet-22k"): _swin(
        "v1.0.8/swin_small_patch4_window7_224_22k.pth", "ImageNet-22k"
    ),
    ("swin-base-w7", "imagenet-22k"): _swin(
        "v1.0.0/swin_base_patch4_window7_224_22k.pth", "ImageNet-22k"
    ),
    ("swin-base-w12", "imagenet-22k"): _swin(
        "v1.0.0/swin_base_patch4_window12_384_22k.pth", "ImageNet-22k"
    ),
    ("swin-large-w7", "imagenet-22k"): _swin(
        "v1.0.0/swin_large_patch4_window7_224_22k.pth", "ImageNet-22k"
    ),
    ("swin-large-w12", "imagenet-22k"): _swin(
        "v1.0.0/swin_large_patch4_window12_384_22k.pth", "ImageNet-22k"
    ),
}
"""(architecture, name of weights) -> file.

ResNet from pytorch/vision:torchvision/models/resnet.py (the IMAGENET1K_V1 weights, which the
official detectors start from), Swin from microsoft/Swin-Transformer:README.md.
"""


def check_known(architecture: str, weights: str | None) -> None:
    """Raise `RecipeError` unless `weights` is None or listed for the architecture."""
    if weights is not None and (architecture, weights) not in KNOWN:
        names = sorted(name for known, name in KNOWN if known == architecture)
        raise RecipeError(
            f"no weights '{weights}' are known for {architecture}; "
            f"type one of: {', '.join([*names, 'null'])} (null starts from random numbers)"
        )


def load_pretrained(backbone: nn.Module, config: BackboneConfig) -> str:
    """Fill the backbone that `config` built with the weights `config.weights`; say what was loaded.

    Downloads the file when the cache does not hold it. Raises `NetworkUnavailable` where it cannot
    be had, `CheckpointError` for a damaged file, `CheckpointMismatch` where it does not fit.
    """
    if config.weights is None:
        return "no pretrained weights"
    if isinstance(config, OwnWeights):
        return config.load_weights(backbone)
    check_known(config.architecture, config.weights)
    weights = KNOWN[config.architecture, config.weights]
    path = fetch(weights.url, sha256=weights.sha256)
    _fill(backbone, read_weights(path, weights.inside), weights, path)
    return f"{weights.trained_on} weights {weights.filename}"


def read_weights(path: Path, inside: str | None) -> dict[str, Tensor]:
    """The tensors of a PyTorch weights file; nothing else in it is ever run."""
    advice = "delete it and run the command again, or put a good copy there"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a weights file that can be read; {advice}") from error
    state = content.get(inside) if inside and isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: expected a table of tensors{f' under {inside!r}' if inside else ''}, "
            f"got {type(state).__name__}; {advice}"
        )
    return state


def _fill(backbone: nn.Module, state: dict[str, Tensor], weights: Weights, path: Path) -> None:
    """Load every tensor of the backbone; what is left over or missing must be expected."""
    own = backbone.state_dict()
    left_over = [
        key
        for key in state
        if key not in own and not re.match(weights.ignored, key) and not weights.left_out(key, own)
    ]
    missing = [key for key in own if key not in state and not re.match(weights.fresh, key)]
    resized = [key for key in own if key in state and own[key].shape != state[key].shape]
    if left_over or missing or resized:
        raise CheckpointMismatch(
            f"{path} does not fit the backbone: {_list('not in the backbone', left_over)}; "
            f"{_list('not in the file', missing)}; {_list('of another shape', resized)}; "
            "check that depth, variant and window are those of the file"
        )
    backbone.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _list(what: str, keys: list[str], shown: int = 5) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{what}: {', '.join(sorted(keys)[:shown]) or 'none'}{more}"
