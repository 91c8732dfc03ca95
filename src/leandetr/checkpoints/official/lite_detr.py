"""Keys of IDEA-Research/Lite-DETR checkpoints (Lite-DINO)."""

from leandetr.checkpoints.keymap import Drop, Rename, Rule
from leandetr.checkpoints.official.dino import (
    ENCODER_LAYER,
    FEED_FORWARD,
    around_the_encoder,
    placed,
)
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.recipes.recipe import Recipe

KEYS = (
    Rename("{at}.self_attn.query_proj.{p}", "{to}.gather.attention.query.{p}"),
    Rename("{at}.self_attn.key_proj.{p}", "{to}.gather.attention.key.{p}"),
)
"""What key-aware attention adds to an encoder layer."""

LOW_FEED_FORWARD = (
    Rename("{at}.linear12.{p}", "{to}.linear1.{p}"),
    Rename("{at}.linear22.{p}", "{to}.linear2.{p}"),
    Rename("{at}.norm22.{p}", "{to}.norm.{p}"),
)

CROSS_QUERY = "transformer.decoder.layers.{i}.cross_attn.query_proj.{p}"
NEVER_ASKED = "without keys the official module owns a query projection that it never uses"


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Lite-DINO detector."""
    encoder = encoder_rules(recipe.model.encoder, official="transformer.encoder", ours="encoder")
    if recipe.model.decoder.key_aware:
        cross: Rule = Rename(CROSS_QUERY, "decoder.layers.{i}.cross_attention.query.{p}")
    else:
        cross = Drop(CROSS_QUERY, NEVER_ASKED)
    return [*encoder, cross, *around_the_encoder(recipe)]


def encoder_rules(config: LiteEncoderConfig, *, official: str, ours: str) -> list[Rule]:
    """Official layers are numbered through; ours are sorted into blocks."""
    rules: list[Rule] = []
    for number in range(config.blocks * config.high_updates):
        block, step = divmod(number, config.high_updates)
        full = step == config.high_updates - 1
        at = f"{official}.layers.{number}"
        to = f"{ours}.blocks.{block}." + ("full" if full else f"high.{step}")
        rules += placed(ENCODER_LAYER, at, to)
        rules += placed(FEED_FORWARD, at, f"{to}.feed_forward.high")
        if full and config.low_hidden is not None:
            rules += placed(LOW_FEED_FORWARD, at, f"{to}.feed_forward.low")
        if config.key_aware:
            rules += placed(KEYS, at, to)
        else:
            rules.append(Drop(f"{at}.self_attn.query_proj.{{p}}", NEVER_ASKED))
    return rules
