"""What a recipe holds: which parts, how big, and how they are trained.

A field declared with `part(registry)` holds any config registered there; in YAML its name is
written under `type`.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from leandetr.data.transforms import DetrAugment, augmentations
from leandetr.errors import RecipeError
from leandetr.images import Preprocess
from leandetr.models.backbones import backbones
from leandetr.models.decoders import decoders
from leandetr.models.encoders import encoders
from leandetr.models.necks import necks
from leandetr.models.queries import groups, sources
from leandetr.registry import Registry

REGISTRY = "registry"
"""Metadata key under which a field names the registry its config comes from."""


def part(registry: Registry, **options: Any) -> Any:
    """A dataclass field that holds a config (or a tuple of configs) of one registry."""
    return field(metadata={REGISTRY: registry}, **options)


@dataclass(frozen=True)
class ModelRecipe:
    """The parts of a detector. `top` detections an image survive post-processing.

    With `background` the class head ends in a class for nothing and its scores come from a softmax
    (DETR); without, from a sigmoid a class.
    """

    backbone: Any = part(backbones)
    neck: Any = part(necks)
    encoder: Any = part(encoders)
    queries: Any = part(sources)
    decoder: Any = part(decoders)
    groups: tuple[Any, ...] = part(groups, default=())
    shared_heads: bool = True
    background: bool = False
    dim: int = 256
    classes: int = 91
    top: int = 300

    def __post_init__(self) -> None:
        for name in ("dim", "classes", "top"):
            if getattr(self, name) < 1:
                raise RecipeError(f"expected model.{name} of at least 1; got {getattr(self, name)}")


@dataclass(frozen=True)
class LrFactor:
    """Parameters whose name starts with `prefix` learn at `factor` times the learning rate.

    A `*` stands for anything: `*.offsets.` are the sampling offsets of every layer.
    """

    prefix: str
    factor: float


@dataclass(frozen=True)
class CriterionRecipe:
    """Weights of the loss terms and of the matching costs (DINO's by default).

    `alpha` and `gamma` shape the focal loss; a model with a background class has a cross entropy
    in which that class counts `background_weight`. `salience_weight` is for encoders that score
    tokens, `encoder_weight` multiplies all losses of an encoder's own heads.
    """

    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    class_cost: float = 2.0
    box_cost: float = 5.0
    giou_cost: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    giou_eps: float = 1e-6
    background_weight: float = 0.1
    salience_weight: float = 1.0
    encoder_weight: float = 1.0


SCHEDULES = ("steps", "cosine")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainRecipe:
    """How a detector is trained; the defaults are DINO's for 12 epochs on COCO.

    `batch` is images a device, and a step learns from `accumulate` such batches; `warmup` optimiser
    steps, `drops` the epochs after which the rate falls to a tenth, `clip` the largest gradient
    norm, `ema` the decay of the averaged weights (None: none are kept), `validate_every` the epochs
    from one validation to the next, `patience` the validations without a better one after which
    training ends (None: never), `save_minutes` the time within an epoch after which it is saved.
    `precision` is what the model computes in; weights, matching and losses are float32 in any case.
    With `recompute`, layers of encoder and decoder are computed again in the backward pass, which
    takes less memory and more time. With `skip_missing`, images that the annotations name but the
    folder lacks are left out.
    """

    epochs: int = 12
    batch: int = 2
    accumulate: int = 1
    lr: float = 1e-4
    lr_factors: tuple[LrFactor, ...] = (LrFactor("backbone", 0.1),)
    weight_decay: float = 1e-4
    schedule: str = "steps"
    drops: tuple[int, ...] = (11,)
    warmup: int = 0
    clip: float = 0.1
    ema: float | None = None
    precision: str = "fp32"
    recompute: bool = False
    augment: Any = part(augmentations, default_factory=DetrAugment)
    workers: int = 2
    validate_every: int = 1
    patience: int | None = None
    save_minutes: float = 10.0
    skip_missing: bool = False
    seed: int = 0
    criterion: CriterionRecipe = CriterionRecipe()

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise RecipeError(
                f"expected train.schedule of {', '.join(SCHEDULES)}; got '{self.schedule}'"
            )
        if self.precision not in PRECISIONS:
            raise RecipeError(
                f"expected train.precision of {', '.join(PRECISIONS)}; got '{self.precision}'"
            )
        for name in ("epochs", "batch", "accumulate", "validate_every", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RecipeError(f"expected train.{name} of at least 1; got {value}")
        for name in ("lr", "weight_decay", "warmup", "clip", "workers", "save_minutes", "seed"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"expected train.{name} of at least 0; got {getattr(self, name)}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise RecipeError(f"expected train.ema between 0 and 1, or none; got {self.ema}")


@dataclass(frozen=True)
class Recipe:
    """Everything needed to build, train and feed one detector."""

    name: str
    model: ModelRecipe
    preprocess: Preprocess = Preprocess()
    train: TrainRecipe = TrainRecipe()

    def with_name(self, name: str) -> "Recipe":
        """The same choices under another name."""
        return replace(self, name=name)

    def with_model(self, **changes: Any) -> "Recipe":
        """Other parts or sizes: `recipe.with_model(encoder=LiteEncoderConfig())`."""
        return replace(self, model=replace(self.model, **changes))

    def with_train(self, **changes: Any) -> "Recipe":
        """Another way to train the same model."""
        return replace(self, train=replace(self.train, **changes))
