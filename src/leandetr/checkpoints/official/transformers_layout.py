"""What the DETRs of Hugging Face transformers share: their config, their backbones, their names.

Models on disk have the names of transformers 4, which version 5 still writes; in memory version 5
calls some of them otherwise. Both are read, those on disk are written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from leandetr.checkpoints.keymap import Alias, Drop, Fuse, Implied, Rename, Rule
from leandetr.errors import CheckpointMismatch
from leandetr.models.backbones.residual import BasicBlock
from leandetr.models.backbones.resnet import LAYOUTS, ResNetConfig

Config = Mapping[str, Any]
"""The content of a config.json."""

NO_LABELS = 2
"""Classes of a model whose config names none (PreTrainedConfig.num_labels)."""

IN_MEMORY = (
    ("backbone.conv_encoder.", "backbone."),
    ("_attn.out_proj.", "_attn.o_proj."),
    (".fc1.", ".mlp.fc1."),
    (".fc2.", ".mlp.fc2."),
)
"""Names on disk, and what transformers 5 calls them (its conversion_mapping.py)."""

MUST = {
    "position_embedding_type": "sine",
    "activation_function": "relu",
}
"""Choices of a config for which there is no counterpart here but this one, the default."""

TIMM = "timm_backbone"
"""Kind of the backbones of models that say nothing about theirs."""

COUNTER = "how many batches were seen plays no part in a frozen norm"


def check(config: Config, **more: Any) -> None:
    """Raise `CheckpointMismatch` for choices that cannot be reproduced; `more` adds to `MUST`."""
    for name, wanted in (MUST | more).items():
        if config.get(name, wanted) != wanted:
            raise CheckpointMismatch(
                f"config.json: expected {name}={wanted!r}, which is all that LeanDETR has; "
                f"got {config[name]!r}"
            )


def without_auxiliary_loss(config: Config) -> None:
    """Raise `CheckpointMismatch` for a decoder that norms its features between the layers.

    DETR and Conditional DETR of transformers do so when `auxiliary_loss` is set, in evaluation too
    (huggingface/transformers:src/transformers/models/detr/modeling_detr.py, DetrDecoder.forward);
    the papers' code norms copies for the heads only.
    """
    if config.get("auxiliary_loss", False):
        raise CheckpointMismatch(
            "config.json: with auxiliary_loss=true transformers norms the features between decoder "
            "layers, as no official DETR does; if the model was trained without it, set it to false"
        )


def class_names(config: Config) -> tuple[str, ...]:
    """The names of the classes, in order; empty where the config has none of its own."""
    labels = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    names = tuple(labels[index] for index in sorted(labels))
    made_up = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return () if made_up else names


def class_count(config: Config) -> int:
    """How many classes the head has, background not counted."""
    return len(config.get("id2label") or range(NO_LABELS))


def backbone(config: Config, outputs: tuple[int, ...]) -> ResNetConfig:
    """The ResNet of a config; `outputs` where the config leaves them to the detector.

    Raises `CheckpointMismatch` for other backbones, and for ResNets of other sizes.
    """
    inner = config.get("backbone_config") or {}
    kind = inner.get("model_type", TIMM)
    if kind == "resnet":
        stages = [name for name in inner.get("out_features") or () if name.startswith("stage")]
        chosen = tuple(int(name.removeprefix("stage")) - 1 for name in stages)
        return ResNetConfig(depth=_depth(inner), outputs=chosen or outputs)
    timm = inner.get("backbone") or config.get("backbone") or "resnet50"
    name = str(timm if kind == TIMM else kind)
    found = re.fullmatch(r"resnet(\d+)(\..*)?", name)
    if found is None or int(found[1]) not in LAYOUTS:
        raise CheckpointMismatch(
            f"config.json: expected a backbone of resnet{', resnet'.join(map(str, LAYOUTS))}; "
            f"got {name}, whose names in transformers are not known here"
        )
    dilated = bool(config.get("dilation")) or inner.get("output_stride") == 16
    return ResNetConfig(depth=int(found[1]), outputs=outputs, dilate_last=dilated)


def _depth(inner: Config) -> int:
    """The depth of transformers' own ResNet."""
    check(inner, hidden_act="relu", downsample_in_first_stage=False, downsample_in_bottleneck=False)
    depths = tuple(inner.get("depths", (3, 4, 6, 3)))
    basic = inner.get("layer_type", "bottleneck") == "basic"
    expansion = 1 if basic else 4
    widths = [64, *(64 * expansion << stage for stage in range(4))]
    given = [inner.get("embedding_size", 64), *inner.get("hidden_sizes", (256, 512, 1024, 2048))]
    for depth, (block, blocks) in LAYOUTS.items():
        if blocks == depths and (block is BasicBlock) == basic and given == widths:
            return depth
    raise CheckpointMismatch(
        f"config.json: expected a ResNet of {', '.join(map(str, LAYOUTS))} layers; "
        f"got one of {depths} blocks and widths {given}"
    )


def backbone_rules() -> list[Rule]:
    """Keys of transformers' own ResNet, then of timm's, which are ours."""
    at = "model.backbone.conv_encoder.model"
    rules: list[Rule] = [
        Drop(f"{at}.{{rest}}.num_batches_tracked", COUNTER),
        Rename(f"{at}.embedder.embedder.convolution.{{p}}", "backbone.conv1.{p}"),
        Rename(f"{at}.embedder.embedder.normalization.{{p}}", "backbone.bn1.{p}"),
    ]
    for stage in range(4):
        block = f"{at}.encoder.stages.{stage}.layers.{{j}}"
        ours = f"backbone.layer{stage + 1}.{{j}}"
        rules += [
            Rename(f"{block}.shortcut.convolution.{{p}}", f"{ours}.downsample.0.{{p}}"),
            Rename(f"{block}.shortcut.normalization.{{p}}", f"{ours}.downsample.1.{{p}}"),
        ]
        for step in range(3):
            inner = f"{block}.layer.{step}"
            rules += [
                Rename(f"{inner}.convolution.{{p}}", f"{ours}.conv{step + 1}.{{p}}"),
                Rename(f"{inner}.normalization.{{p}}", f"{ours}.bn{step + 1}.{{p}}"),
            ]
    return [*rules, Rename(f"{at}.{{rest}}", "backbone.{rest}")]


def attention(official: str, ours: str) -> list[Rule]:
    """Multi-head attention: three projections there are one here."""
    parts = tuple(f"{official}.{part}_proj.{{p}}" for part in "qkv")
    return [
        Fuse(parts, f"{ours}.inputs.{{p}}"),
        Rename(f"{official}.out_proj.{{p}}", f"{ours}.output.{{p}}"),
    ]


def as_in_memory_too(
    rules: Iterable[Rule], names: Sequence[tuple[str, str]] = IN_MEMORY
) -> list[Rule]:
    """The rules, and behind them the same for the names of models in memory."""
    known = list(rules)
    return [*known, *(rule for rule in (_in_memory(rule, names) for rule in known) if rule)]


def _in_memory(rule: Rule, names: Sequence[tuple[str, str]]) -> Rule | None:
    """The rule under the names in memory; None where these are the same."""

    def renamed(key: str) -> str:
        for disk, memory in names:
            key = key.replace(disk, memory)
        return key

    match rule:
        case Fuse(officials):
            other: Rule = replace(rule, officials=tuple(map(renamed, officials)))
        case Rename(official) | Drop(official):
            other = replace(rule, official=renamed(official))
        case Alias(official, of) | Implied(official, of):
            other = replace(rule, official=renamed(official), of=renamed(of))
    return None if other == rule else other
