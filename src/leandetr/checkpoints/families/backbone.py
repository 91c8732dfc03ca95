"""Which backbone and neck the keys of a checkpoint tell."""

import math
from dataclasses import replace
from typing import Any

from leandetr.checkpoints.families.facts import Facts
from leandetr.errors import CheckpointMismatch
from leandetr.models.backbones.pretrained import KNOWN
from leandetr.models.backbones.residual import Bottleneck
from leandetr.models.backbones.resnet import LAYOUTS, ResNetConfig
from leandetr.models.backbones.swin import VARIANTS, SwinConfig

DILATION = "keys do not tell whether the last stage dilates (DC5)"


def backbone(facts: Facts, like: Any) -> Any:
    """The config of the backbone; what keys do not tell is as `like` has it."""
    at = facts.names.backbone
    if facts.has(f"{at}.patch_embed.proj.weight"):
        return _swin(facts, at)
    if facts.has(f"{at}.layer1.0.conv1.weight"):
        return _resnet(facts, [f"{at}.layer{stage}" for stage in (1, 2, 3, 4)], like)
    if facts.has(f"{at}.res2.0.conv1.weight"):
        return _resnet(facts, [f"{at}.res{stage}" for stage in (2, 3, 4, 5)], like)
    found = ", ".join(facts.keys("backbone.{rest}")[:3]) or "no keys of a backbone"
    raise CheckpointMismatch(
        f"expected a ResNet or Swin backbone, got {found}; other backbones cannot be converted"
    )


def mapped(facts: Facts, like: Any) -> Any:
    """The backbone returning the maps that the neck of several levels takes."""
    numbered = [
        template.replace("{i}", str(i))
        for template in facts.names.maps
        for i in range(facts.count(template))
    ]
    shapes = [facts.shape(key) for key in numbered]
    return with_maps(backbone(facts, like), [shape[1] for shape in shapes if shape[-1] == 1])


def with_maps(config: Any, widths: list[int]) -> Any:
    """The backbone returning the maps that have so many channels, which the neck projects."""
    channels = _channels(config)
    unknown = [width for width in widths if width not in channels]
    if unknown:
        raise CheckpointMismatch(
            f"the neck takes maps of {unknown[0]} channels, which {config.architecture} has not; "
            f"its stages have {channels}"
        )
    return replace(config, outputs=tuple(channels.index(width) for width in widths))


def dilated(facts: Facts, config: Any) -> Any:
    """The backbone with its last stage dilated, if the arguments say so; of ResNets only."""
    if not isinstance(config, ResNetConfig):
        return config
    path = "backbone.dilate_last"
    return replace(config, dilate_last=facts.asked(path, "dilation", False, DILATION))


def _channels(config: Any) -> list[int]:
    """Channels of each of the four stages."""
    if isinstance(config, SwinConfig):
        return [VARIANTS[config.variant][0] << stage for stage in range(4)]
    return [(64 << stage) * LAYOUTS[config.depth][0].expansion for stage in range(4)]


def _resnet(facts: Facts, stages: list[str], like: Any) -> ResNetConfig:
    blocks = tuple(facts.count(f"{stage}.{{i}}.conv1.weight") for stage in stages)
    deep = facts.has(f"{stages[0]}.0.conv3.weight")
    for depth, (block, known) in LAYOUTS.items():
        if known == blocks and (block is Bottleneck) == deep:
            config = like if isinstance(like, ResNetConfig) else ResNetConfig()
            return replace(config, depth=depth, outputs=(3,), weights="imagenet")
    raise CheckpointMismatch(
        f"expected a ResNet of depth {', '.join(map(str, LAYOUTS))}, "
        f"got stages of {', '.join(map(str, blocks))} blocks"
    )


def _swin(facts: Facts, at: str) -> SwinConfig:
    embed = facts.rows(f"{at}.patch_embed.proj.weight")
    depths = tuple(
        facts.count(f"{at}.layers.{stage}.blocks.{{i}}.norm1.weight") for stage in range(4)
    )
    table = facts.rows(f"{at}.layers.0.blocks.0.attn.relative_position_bias_table")
    window = (math.isqrt(table) + 1) // 2
    for variant, (channels, known, _) in VARIANTS.items():
        if channels == embed and depths == known:
            name = f"swin-{variant}-w{window}"
            weights = next((w for w in ("imagenet", "imagenet-22k") if (name, w) in KNOWN), None)
            return SwinConfig(variant=variant, window=window, weights=weights)
    raise CheckpointMismatch(
        f"expected a Swin-T, S, B or L, got {embed} channels and stages of {depths} blocks"
    )
