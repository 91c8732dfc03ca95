"""Encoders and decoders that sample: their sizes, and the interleaved encoder's blocks."""

from typing import Any

from leandetr.checkpoints.families.facts import Facts
from leandetr.errors import CheckpointMismatch
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.models.encoders.lite import LiteEncoderConfig

POINTS = 4
"""Points a head and level in every released model."""

HIGH = "keys do not tell how many of the levels are high-level (enc_scale)"
BLOCKS = "without a narrow feed-forward keys do not tell the number of blocks (num_expansion)"


def sizes(facts: Facts, stack: str, *, levels: int) -> dict[str, Any]:
    """Layers, heads, points and hidden width of the `encoder` or `decoder` named by `stack`."""
    at, wide = f"transformer.{stack}.layers", facts.names.wide
    offsets = f"{at}.0.{_attention(facts, stack)}.sampling_offsets"
    heads = facts.heads(f"{stack}.heads", offsets=f"{offsets}.bias")
    return {
        "layers": facts.count(f"{at}.{{i}}.{wide}.weight"),
        "heads": heads,
        "points": points(facts.rows(f"{offsets}.weight"), heads, levels, stack),
        "hidden": facts.rows(f"{at}.0.{wide}.weight"),
    }


def points(rows: int, heads: int, levels: int, stack: str) -> int:
    """Points a head and level, by the rows of the offsets: two for each point."""
    count, left = divmod(rows, 2 * heads * levels)
    if left or not count:
        raise CheckpointMismatch(
            f"expected a multiple of {2 * heads * levels} offsets in the {stack} ({heads} heads, "
            f"{levels} levels), got {rows}; type --set {stack}.heads=N with another number"
        )
    return count


def is_interleaved(facts: Facts) -> bool:
    """Whether the attention has a query projection or some layers a narrow feed-forward block."""
    at = "transformer.encoder.layers"
    asks, narrow = f"{at}.0.self_attn.query_proj.weight", f"{at}.{{i}}.linear12.weight"
    return facts.has(asks) or facts.has(narrow)


def is_key_aware(facts: Facts, stack: str) -> bool:
    """Whether keys, and not a projection, weigh the samples."""
    at = f"transformer.{stack}.layers.0.{_attention(facts, stack)}"
    return not facts.has(f"{at}.attention_weights.weight")


def encoder(facts: Facts, *, levels: int, dropout: float) -> Any:
    """The deformable or the interleaved encoder."""
    if is_interleaved(facts):
        return interleaved(facts, levels=levels, dropout=dropout)
    return DeformableEncoderConfig(**sizes(facts, "encoder", levels=levels), dropout=dropout)


def interleaved(facts: Facts, *, levels: int, dropout: float) -> LiteEncoderConfig:
    """Lite DETR's encoder: layers with a narrow feed-forward end a block."""
    at = "transformer.encoder.layers"
    key_aware = is_key_aware(facts, "encoder")
    own_levels = 1 if _shares_offsets(facts, levels, key_aware=key_aware) else levels
    found = sizes(facts, "encoder", levels=own_levels)
    layers = found.pop("layers")
    narrow = [i for i in range(layers) if facts.has(f"{at}.{i}.linear12.weight")]
    blocks = len(narrow)
    if not narrow:
        blocks = facts.asked("encoder.blocks", "num_expansion", 3 if layers % 3 == 0 else 1, BLOCKS)
    updates = layers // max(blocks, 1)
    if updates * blocks != layers or narrow not in ([], [*range(updates - 1, layers, updates)]):
        raise CheckpointMismatch(
            f"expected {blocks} equal blocks in the encoder, got {layers} layers"
            + (f" with a narrow feed-forward in {narrow}" if narrow else "")
        )
    return LiteEncoderConfig(
        high_levels=facts.asked("encoder.high_levels", "enc_scale", min(3, levels - 1), HIGH),
        high_updates=updates,
        blocks=blocks,
        low_hidden=facts.rows(f"{at}.{{i}}.linear12.weight") if narrow else None,
        key_aware=key_aware,
        own_key=facts.has(f"{at}.0.self_attn.key_proj.weight"),
        shared_offsets=own_levels < levels,
        dropout=dropout,
        **found,
    )


def _attention(facts: Facts, stack: str) -> str:
    return facts.names.encoder if stack == "encoder" else facts.names.decoder


def _shares_offsets(facts: Facts, levels: int, *, key_aware: bool) -> bool:
    """Whether one set of offsets serves all levels (`same_loc`)."""
    at = "transformer.encoder.layers.0.self_attn"
    offsets = facts.rows(f"{at}.sampling_offsets.weight")
    if levels == 1:
        return False
    if not key_aware:
        return offsets < 2 * facts.rows(f"{at}.attention_weights.weight")
    heads = facts.heads("encoder.heads", offsets=f"{at}.sampling_offsets.bias")
    return facts.told("same_loc", offsets == 2 * heads * POINTS)
