"""A detector made fast for inference: the same answers within a tolerance, and no training.

What changes (docs/fast.md has the measurements): batch norms are folded into convolutions, the
backbone works channels last, position tables of unpadded images are kept, and with bfloat16 all
large products run on the processor's matrix units.
Coordinates, boxes and scores stay in single precision.
"""

import copy
import logging
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from leandetr.errors import CheckpointError, RecipeError
from leandetr.models.necks import CellWaves
from leandetr.models.optimise_folding import fold_norms
from leandetr.models.optimise_parts import (
    AnyLinear,
    AnyNorm,
    BackboneIn,
    DecoderIn,
    RememberedWaves,
    exchange,
)
from leandetr.nn.affine import multiplies_bfloat16
from leandetr.nn.scoring import TokenScorer

DTYPES = (torch.float32, torch.bfloat16)
"""Precisions that an optimised model can have."""

PRECISE = ("queries", "heads", "proposals.classes", "proposals.boxes", "decoder.refer")
"""Parts that stay in single precision where a detector has them: they make boxes and scores."""

AnyDetector = TypeVar("AnyDetector", bound=nn.Module)


def optimise(
    detector: AnyDetector,
    *,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,  # noqa: A002  (PyTorch's own word)
) -> AnyDetector:
    """A copy of the detector that only predicts; see `Detector.optimise`."""
    if dtype not in DTYPES:
        raise RecipeError(
            f"expected dtype of torch.float32 or torch.bfloat16; got {dtype}; type "
            "dtype=torch.bfloat16 where leandetr.models.optimise.has_bfloat16() says yes"
        )
    fast = copy.deepcopy(detector).eval().requires_grad_(False)
    if dtype == torch.bfloat16 and not has_bfloat16(next(fast.parameters()).device):
        logging.getLogger(__name__).warning(
            "this processor computes bfloat16 in software, slower than float32; "
            "leave out dtype=torch.bfloat16"
        )
    fold_norms(fast.get_submodule("backbone"))
    if not compile:
        exchange(fast, CellWaves, RememberedWaves)  # pyright: ignore[reportArgumentType]
    if dtype != torch.float32:
        _lower(fast, dtype)
    _channels_last(fast, dtype)
    if compile:
        for name in ("backbone", "neck", "encoder", "decoder"):
            fast.get_submodule(name).compile()
    fast.register_forward_pre_hook(_refuse_targets, with_kwargs=True)
    fast.register_state_dict_pre_hook(_refuse_saving)
    return fast


def has_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether the device multiplies matrices of bfloat16 faster than those of float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and multiplies_bfloat16()


def best_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """The precision in which an optimised model is fastest there."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def _lower(detector: nn.Module, dtype: torch.dtype) -> None:
    """Give all parts but the precise ones another precision."""
    for name in ("backbone", "neck", "encoder", "proposals", "decoder"):
        part = getattr(detector, name)
        if part is not None:
            part.to(dtype)
    for name, part in detector.named_modules():
        if name in PRECISE:
            part.float()
        if isinstance(part, TokenScorer):
            part.judge[-1].float()
    exchange(detector, nn.Linear, AnyLinear)  # pyright: ignore[reportArgumentType]
    exchange(detector, nn.LayerNorm, AnyNorm)  # pyright: ignore[reportArgumentType]
    detector.decoder = DecoderIn(detector.get_submodule("decoder"), dtype)  # pyright: ignore[reportArgumentType]


def _channels_last(detector: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions read the channels of a pixel together."""
    for name in ("backbone", "neck"):
        detector.get_submodule(name).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    detector.backbone = BackboneIn(detector.get_submodule("backbone"), dtype)


def _refuse_targets(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Training starts with targets: an optimised model takes none."""
    if len(given) > 1 or named.get("targets") is not None:
        raise RecipeError(
            "expected images only, for an optimised model cannot be trained; got targets; "
            "train the model that .optimise() was called on"
        )


def _refuse_saving(*_: Any) -> NoReturn:
    """The weights of an optimised model fit no recipe."""
    raise CheckpointError(
        "an optimised model has other weights than its recipe and is not saved, published or "
        "trained; save the model that .optimise() was called on and optimise it after loading"
    )
