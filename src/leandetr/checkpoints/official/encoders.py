"""Keys of the encoders that repositories of the Deformable DETR family share, by their config.

All these repositories store an encoder below `transformer.encoder`, whatever is around it.
"""

from leandetr.checkpoints.keymap import Alias, Rename, Rule
from leandetr.checkpoints.official import lite_detr
from leandetr.checkpoints.official.dino import ENCODER_LAYER, FEED_FORWARD, placed
from leandetr.errors import CheckpointMismatch
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.recipes.recipe import Recipe

OFFICIAL, OURS = "transformer.encoder", "encoder"
CROSS_QUERY = Rename(lite_detr.CROSS_QUERY, "decoder.layers.{i}.cross_attention.query.{p}")
"""What a decoder has where its attention is key-aware, as it is beside the lite encoder."""

SCORER = (
    Rename("transformer.enc_mask_predictor.layer1.{k}.{p}", "encoder.scorer.describe.{k}.{p}"),
    Rename("transformer.enc_mask_predictor.layer2.{k}.{p}", "encoder.scorer.judge.{k}.{p}"),
)


def encoder_rules(recipe: Recipe) -> list[Rule]:
    """The key map of a recipe's encoder, and of what it changes in the decoder.

    Raises `CheckpointMismatch` for an encoder that no repository has beside this kind of decoder.
    """
    config = recipe.model.encoder
    if isinstance(config, DeformableEncoderConfig):
        return [rule for number in range(config.layers) for rule in _layer(number)]
    if isinstance(config, LiteEncoderConfig):
        rules = lite_detr.encoder_rules(config, official=OFFICIAL, ours=OURS)
        return [*rules, CROSS_QUERY] if recipe.model.decoder.key_aware else rules
    if isinstance(config, SparseEncoderConfig):
        layers = [rule for number in range(config.layers) for rule in _layer(number)]
        return [*layers, *SCORER, *(_own_heads(recipe) if config.auxiliary else [])]
    raise CheckpointMismatch(
        "expected the encoder 'deformable', 'lite' or 'sparse', whose official keys are known; "
        f"got {type(config).__name__}; type --set encoder=deformable"
    )


def _layer(number: int) -> list[Rename]:
    official, ours = f"{OFFICIAL}.layers.{number}", f"{OURS}.layers.{number}"
    return [
        *placed(ENCODER_LAYER, official, ours),
        *placed(FEED_FORWARD, official, f"{ours}.feed_forward"),
    ]


def _own_heads(recipe: Recipe) -> list[Rule]:
    """Heads of the sparse encoder's layers but the last.

    They are numbered after the decoder's heads and that of the proposals, and stored there again.
    """
    rules: list[Rule] = []
    for layer in range(recipe.model.encoder.layers - 1):
        number = recipe.model.decoder.layers + 1 + layer
        for official, ours, inside in (
            ("class_embed", "classes", "{p}"),
            ("bbox_embed", "boxes", "layers.{k}.{p}"),
        ):
            at = f"{OFFICIAL}.{official}.{layer}"
            rules += [
                Rename(f"{at}.{inside}", f"{OURS}.heads.{ours}.{layer}.{inside}"),
                Alias(f"transformer.decoder.{official}.{number}.{{rest}}", f"{at}.{{rest}}"),
            ]
    return rules
