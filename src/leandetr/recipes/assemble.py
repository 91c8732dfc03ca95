"""From recipe to detector: the only file that knows every part."""

import fnmatch
from collections.abc import Callable, Sequence

from leandetr.errors import RecipeError
from leandetr.models.decoders import decoders
from leandetr.models.detector import Detector, Parts
from leandetr.models.dims import Dims
from leandetr.models.encoders import encoders
from leandetr.models.heads import PredictionHeads, ProposalHead
from leandetr.models.postprocess import BestClass, TopScores
from leandetr.recipes import (
    conditional_detr,
    deformable_detr,
    detr,
    dino,
    focus_detr,
    h_detr,
    lite_detr,
    nano,
    sparse_detr,
)
from leandetr.recipes.codec import override
from leandetr.recipes.recipe import ModelRecipe, Recipe
from leandetr.registry import did_you_mean

PRESETS: dict[str, Callable[[], Recipe]] = {
    preset.__name__.replace("_", "-"): preset
    for preset in (
        *dino.PRESETS,
        *lite_detr.PRESETS,
        *nano.PRESETS,
        *detr.PRESETS,
        *conditional_detr.PRESETS,
        *sparse_detr.PRESETS,
        *deformable_detr.PRESETS,
        *h_detr.PRESETS,
        *focus_detr.PRESETS,
    )
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the presets that match a shell pattern such as `lite-*`, sorted."""
    return sorted(fnmatch.filter(PRESETS, pattern))


def recipe(name: str) -> Recipe:
    """The preset called `name`. Raises `RecipeError` naming the near ones."""
    if name not in PRESETS:
        raise RecipeError(f"no recipe '{name}'; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]().with_name(name)


def create_model(
    model: str | Recipe,
    *,
    num_classes: int | None = None,
    encoder: str | None = None,
    overrides: Sequence[str] = (),
) -> Detector:
    """A detector with fresh weights, from a preset's name or a recipe.

    `encoder` exchanges the encoder by its registered name, keeping the settings that both have;
    `overrides` are `path=value` texts.
    Nothing is downloaded. Raises `RecipeError` for what cannot be built.
    """
    chosen = recipe(model) if isinstance(model, str) else model
    if encoder is not None:
        overrides = [f"encoder={encoder}", *overrides]
    chosen = override(chosen, overrides) if overrides else chosen
    if num_classes is not None:
        chosen = chosen.with_model(classes=num_classes)
    return build(chosen)


def build(recipe: Recipe) -> Detector:
    """Put the parts of a recipe together, with fresh weights.

    Raises `RecipeError` for parts that do not go together.
    """
    model = recipe.model
    _check_teacher(model)
    dims = Dims(dim=model.dim, levels=model.neck.levels, classes=model.classes)
    backbone = model.backbone.build()
    parts = Parts(
        backbone=backbone,
        neck=model.neck.build(model.dim, backbone.channels),
        encoder=model.encoder.build(dims),
        queries=model.queries.build(dims),
        decoder=model.decoder.build(dims),
        heads=PredictionHeads(
            model.dim,
            model.classes,
            layers=model.decoder.layers,
            shared=model.shared_heads,
            background=model.background,
            first_size=getattr(model.queries, "first_size", 0.0),
        ),
        proposals=_proposals(model),
        training_groups=[group.build(dims) for group in model.groups],
    )
    postprocess = BestClass(model.top) if model.background else TopScores(model.top)
    return Detector(parts, preprocess=recipe.preprocess, postprocess=postprocess, recipe=recipe)


def _proposals(model: ModelRecipe) -> ProposalHead | None:
    """The proposal head, where the query source or the encoder scores tokens."""
    scoring = (model.queries, model.encoder)
    if any(getattr(config, "scores_tokens", False) for config in scoring):
        return ProposalHead(model.dim, model.classes)
    return None


def _check_teacher(model: ModelRecipe) -> None:
    """Refuse an encoder that learns from where the decoder looks beside one that cannot tell."""
    wanted = getattr(model.encoder, "learns_from_looks", False)
    if wanted and not getattr(model.decoder, "reports_looks", False):
        encoder, decoder = (
            encoders.name_of(type(model.encoder)),
            decoders.name_of(type(model.decoder)),
        )
        raise RecipeError(
            f"the encoder '{encoder}' learns from where the decoder looks, and the decoder "
            f"'{decoder}' cannot tell; type encoder=focus, or decoder=deformable"
        )
