"""Detectors in the layout of detrex: Focus-DETR, DINO, Deformable DETR, H-DETR, DETR, Conditional.

Only the stem of a ResNet is frozen there, and files hold no arguments of the training.
"""

from collections.abc import Callable
from dataclasses import replace

from leandetr.checkpoints.families import deformable
from leandetr.checkpoints.families import detr as dense
from leandetr.checkpoints.families.backbone import mapped
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.dino import denoising, without_labels
from leandetr.checkpoints.families.encoders import sizes
from leandetr.checkpoints.families.facts import Facts, Names
from leandetr.checkpoints.keymap import Rule
from leandetr.checkpoints.official import detrex, focus_detr
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.recipes.dino import dino_r50
from leandetr.recipes.focus_detr import FROZEN, focus_detr_r50
from leandetr.recipes.recipe import Recipe

NAMES = Names(
    backbone="backbone",
    maps=("neck.convs.{i}.conv.weight", "neck.extra_convs.{i}.conv.weight"),
    levels="transformer.level_embeds",
    table="query_embedding.weight",
    encoder="attentions.0",
    decoder="attentions.1",
    wide="ffns.0.layers.0.0",
)

SHARE = "keys do not tell which share of the tokens is foreground (focus_rho)"
CASCADE = "keys do not tell how many of them each layer refines (cascade_set)"
CLAMP = "detrex clamps references to 0.001 from the border, LeanDETR as the paper's code to 0.00001"


def is_detrex(facts: Facts) -> bool:
    """Layers made of numbered attentions, feed-forward blocks and norms."""
    return facts.has(f"transformer.encoder.layers.0.{NAMES.wide}.weight")


def is_dino(facts: Facts) -> bool:
    """Proposed boxes with learned contents."""
    return is_detrex(facts) and facts.has("transformer.tgt_embed.weight")


def is_focus(facts: Facts) -> bool:
    """A DINO that scores tokens and modulates the scores of coarser levels."""
    return is_dino(facts) and facts.has("transformer.alpha")


def is_deformable(facts: Facts) -> bool:
    """Deformable DETR or H-DETR."""
    return is_detrex(facts) and deformable.is_sampled(facts.under(NAMES))


def is_hybrid(facts: Facts) -> bool:
    """Learned contents beside proposals."""
    return is_detrex(facts) and deformable.is_hybrid(facts.under(NAMES))


def is_detr(facts: Facts) -> bool:
    """Dense cross-attention with fused projections."""
    return is_detrex(facts) and facts.has(f"{dense.DECODER}.0.attentions.1.attn.in_proj_weight")


def is_conditional(facts: Facts) -> bool:
    """Content and position projected apart, and reference points of two numbers."""
    position = f"{dense.DECODER}.0.attentions.1.query_pos_sine_proj.weight"
    return is_detrex(facts) and facts.has(position, dense.POINT) and facts.rows(dense.POINT) == 2


def dino_recipe(facts: Facts) -> Recipe:
    """DINO as detrex builds it: every layer has its own heads, positions are Deformable DETR's."""
    return _dino(facts.under(NAMES), replace(dino_r50(), model=focus_detr_r50().model))


def _dino(facts: Facts, base: Recipe) -> Recipe:
    model = base.model
    levels, dim = facts.shape(NAMES.levels)
    classes = facts.rows("class_embed.0.weight")
    return base.with_model(
        dim=dim,
        classes=classes,
        backbone=mapped(facts, model.backbone),
        neck=replace(model.neck, levels=levels),
        encoder=DeformableEncoderConfig(**sizes(facts, "encoder", levels=levels)),
        queries=replace(model.queries, count=facts.rows("transformer.tgt_embed.weight")),
        decoder=replace(model.decoder, **sizes(facts, "decoder", levels=levels)),
        groups=denoising(facts, model.groups[0], classes),
    )


def focus_recipe(facts: Facts) -> Recipe:
    """A DINO with the foreground encoder, whose second attention is the one that samples."""
    found = _dino(facts.under(replace(NAMES, encoder="attentions.1")), focus_detr_r50())
    plain = found.model.encoder
    usual = FocusEncoderConfig()
    cascade = (*usual.cascade, *usual.cascade[-1:] * plain.layers)[: plain.layers]
    if "encoder.cascade" not in facts.choices:
        facts.assumed["encoder.cascade"] = f"encoder.cascade={list(cascade)} is assumed: {CASCADE}"
    encoder = FocusEncoderConfig(
        keep=facts.asked("encoder.keep", "focus_rho", usual.keep, SHARE),
        cascade=cascade,
        heads=plain.heads,
        points=plain.points,
        hidden=plain.hidden,
    )
    return found.with_model(encoder=encoder)


def _stem_frozen(read: Callable[[Facts], Recipe]) -> Callable[[Facts], Recipe]:
    """A paper's way to read a recipe, put to detrex's names."""

    def recipe(facts: Facts) -> Recipe:
        found = read(facts.under(NAMES))
        backbone = found.model.backbone
        if isinstance(backbone, ResNetConfig):
            backbone = replace(backbone, frozen_stages=FROZEN)
        return found.with_model(backbone=backbone)

    return recipe


def _clamped(read: Callable[[Facts], Recipe]) -> Callable[[Facts], Recipe]:
    """The same, with a word about the one number that is another there."""
    inner = _stem_frozen(read)

    def recipe(facts: Facts) -> Recipe:
        facts.notes.append(CLAMP)
        return inner(facts)

    return recipe


def _dino_rules(recipe: Recipe) -> list[Rule]:
    return [*without_labels(recipe), *detrex.rules(recipe)]


def _focus_rules(recipe: Recipe) -> list[Rule]:
    return [*without_labels(recipe), *focus_detr.rules(recipe)]


LAYOUT = "IDEA-Research/detrex"
HYBRID, PLAIN = _clamped(deformable.hybrid_recipe), _clamped(deformable.deformable_recipe)
FAMILIES = (
    Family(
        "Focus-DETR", "huawei-noah/noah-research:Focus-DETR", is_focus, focus_recipe, _focus_rules
    ),
    Family("DINO", LAYOUT, is_dino, dino_recipe, _dino_rules),
    Family("H-DETR", LAYOUT, is_hybrid, HYBRID, detrex.rules),
    Family("Deformable DETR", LAYOUT, is_deformable, PLAIN, detrex.rules),
    Family("DETR", LAYOUT, is_detr, _stem_frozen(dense.detr_recipe), detrex.rules),
    Family(
        "Conditional DETR",
        LAYOUT,
        is_conditional,
        _clamped(dense.conditional_recipe),
        detrex.rules,
    ),
)
