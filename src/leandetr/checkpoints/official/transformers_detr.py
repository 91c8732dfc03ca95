"""Keys and config of DETR in Hugging Face transformers, `DetrForObjectDetection`."""

from dataclasses import replace

from leandetr.checkpoints.keymap import Rename, Rule
from leandetr.checkpoints.official.transformers_layout import (
    Config,
    as_in_memory_too,
    attention,
    backbone,
    backbone_rules,
    check,
    class_count,
    without_auxiliary_loss,
)
from leandetr.recipes.detr import detr_r50
from leandetr.recipes.recipe import Recipe

ENCODER_LAYER, DECODER_LAYER = "model.encoder.layers.{i}", "model.decoder.layers.{i}"

AROUND = (
    Rename(f"{ENCODER_LAYER}.fc1.{{p}}", "encoder.layers.{i}.feed_forward.layers.0.{p}"),
    Rename(f"{ENCODER_LAYER}.fc2.{{p}}", "encoder.layers.{i}.feed_forward.layers.1.{p}"),
    Rename(f"{ENCODER_LAYER}.self_attn_layer_norm.{{p}}", "encoder.layers.{i}.gather.norm.{p}"),
    Rename(f"{ENCODER_LAYER}.final_layer_norm.{{p}}", "encoder.layers.{i}.refine.norm.{p}"),
    Rename(f"{DECODER_LAYER}.fc1.{{p}}", "decoder.layers.{i}.feed_forward.layers.0.{p}"),
    Rename(f"{DECODER_LAYER}.fc2.{{p}}", "decoder.layers.{i}.feed_forward.layers.1.{p}"),
    Rename(f"{DECODER_LAYER}.self_attn_layer_norm.{{p}}", "decoder.layers.{i}.talk.norm.{p}"),
    Rename(f"{DECODER_LAYER}.encoder_attn_layer_norm.{{p}}", "decoder.layers.{i}.look.norm.{p}"),
    Rename(f"{DECODER_LAYER}.final_layer_norm.{{p}}", "decoder.layers.{i}.refine.norm.{p}"),
    Rename("model.decoder.layernorm.{p}", "decoder.norm.{p}"),
    Rename("model.input_projection.{p}", "neck.project.{p}"),
    Rename("model.query_position_embeddings.weight", "queries.position.weight"),
    Rename("class_labels_classifier.{p}", "heads.classes.0.{p}"),
    Rename("bbox_predictor.layers.{k}.{p}", "heads.boxes.0.layers.{k}.{p}"),
)
"""Everything but attention and backbone; shared with Conditional DETR."""


def looks_like(config: Config) -> bool:
    """Whether this is the config of a DETR."""
    return config.get("model_type") == "detr"


def recipe(config: Config) -> Recipe:
    """The recipe that a config describes. Raises `CheckpointMismatch` for what is not here."""
    found = dense(config, detr_r50())
    return found.with_model(top=found.model.queries.count)


def rules(recipe: Recipe) -> list[Rule]:
    """The key map of a DETR, whatever its sizes."""
    return as_in_memory_too(
        [
            *attention(f"{ENCODER_LAYER}.self_attn", "encoder.layers.{i}.attention"),
            *attention(f"{DECODER_LAYER}.self_attn", "decoder.layers.{i}.self_attention"),
            *attention(f"{DECODER_LAYER}.encoder_attn", "decoder.layers.{i}.cross_attention"),
            *AROUND,
            *backbone_rules(),
        ]
    )


def dense(config: Config, base: Recipe) -> Recipe:
    """`base` in the sizes of a config: for DETR and Conditional DETR, whose configs are alike."""
    check(config)
    without_auxiliary_loss(config)
    model = base.model
    dropout = float(config.get("dropout", 0.1))
    features = backbone(config, (3,))
    return base.with_model(
        backbone=replace(features, outputs=features.outputs[-1:]),  # the last map is used
        encoder=replace(
            model.encoder,
            layers=config.get("encoder_layers", 6),
            heads=config.get("encoder_attention_heads", 8),
            hidden=config.get("encoder_ffn_dim", 2048),
            dropout=dropout,
        ),
        queries=replace(model.queries, count=config.get("num_queries", model.queries.count)),
        decoder=replace(
            model.decoder,
            layers=config.get("decoder_layers", 6),
            heads=config.get("decoder_attention_heads", 8),
            hidden=config.get("decoder_ffn_dim", 2048),
            dropout=dropout,
        ),
        dim=config.get("d_model", 256),
        classes=class_count(config),
    )
