"""Keys of Atten4Vis/ConditionalDETR checkpoints."""

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.checkpoints.official.detr import around_the_attention
from leandetr.recipes.recipe import Recipe

PROJECTIONS = {
    "sa_qcontent_proj": "self_attention.query_content",
    "sa_qpos_proj": "self_attention.query_position",
    "sa_kcontent_proj": "self_attention.key_content",
    "sa_kpos_proj": "self_attention.key_position",
    "sa_v_proj": "self_attention.value",
    "self_attn.out_proj": "self_attention.output",
    "ca_qcontent_proj": "cross_attention.query_content",
    "ca_qpos_proj": "cross_attention.query_position",
    "ca_qpos_sine_proj": "cross_attention.query_place",
    "ca_kcontent_proj": "cross_attention.key_content",
    "ca_kpos_proj": "cross_attention.key_position",
    "ca_v_proj": "cross_attention.value",
    "cross_attn.out_proj": "cross_attention.output",
}
"""Projections of a decoder layer; `ca_qpos_proj` is in the first layer only."""

REFERENCE = (
    Rename("transformer.decoder.ref_point_head.layers.{k}.{p}", "decoder.refer.layers.{k}.{p}"),
    Rename("transformer.decoder.query_scale.layers.{k}.{p}", "decoder.scale.layers.{k}.{p}"),
)


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a Conditional DETR detector."""
    attention = [
        Rename(
            f"transformer.decoder.layers.{{i}}.{official}.{{p}}",
            f"decoder.layers.{{i}}.{ours}.{{p}}",
        )
        for official, ours in PROJECTIONS.items()
    ]
    return [*attention, *REFERENCE, *around_the_attention(recipe)]
