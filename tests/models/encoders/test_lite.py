"""The interleaved encoder's own laws, for every way it can be set up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.lite import LiteEncoderConfig
from tiny import DIM, blocks, canvas, stir

SHAPES = ((4, 6), (2, 3), (1, 2))
SMALL = {"heads": 2, "points": 1, "hidden": 16}
WAYS = [
    {},
    {"key_aware": False},
    {"own_key": True},
    {"shared_offsets": True},
    {"key_aware": False, "shared_offsets": True},
    {"low_hidden": None},
    {"low_hidden": 8},
]


def build(high_levels=2, high_updates=2, blocks=2, **ways):
    config = LiteEncoderConfig(high_levels, high_updates, blocks, **SMALL | ways)
    encoder = config.build(Dims(DIM, len(SHAPES), classes=3))
    stir(encoder)
    return encoder


def tokens():
    return canvas([blocks(4, 6), blocks(3, 4)], SHAPES)


@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_every_way_refines_all_tokens_and_learns_with_all_weights(ways):
    encoder = build(**ways)
    given = tokens()
    found = encoder(given, None).tokens
    assert found.features.shape == given.features.shape
    assert not (found.features == given.features).all(dim=-1).any()
    found.features.square().sum().backward()
    assert all(parameter.grad.any() for parameter in encoder.parameters())


@given(high_levels=st.integers(1, 2), high_updates=st.integers(1, 3), count=st.integers(1, 2))
def test_high_tokens_are_updated_a_times_and_low_tokens_once_a_block(
    high_levels, high_updates, count
):
    """HxLy-(A+1)xB: see which tokens each layer changes."""
    encoder = build(high_levels, high_updates, count)
    given = tokens()
    start = given.starts[-high_levels]
    changed = []

    def note(module, arguments, output):
        changed.append((arguments[0].features != output.features).any(dim=-1)[0])

    layers = [layer for block in encoder.blocks for layer in (*block.high, block.full)]
    for layer in layers:
        layer.register_forward_hook(note)
    encoder(given, None)
    times = torch.stack(changed).sum(dim=0)
    assert (times[:start] == count).all()
    assert (times[start:] == count * high_updates).all()


def test_low_tokens_have_a_narrow_feed_forward_block():
    split = build(low_hidden=8).blocks[0].full.feed_forward
    assert (split.low.linear1.out_features, split.high.linear1.out_features) == (8, 16)
    features = torch.randn(1, 5, DIM)
    mixed = split(features, 3)
    torch.testing.assert_close(mixed[:, :3], split.low(features[:, :3]))
    torch.testing.assert_close(mixed[:, 3:], split.high(features[:, 3:]))


@pytest.mark.parametrize("name", ["high_levels", "high_updates", "blocks", "points", "hidden"])
def test_counts_of_nothing_are_refused(name):
    with pytest.raises(RecipeError, match=rf"encoder\.{name} of at least 1; got 0"):
        LiteEncoderConfig(**{name: 0})


def test_all_levels_high_is_refused_with_what_fits():
    with pytest.raises(RecipeError, match=r"fewer .* than the 3 levels.*encoder\.high_levels=2"):
        build(high_levels=3)
    with pytest.raises(RecipeError, match=r"neck\.levels=2 or more, or encoder=deformable"):
        LiteEncoderConfig(high_levels=1).build(Dims(DIM, 1, 3))


def test_own_keys_without_keys_are_refused():
    with pytest.raises(RecipeError, match=r"encoder\.key_aware=true or own_key=false"):
        LiteEncoderConfig(key_aware=False, own_key=True)
