"""Keys that all detrex checkpoints share: detectron2's backbones, and detrex's transformer layers.

A DINO in detrex and Focus-DETR differ from each other in the encoder only.
"""

from leandetr.checkpoints.keymap import Alias, Rename, Rule
from leandetr.checkpoints.official.dino import placed
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.recipes.recipe import Recipe

SAMPLED = (
    Rename("{at}.sampling_offsets.{p}", "{to}.offsets.linear.{p}"),
    Rename("{at}.attention_weights.{p}", "{to}.weights.{p}"),
    Rename("{at}.value_proj.{p}", "{to}.value.{p}"),
    Rename("{at}.output_proj.{p}", "{to}.output.{p}"),
)
"""Deformable attention; `at` and `to` are put in by `placed`."""

DENSE = (
    Rename("{at}.attn.in_proj_weight", "{to}.inputs.weight"),
    Rename("{at}.attn.in_proj_bias", "{to}.inputs.bias"),
    Rename("{at}.attn.out_proj.{p}", "{to}.output.{p}"),
)
"""Multi-head attention."""

FEED_FORWARD = (
    Rename("{at}.layers.0.0.{p}", "{to}.linear1.{p}"),
    Rename("{at}.layers.1.{p}", "{to}.linear2.{p}"),
)
"""The two linear layers of a feed-forward block; its norm is kept beside it."""

AROUND = (
    Rename("transformer.level_embeds", "neck.level_embedding"),
    Rename("transformer.enc_output.{p}", "proposals.project.{p}"),
    Rename("transformer.enc_output_norm.{p}", "proposals.norm.{p}"),
)
"""What every two-stage detector of detrex has."""

DINO = (
    Rename("transformer.tgt_embed.weight", "queries.content.weight"),
    Rename("transformer.decoder.norm.{p}", "decoder.norm.{p}"),
    Rename(
        "transformer.decoder.ref_point_head.layers.{k}.{p}", "decoder.embed_boxes.layers.{k}.{p}"
    ),
    Rename("label_enc.weight", "training_groups.0.labels.weight"),
)
"""What DINO adds to that."""


def dino_without_encoder(recipe: Recipe) -> list[Rule]:
    """The key map of a DINO in detrex but for the layers of its encoder."""
    return [
        *AROUND,
        *DINO,
        *decoder_layers(),
        *heads(recipe.model.decoder.layers),
        *neck(),
        *backbone(recipe),
    ]


def encoder_layers() -> list[Rule]:
    """The deformable encoder."""
    at, to = "transformer.encoder.layers.{i}", "encoder.layers.{i}"
    return [
        *placed(SAMPLED, f"{at}.attentions.0", f"{to}.gather.attention"),
        *placed(FEED_FORWARD, f"{at}.ffns.0", f"{to}.feed_forward"),
        Rename(f"{at}.norms.0.{{p}}", f"{to}.gather.norm.{{p}}"),
        Rename(f"{at}.norms.1.{{p}}", f"{to}.feed_forward.norm.{{p}}"),
    ]


def decoder_layers() -> list[Rule]:
    """Self-attention, deformable attention, feed-forward: the decoder of DINO and its ancestors."""
    at, to = "transformer.decoder.layers.{i}", "decoder.layers.{i}"
    return [
        *placed(DENSE, f"{at}.attentions.0", f"{to}.self_attention"),
        *placed(SAMPLED, f"{at}.attentions.1", f"{to}.cross_attention"),
        *placed(FEED_FORWARD, f"{at}.ffns.0", f"{to}.feed_forward"),
        Rename(f"{at}.norms.0.{{p}}", f"{to}.self_norm.{{p}}"),
        Rename(f"{at}.norms.1.{{p}}", f"{to}.cross_norm.{{p}}"),
        Rename(f"{at}.norms.2.{{p}}", f"{to}.feed_forward.norm.{{p}}"),
    ]


def heads(layers: int) -> list[Rule]:
    """Separate heads a decoder layer; one more of each, the last, is that of the proposals.

    They are stored under the decoder and again at the top.
    """
    classes, boxes = "transformer.decoder.class_embed", "transformer.decoder.bbox_embed"
    return [
        Rename(f"{classes}.{layers}.{{p}}", "proposals.classes.{p}"),
        Rename(f"{boxes}.{layers}.layers.{{k}}.{{p}}", "proposals.boxes.layers.{k}.{p}"),
        Rename(f"{classes}.{{i}}.{{p}}", "heads.classes.{i}.{p}"),
        Rename(f"{boxes}.{{i}}.layers.{{k}}.{{p}}", "heads.boxes.{i}.layers.{k}.{p}"),
        Alias("class_embed.{rest}", f"{classes}.{{rest}}"),
        Alias("bbox_embed.{rest}", f"{boxes}.{{rest}}"),
    ]


def neck() -> list[Rule]:
    """Projections of the backbone's maps, and of the levels beyond them."""
    return [
        rule
        for official, ours in (("convs", "project"), ("extra_convs", "extend"))
        for rule in (
            Rename(f"neck.{official}.{{i}}.conv.{{p}}", f"neck.{ours}.{{i}}.0.{{p}}"),
            Rename(f"neck.{official}.{{i}}.norm.{{p}}", f"neck.{ours}.{{i}}.1.{{p}}"),
        )
    ]


def backbone(recipe: Recipe) -> list[Rule]:
    """Detectron2 numbers the stages of a ResNet from 2 and keeps each norm in its convolution.

    Its Swin has the names of the original.
    """
    if not isinstance(recipe.model.backbone, ResNetConfig):
        return [Rename("backbone.{rest}", "backbone.{rest}")]
    rules: list[Rule] = [
        Rename("backbone.stem.conv1.norm.{p}", "backbone.bn1.{p}"),
        Rename("backbone.stem.conv1.weight", "backbone.conv1.weight"),
    ]
    for stage in range(1, 5):
        at, to = f"backbone.res{stage + 1}.{{b}}", f"backbone.layer{stage}.{{b}}"
        rules += [
            Rename(f"{at}.shortcut.weight", f"{to}.downsample.0.weight"),
            Rename(f"{at}.shortcut.norm.{{p}}", f"{to}.downsample.1.{{p}}"),
            Rename(f"{at}.conv{{k}}.weight", f"{to}.conv{{k}}.weight"),
            Rename(f"{at}.conv{{k}}.norm.{{p}}", f"{to}.bn{{k}}.{{p}}"),
        ]
    return rules
