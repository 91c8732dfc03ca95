"""Builds our detector for an official DINO or Lite-DINO case, with its weights."""

from collections.abc import Callable

from golden_data import Case
from leandetr.checkpoints.keymap import fill
from leandetr.checkpoints.official import dino, lite_detr
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.backbones.swin import SwinConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.detector import Detector
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.recipes import ModelRecipe, Recipe, build


def recipe_of(case: Case) -> tuple[Recipe, Callable]:
    """The recipe that the official arguments describe, and the key map for it."""
    h = case.meta["hyper_parameters"]
    lite = "enc_scale" in h
    outputs = tuple(h["return_interm_indices"])
    if h["backbone"] == "resnet50":
        backbone = ResNetConfig(depth=50, outputs=outputs)
    else:
        assert h["backbone"] == "swin_T_224_1k"
        backbone = SwinConfig(variant="tiny", outputs=outputs)
    decoder = DinoDecoderConfig(
        layers=h["dec_layers"],
        heads=h["nheads"],
        points=h["dec_n_points"],
        hidden=h["dim_feedforward_dec" if lite else "dim_feedforward"],
        key_aware=h.get("key_aware", False),
    )
    model = ModelRecipe(
        backbone=backbone,
        neck=ChannelMapperConfig(
            levels=h["num_feature_levels"], temperature=float(h["pe_temperatureH"])
        ),
        encoder=lite_encoder(h) if lite else _deformable_encoder(h),
        queries=MixedQueriesConfig(count=h["num_queries"]),
        decoder=decoder,
        groups=(_denoising(h),),
        dim=h["hidden_dim"],
        classes=h["num_classes"],
        top=h["num_select"],
    )
    return Recipe(case.name, model), lite_detr.rules if lite else dino.rules


def _denoising(h: dict) -> DenoisingConfig:
    """Lite cases do not state it; their config/DINO/DINO_4scale.py does: 100, 0.5 and 1.0."""
    return DenoisingConfig(
        budget=h.get("dn_number", 100),
        label_noise=h.get("dn_label_noise_ratio", 0.5),
        box_noise=h.get("dn_box_noise_scale", 1.0),
    )


def _deformable_encoder(h: dict) -> DeformableEncoderConfig:
    return DeformableEncoderConfig(
        layers=h["enc_layers"],
        heads=h["nheads"],
        points=h["enc_n_points"],
        hidden=h["dim_feedforward"],
    )


def lite_encoder(h: dict) -> LiteEncoderConfig:
    """The interleaved encoder that official arguments describe."""
    return LiteEncoderConfig(
        high_levels=h["enc_scale"],
        high_updates=h["enc_layers"] // h["num_expansion"],
        blocks=h["num_expansion"],
        heads=h["nheads"],
        points=h["enc_n_points"],
        hidden=h["dim_feedforward_enc"],
        low_hidden=h.get("hidden_dim", h.get("d_model")) if h["small_expand"] else None,
        key_aware=h["key_aware"],
        own_key=h["proj_key"],
        shared_offsets=h["same_loc"],
    )


def official_detector(case: Case) -> tuple[Detector, list, dict[str, str]]:
    """Our detector holding the official weights, its key map, and the dropped official keys."""
    recipe, rules_of = recipe_of(case)
    model = build(recipe)
    rules = rules_of(recipe)
    dropped = fill(model, case.weights(), rules)
    return model, rules, dropped
