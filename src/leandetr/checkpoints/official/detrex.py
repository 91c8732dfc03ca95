"""Keys of IDEA-Research/detrex checkpoints: DINO, Deformable DETR, H-DETR, DETR, Conditional DETR.

Bricks and backbones are detectron2's (see `detectron2`). Parts around the layers mostly have the
names that the papers' repositories gave them.
"""

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.checkpoints.official import deformable_detr, detectron2
from leandetr.checkpoints.official.conditional_detr import PROJECTIONS, REFERENCE
from leandetr.checkpoints.official.detr import ENDS
from leandetr.checkpoints.official.dino import placed
from leandetr.models.decoders.conditional import ConditionalDecoderConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.recipes.recipe import Recipe

ENCODER, DECODER = "transformer.encoder.layers.{i}", "transformer.decoder.layers.{i}"

FEED_FORWARD = (
    Rename("{at}.ffns.0.layers.0.0.{p}", "{to}.feed_forward.layers.0.{p}"),
    Rename("{at}.ffns.0.layers.1.{p}", "{to}.feed_forward.layers.1.{p}"),
)
"""The feed-forward block of a dense layer."""

DENSE = (
    *placed(detectron2.DENSE, f"{ENCODER}.attentions.0", "encoder.layers.{i}.attention"),
    *placed(FEED_FORWARD, ENCODER, "encoder.layers.{i}"),
    *placed(FEED_FORWARD, DECODER, "decoder.layers.{i}"),
    Rename(f"{ENCODER}.norms.0.{{p}}", "encoder.layers.{i}.gather.norm.{p}"),
    Rename(f"{ENCODER}.norms.1.{{p}}", "encoder.layers.{i}.refine.norm.{p}"),
    Rename(f"{DECODER}.norms.0.{{p}}", "decoder.layers.{i}.talk.norm.{p}"),
    Rename(f"{DECODER}.norms.1.{{p}}", "decoder.layers.{i}.look.norm.{p}"),
    Rename(f"{DECODER}.norms.2.{{p}}", "decoder.layers.{i}.refine.norm.{p}"),
    Rename("transformer.decoder.post_norm_layer.{p}", "decoder.norm.{p}"),
)
"""What DETR and Conditional DETR have in common."""

SPLIT = {
    "sa_qcontent_proj": "attentions.0.query_content_proj",
    "sa_qpos_proj": "attentions.0.query_pos_proj",
    "sa_kcontent_proj": "attentions.0.key_content_proj",
    "sa_kpos_proj": "attentions.0.key_pos_proj",
    "sa_v_proj": "attentions.0.value_proj",
    "self_attn.out_proj": "attentions.0.out_proj",
    "ca_qcontent_proj": "attentions.1.query_content_proj",
    "ca_qpos_proj": "attentions.1.query_pos_proj",
    "ca_qpos_sine_proj": "attentions.1.query_pos_sine_proj",
    "ca_kcontent_proj": "attentions.1.key_content_proj",
    "ca_kpos_proj": "attentions.1.key_pos_proj",
    "ca_v_proj": "attentions.1.value_proj",
    "cross_attn.out_proj": "attentions.1.out_proj",
}
"""Projections of Conditional DETR: their name in its own repository, and in detrex."""


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a detector that detrex can build, by its decoder."""
    decoder = recipe.model.decoder
    if isinstance(decoder, DinoDecoderConfig):
        return [*detectron2.encoder_layers(), *detectron2.dino_without_encoder(recipe)]
    if isinstance(decoder, DeformableDecoderConfig):
        return _deformable(recipe)
    if isinstance(decoder, ConditionalDecoderConfig):
        return [*_conditional(), *DENSE, *ENDS, *detectron2.backbone(recipe)]
    attention = [
        *placed(detectron2.DENSE, f"{DECODER}.attentions.0", "decoder.layers.{i}.self_attention"),
        *placed(detectron2.DENSE, f"{DECODER}.attentions.1", "decoder.layers.{i}.cross_attention"),
    ]
    return [*attention, *DENSE, *ENDS, *detectron2.backbone(recipe)]


def _deformable(recipe: Recipe) -> list[Rule]:
    """Deformable DETR and H-DETR: heads and queries are named as in their own repositories.

    Only the table of learned queries is called otherwise.
    """
    queries = [
        Rename(rule.official.replace("query_embed.", "query_embedding."), rule.ours)
        for rule in deformable_detr.query_rules(recipe)
    ]
    return [
        *detectron2.encoder_layers(),
        *detectron2.decoder_layers(),
        *queries,
        *deformable_detr.head_rules(recipe),
        *detectron2.neck(),
        Rename("transformer.level_embeds", "neck.level_embedding"),
        *detectron2.backbone(recipe),
    ]


def _conditional() -> list[Rule]:
    projections = [
        Rename(f"{DECODER}.{SPLIT[official]}.{{p}}", f"decoder.layers.{{i}}.{ours}.{{p}}")
        for official, ours in PROJECTIONS.items()
    ]
    return [*projections, *REFERENCE]
