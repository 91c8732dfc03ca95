"""Builds our detector for an official Focus-DETR case, with its weights."""

from dataclasses import replace

from golden_data import Case
from leandetr.checkpoints.keymap import Rule, fill
from leandetr.checkpoints.official import focus_detr
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.detector import Detector
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.recipes import Recipe, build, recipe


def recipe_of(case: Case) -> Recipe:
    """The preset with the sizes that the official arguments give."""
    h = case.meta["hyper_parameters"]
    assert len(h["cascade_set"]) == h["enc_layers"]
    sizes = {"heads": h["num_heads"], "points": h["num_points"], "hidden": h["feedforward_dim"]}
    preset = recipe("focus-detr-r50")
    return preset.with_model(
        neck=replace(preset.model.neck, levels=h["num_feature_levels"]),
        encoder=FocusEncoderConfig(
            keep=h["focus_rho"],
            cascade=tuple(h["cascade_set"]),
            objects=h["topk_sa"],
            **sizes,
        ),
        queries=MixedQueriesConfig(count=h["num_queries"]),
        decoder=DinoDecoderConfig(layers=h["dec_layers"], **sizes),
        dim=h["embed_dim"],
        classes=h["num_classes"],
        top=h["select_box_nums_for_evaluation"],
    )


def official_detector(case: Case) -> tuple[Detector, list[Rule]]:
    """Our detector holding the official weights, and its key map."""
    recipe = recipe_of(case)
    model, rules = build(recipe), focus_detr.rules(recipe)
    assert fill(model, case.weights(), rules) == {}
    return model, rules
