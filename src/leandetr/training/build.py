"""What a run is made of, from its recipe: optimiser, schedule, average, criterion, device."""

import logging
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.amp.grad_scaler import GradScaler

from leandetr.errors import TrainingError
from leandetr.models.detector import Detector
from leandetr.recipes.recipe import Recipe
from leandetr.training.classification import Classification, SigmoidFocal, SoftmaxEntropy
from leandetr.training.criterion import Criterion, Weights
from leandetr.training.ema import build_ema
from leandetr.training.matcher import Matcher
from leandetr.training.optim import build_optimiser, build_schedule
from leandetr.training.recompute import recompute_layers
from leandetr.training.step import Arithmetic, Parts

if TYPE_CHECKING:
    from accelerate import Accelerator


log = logging.getLogger(__name__)


def note_precision(precision: str, device: torch.device) -> None:
    """Say so where a precision makes training slower instead of faster."""
    if precision == "fp16" and device.type == "cpu":
        log.warning(
            "a processor trains many times slower in float16 than in float32; type "
            "--set train.precision=bf16, or leave train.precision at fp32"
        )


def build_accelerator() -> "Accelerator":
    """Device and processes of a run. Precision is the step's own business, in plain sight.

    Raises `TrainingError` where the model would be split over processes: checkpoints and averages
    here are of whole models.
    """
    from accelerate import Accelerator, DistributedType

    # without `cpu`, processes of a run on processors alone would not find each other
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.accelerator.is_available())
    kind = accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise TrainingError(
            f"expected processes that each hold the whole model, but Accelerate was set up for "
            f"{kind.value}; start with torchrun, or answer no to it in `accelerate config`, and "
            "save memory by train.recompute, train.accumulate and train.precision=bf16"
        )
    return accelerator


def build_criterion(recipe: Recipe) -> Criterion:
    """The criterion and matcher for the detector of a recipe."""
    how = recipe.train.criterion
    classification = _classification(recipe)
    matcher = Matcher(
        classification,
        class_cost=how.class_cost,
        box_cost=how.box_cost,
        giou_cost=how.giou_cost,
        giou_eps=how.giou_eps,
    )
    weights = Weights(
        labels=how.class_weight,
        boxes=how.box_weight,
        giou=how.giou_weight,
        salience=how.salience_weight,
        encoder=how.encoder_weight,
    )
    return Criterion(matcher, classification, weights=weights, giou_eps=how.giou_eps)


def _classification(recipe: Recipe) -> Classification:
    """How class logits are judged: by a softmax where the model has a class for nothing."""
    how = recipe.train.criterion
    if recipe.model.background:
        return SoftmaxEntropy(background=how.background_weight)
    return SigmoidFocal(alpha=how.alpha, gamma=how.gamma)


def build_parts(
    recipe: Recipe, model: Detector, accelerator: "Accelerator", steps_per_epoch: int
) -> Parts:
    """Optimiser, schedule, average and criterion of a recipe around a model, on its device."""
    how = recipe.train
    model.to(accelerator.device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (faster)
    optimiser = build_optimiser(
        model,
        lr=how.lr,
        weight_decay=how.weight_decay,
        factors=[(factor.prefix, factor.factor) for factor in how.lr_factors],
    )
    schedule = build_schedule(
        optimiser,
        kind=how.schedule,
        epochs=how.epochs,
        steps_per_epoch=steps_per_epoch,
        drops=how.drops,
        warmup=how.warmup,
    )
    ema = None if how.ema is None else build_ema(model, how.ema)
    if how.recompute:
        recompute_layers(model)
    return Parts(
        model=model,
        wrapped=accelerator.prepare_model(model),
        criterion=build_criterion(recipe),
        optimiser=optimiser,
        schedule=schedule,
        ema=ema,
        accelerator=accelerator,
        arithmetic=Arithmetic(how.clip, how.precision, how.accumulate),
        scaler=GradScaler(accelerator.device.type, enabled=how.precision == "fp16"),
    )


def seed_all(seed: int) -> None:
    """Seed every random state of this process: the same seed gives the same weights on a CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may draw from the global state
    torch.manual_seed(seed)
