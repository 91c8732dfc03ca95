"""Keys of IDEA-Research/DINO checkpoints."""

from leandetr.checkpoints.keymap import Alias, Rename, Rule
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.recipes.recipe import Recipe

ENCODER_LAYER = (
    Rename("{at}.self_attn.sampling_offsets.{p}", "{to}.gather.attention.offsets.linear.{p}"),
    Rename("{at}.self_attn.attention_weights.{p}", "{to}.gather.attention.weights.{p}"),
    Rename("{at}.self_attn.value_proj.{p}", "{to}.gather.attention.value.{p}"),
    Rename("{at}.self_attn.output_proj.{p}", "{to}.gather.attention.output.{p}"),
    Rename("{at}.norm1.{p}", "{to}.gather.norm.{p}"),
)
"""Rules for one encoder layer; `at` and `to` are put in by `placed`."""

FEED_FORWARD = (
    Rename("{at}.linear1.{p}", "{to}.linear1.{p}"),
    Rename("{at}.linear2.{p}", "{to}.linear2.{p}"),
    Rename("{at}.norm2.{p}", "{to}.norm.{p}"),
)

DECODER = (
    Rename(
        "transformer.decoder.layers.{i}.cross_attn.sampling_offsets.{p}",
        "decoder.layers.{i}.cross_attention.offsets.linear.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.cross_attn.attention_weights.{p}",
        "decoder.layers.{i}.cross_attention.weights.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.cross_attn.value_proj.{p}",
        "decoder.layers.{i}.cross_attention.value.{p}",
    ),
    Rename(
        "transformer.decoder.layers.{i}.cross_attn.output_proj.{p}",
        "decoder.layers.{i}.cross_attention.output.{p}",
    ),
    Rename("transformer.decoder.layers.{i}.norm1.{p}", "decoder.layers.{i}.cross_norm.{p}"),
    Rename(
        "transformer.decoder.layers.{i}.self_attn.in_proj_weight",
        "decoder.layers.{i}.self_attention.inputs.weight",
    ),
    Rename(
        "transformer.decoder.layers.{i}.self_attn.in_proj_bias",
        "decoder.layers.{i}.self_attention.inputs.bias",
    ),
    Rename(
        "transformer.decoder.layers.{i}.self_attn.out_proj.{p}",
        "decoder.layers.{i}.self_attention.output.{p}",
    ),
    Rename("transformer.decoder.layers.{i}.norm2.{p}", "decoder.layers.{i}.self_norm.{p}"),
    Rename(
        "transformer.decoder.layers.{i}.linear1.{p}", "decoder.layers.{i}.feed_forward.linear1.{p}"
    ),
    Rename(
        "transformer.decoder.layers.{i}.linear2.{p}", "decoder.layers.{i}.feed_forward.linear2.{p}"
    ),
    Rename("transformer.decoder.layers.{i}.norm3.{p}", "decoder.layers.{i}.feed_forward.norm.{p}"),
    Rename("transformer.decoder.norm.{p}", "decoder.norm.{p}"),
    Rename(
        "transformer.decoder.ref_point_head.layers.{k}.{p}", "decoder.embed_boxes.layers.{k}.{p}"
    ),
)

TWO_STAGE = (
    Rename("transformer.level_embed", "neck.level_embedding"),
    Rename("transformer.tgt_embed.weight", "queries.content.weight"),
    Rename("transformer.enc_output.{p}", "proposals.project.{p}"),
    Rename("transformer.enc_output_norm.{p}", "proposals.norm.{p}"),
    Rename("transformer.enc_out_class_embed.{p}", "proposals.classes.{p}"),
    Rename("transformer.enc_out_bbox_embed.layers.{k}.{p}", "proposals.boxes.layers.{k}.{p}"),
    Rename("label_enc.weight", "training_groups.0.labels.weight"),
)


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a DINO detector with the deformable encoder."""
    layers = [
        rule
        for i in range(recipe.model.encoder.layers)
        for rule in (
            *placed(ENCODER_LAYER, f"transformer.encoder.layers.{i}", f"encoder.layers.{i}"),
            *placed(
                FEED_FORWARD,
                f"transformer.encoder.layers.{i}",
                f"encoder.layers.{i}.feed_forward",
            ),
        )
    ]
    return [*layers, *around_the_encoder(recipe)]


def around_the_encoder(recipe: Recipe) -> list[Rule]:
    """Everything but the encoder: shared by DINO and Lite-DINO."""
    return [*DECODER, *TWO_STAGE, *_heads(recipe), *neck(recipe), _backbone(recipe)]


def placed(rules: tuple[Rename, ...], at: str, to: str) -> list[Rename]:
    """The same rules below other prefixes."""
    return [
        Rename(rule.official.replace("{at}", at), rule.ours.replace("{to}", to)) for rule in rules
    ]


def _heads(recipe: Recipe) -> list[Rule]:
    """Heads are stored under the decoder and again at the top; shared ones once a layer."""
    boxes = "transformer.decoder.bbox_embed"
    classes = "transformer.decoder.class_embed"
    rules: list[Rule] = []
    if recipe.model.shared_heads:
        rules += [
            Rename(f"{boxes}.0.layers.{{k}}.{{p}}", "heads.boxes.0.layers.{k}.{p}"),
            Rename(f"{classes}.0.{{p}}", "heads.classes.0.{p}"),
        ]
        for i in range(1, recipe.model.decoder.layers):
            rules += [
                Alias(f"{boxes}.{i}.{{rest}}", f"{boxes}.0.{{rest}}"),
                Alias(f"{classes}.{i}.{{rest}}", f"{classes}.0.{{rest}}"),
            ]
    else:
        rules += [
            Rename(f"{boxes}.{{i}}.layers.{{k}}.{{p}}", "heads.boxes.{i}.layers.{k}.{p}"),
            Rename(f"{classes}.{{i}}.{{p}}", "heads.classes.{i}.{p}"),
        ]
    return [
        *rules,
        Alias("bbox_embed.{i}.{rest}", f"{boxes}.{{i}}.{{rest}}"),
        Alias("class_embed.{i}.{rest}", f"{classes}.{{i}}.{{rest}}"),
    ]


def neck(recipe: Recipe) -> list[Rule]:
    """Official projections are numbered through; ours tell maps of the backbone from extra ones."""
    outputs = len(recipe.model.backbone.outputs)
    homes = [f"neck.project.{i}" for i in range(outputs)]
    homes += [f"neck.extend.{i}" for i in range(recipe.model.neck.levels - outputs)]
    return [
        Rename(f"input_proj.{i}.{{k}}.{{p}}", f"{home}.{{k}}.{{p}}") for i, home in enumerate(homes)
    ]


def _backbone(recipe: Recipe) -> Rename:
    inside = "body." if isinstance(recipe.model.backbone, ResNetConfig) else ""
    return Rename(f"backbone.0.{inside}{{rest}}", "backbone.{rest}")
