"""Keys of Focus-DETR checkpoints (huawei-noah/noah-research:Focus-DETR, built on detrex)."""

from leandetr.checkpoints.keymap import Alias, Rename, Rule
from leandetr.checkpoints.official.detectron2 import (
    DENSE,
    FEED_FORWARD,
    SAMPLED,
    dino_without_encoder,
)
from leandetr.checkpoints.official.dino import placed
from leandetr.recipes.recipe import Recipe


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Focus-DETR detector.

    The class head of the proposals also scores the object tokens of the encoder, and is stored
    again for each of its layers, twice.
    """
    proposals = f"transformer.decoder.class_embed.{recipe.model.decoder.layers}"
    copies = [
        Alias(f"{official}.{layer}.{{p}}", f"{proposals}.{{p}}")
        for official in ("transformer.encoder.enhance_MCSP", "enhance_MCSP_layerlist")
        for layer in range(len(recipe.model.encoder.cascade))
    ]
    return [*encoder_rules("transformer", "encoder"), *copies, *dino_without_encoder(recipe)]


def encoder_rules(official: str, ours: str) -> list[Rule]:
    """Scorer and layers; attention 0 is the one among object tokens."""
    at, to = f"{official}.encoder.layers.{{i}}", f"{ours}.layers.{{i}}"
    network = f"{official}.enc_mask_predictor"
    return [
        Rename(f"{official}.alpha", f"{ours}.scorer.strength"),
        Rename(f"{network}.layer1.{{k}}.{{p}}", f"{ours}.scorer.judge.describe.{{k}}.{{p}}"),
        Rename(f"{network}.layer2.{{k}}.{{p}}", f"{ours}.scorer.judge.judge.{{k}}.{{p}}"),
        *placed(DENSE, f"{at}.attentions.0", f"{to}.object_attention"),
        *placed(SAMPLED, f"{at}.attentions.1", f"{to}.gather.attention"),
        *placed(FEED_FORWARD, f"{at}.ffns.0", f"{to}.feed_forward"),
        Rename(f"{at}.norm2.{{p}}", f"{to}.object_norm.{{p}}"),
        Rename(f"{at}.norms.0.{{p}}", f"{to}.gather.norm.{{p}}"),
        Rename(f"{at}.norms.1.{{p}}", f"{to}.feed_forward.norm.{{p}}"),
    ]
