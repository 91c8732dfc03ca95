"""Keys of facebookresearch/detr checkpoints."""

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.recipes.recipe import Recipe

ENCODER = (
    Rename(
        "transformer.encoder.layers.{i}.self_attn.in_proj_{p}",
        "encoder.layers.{i}.attention.inputs.{p}",
    ),
    Rename(
        "transformer.encoder.layers.{i}.self_attn.out_proj.{p}",
        "encoder.layers.{i}.attention.output.{p}",
    ),
    Rename(
        "transformer.encoder.layers.{i}.linear1.{p}", "encoder.layers.{i}.feed_forward.layers.0.{p}"
    ),
    Rename(
        "transformer.encoder.layers.{i}.linear2.{p}", "encoder.layers.{i}.feed_forward.layers.1.{p}"
    ),
    Rename("transformer.encoder.layers.{i}.norm1.{p}", "encoder.layers.{i}.gather.norm.{p}"),
    Rename("transformer.encoder.layers.{i}.norm2.{p}", "encoder.layers.{i}.refine.norm.{p}"),
    Rename("transformer.encoder.norm.{p}", "encoder.norm.{p}"),
)
"""The last one is there with `pre_norm` only."""

ATTENTION = (
    Rename(
        "transformer.decoder.layers.{i}.self_attn.in_proj_{p}",
        "decoder.layers.{i}.self_attention.inputs.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.self_attn.out_proj.{p}",
        "decoder.layers.{i}.self_attention.output.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.multihead_attn.in_proj_{p}",
        "decoder.layers.{i}.cross_attention.inputs.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.multihead_attn.out_proj.{p}",
        "decoder.layers.{i}.cross_attention.output.{p}",
    ),
)

DECODER = (
    Rename(
        "transformer.decoder.layers.{i}.linear1.{p}", "decoder.layers.{i}.feed_forward.layers.0.{p}"
    ),
    Rename(
        "transformer.decoder.layers.{i}.linear2.{p}", "decoder.layers.{i}.feed_forward.layers.1.{p}"
    ),
    Rename("transformer.decoder.layers.{i}.norm1.{p}", "decoder.layers.{i}.talk.norm.{p}"),
    Rename("transformer.decoder.layers.{i}.norm2.{p}", "decoder.layers.{i}.look.norm.{p}"),
    Rename("transformer.decoder.layers.{i}.norm3.{p}", "decoder.layers.{i}.refine.norm.{p}"),
    Rename("transformer.decoder.norm.{p}", "decoder.norm.{p}"),
)

ENDS = (
    Rename("input_proj.{p}", "neck.project.{p}"),
    Rename("query_embed.weight", "queries.position.weight"),
    Rename("class_embed.{p}", "heads.classes.0.{p}"),
    Rename("bbox_embed.layers.{k}.{p}", "heads.boxes.0.layers.{k}.{p}"),
)


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a DETR detector."""
    return [*ATTENTION, *around_the_attention(recipe)]


def around_the_attention(recipe: Recipe) -> list[Rule]:
    """Everything but the decoder's attention: shared by DETR and Conditional DETR."""
    inside = "body." if isinstance(recipe.model.backbone, ResNetConfig) else ""
    backbone = Rename(f"backbone.0.{inside}{{rest}}", "backbone.{rest}")
    return [*ENCODER, *DECODER, *ENDS, backbone]
