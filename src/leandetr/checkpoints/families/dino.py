"""DINO and Lite-DINO, told apart by their encoders."""

from dataclasses import replace

from leandetr.checkpoints.families.backbone import mapped
from leandetr.checkpoints.families.base import Family
from leandetr.checkpoints.families.encoders import encoder, is_interleaved, is_key_aware, sizes
from leandetr.checkpoints.families.facts import Facts, Names
from leandetr.checkpoints.keymap import Drop, Rule
from leandetr.checkpoints.official import dino, lite_detr
from leandetr.models.queries.denoising import DenoisingConfig
from leandetr.recipes.dino import dino_r50
from leandetr.recipes.lite_detr import lite_dino_r50_h3l1_2p1x3
from leandetr.recipes.recipe import Recipe

LABELS = "label_enc.weight"
ODD_LABELS = "its rows are not those of the class head; denoising needs it in training only"


def is_dino(facts: Facts) -> bool:
    """Proposed boxes with learned contents, and anchors of four numbers that are embedded."""
    return facts.has(
        "transformer.level_embed",
        "transformer.tgt_embed.weight",
        "transformer.enc_out_class_embed.weight",
        "transformer.decoder.ref_point_head.layers.1.weight",
    )


def is_lite_dino(facts: Facts) -> bool:
    """A DINO whose encoder attention has query projections."""
    return is_dino(facts) and is_interleaved(facts)


def dino_recipe(facts: Facts) -> Recipe:
    """DINO with the encoder that the keys tell."""
    base = lite_dino_r50_h3l1_2p1x3() if is_interleaved(facts) else dino_r50()
    model = base.model
    if facts.has("backbone.0.patch_embed.proj.weight"):
        facts = facts.under(Names(backbone="backbone.0"))
    levels, dim = facts.shape(facts.names.levels)
    temperature = facts.told("pe_temperatureH", model.neck.temperature)
    classes = facts.rows("class_embed.0.weight")
    return base.with_model(
        dim=dim,
        classes=classes,
        backbone=mapped(facts, model.backbone),
        neck=replace(model.neck, levels=levels, temperature=temperature),
        encoder=encoder(facts, levels=levels, dropout=model.encoder.dropout),
        queries=replace(model.queries, count=facts.rows("transformer.tgt_embed.weight")),
        decoder=replace(
            model.decoder,
            **sizes(facts, "decoder", levels=levels),
            key_aware=is_key_aware(facts, "decoder"),
        ),
        groups=denoising(facts, model.groups[0], classes),
        shared_heads=_one_head(facts),
        top=facts.told("num_select", model.top),
    )


def denoising(facts: Facts, usual: DenoisingConfig, classes: int) -> tuple[DenoisingConfig, ...]:
    """The denoising group, or none where the label table does not have a row for each class.

    The official code takes the size of that table from another option than the classes.
    """
    spare = facts.rows(LABELS) - classes if facts.has(LABELS) else -1
    if spare not in (0, 1):
        return ()
    budget = facts.told("dn_number", usual.budget)
    found = DenoisingConfig(
        budget=budget if budget > 0 else usual.budget,
        label_noise=facts.told("dn_label_noise_ratio", usual.label_noise),
        box_noise=facts.told("dn_box_noise_scale", usual.box_noise),
        spare_row=spare == 1,
    )
    return (found,)


def without_labels(recipe: Recipe) -> list[Rule]:
    """What to do with a label table that the recipe has no use for."""
    return [] if recipe.model.groups else [Drop(LABELS, ODD_LABELS)]


def _dino_rules(recipe: Recipe) -> list[Rule]:
    return [*without_labels(recipe), *dino.rules(recipe)]


def _lite_rules(recipe: Recipe) -> list[Rule]:
    return [*without_labels(recipe), *lite_detr.rules(recipe)]


def _one_head(facts: Facts) -> bool:
    """Whether all layers repeat the heads of the first."""
    weights = ("class_embed.{}.weight", "bbox_embed.{}.layers.0.weight")
    later = range(1, facts.count("class_embed.{i}.weight"))
    return all(facts.equal(key.format(i), key.format(0)) for key in weights for i in later)


FAMILIES = (
    Family("Lite-DINO", "IDEA-Research/Lite-DETR", is_lite_dino, dino_recipe, _lite_rules),
    Family("DINO", "IDEA-Research/DINO", is_dino, dino_recipe, _dino_rules),
)
