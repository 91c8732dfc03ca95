"""Keys of the encoders that repositories of the Deformable DETR family share, by their config.

All these repositories store an encoder below `transformer.encoder`, whatever is around it.
"""

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.checkpoints.official import lite_detr
from leandetr.checkpoints.official.dino import ENCODER_LAYER, FEED_FORWARD, placed
from leandetr.errors import CheckpointMismatch
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.recipes.recipe import Recipe

OFFICIAL, OURS = "transformer.encoder", "encoder"
CROSS_QUERY = Rename(lite_detr.CROSS_QUERY, "decoder.layers.{i}.cross_attention.query.{p}")
"""What a decoder has where its attention is key-aware, as it is beside the lite encoder."""


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
    raise CheckpointMismatch(
        f"expected the encoder 'deformable' or 'lite', whose official keys are known; "
        f"got {type(config).__name__}; type --set encoder=deformable"
    )


def _layer(number: int) -> list[Rename]:
    official, ours = f"{OFFICIAL}.layers.{number}", f"{OURS}.layers.{number}"
    return [
        *placed(ENCODER_LAYER, official, ours),
        *placed(FEED_FORWARD, official, f"{ours}.feed_forward"),
    ]
