"""The interleaved encoder's own laws, for every way it can be set up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.lite import LiteEncoderConfig
from leandetr.models.heads import ProposalHead
from leandetr.types import Foreground
from tiny import CLASSES, DIM, blocks, canvas, stir

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


def tokens(junk=0.0):
    return canvas([blocks(4, 6), blocks(3, 4)], SHAPES, junk=junk)


def moved(before, after):
    return (before.features != after.features).any(dim=-1)


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
        changed.append(moved(arguments[0], output)[0])

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


LOW = (24, 12)
"""Low-level tokens of each image without its padding."""


def scored(keep_low=0.3, **ways):
    encoder, head = build(high_levels=2, keep_low=keep_low, **ways), ProposalHead(DIM, CLASSES)
    stir(head)
    return encoder, head


@given(keep=st.integers(1, 999))
def test_scored_lite_refines_the_best_low_tokens_and_all_high_ones(keep):
    encoder, head = scored(keep / 1000)
    given = tokens(junk=3.0)
    start = given.starts[-2]
    found = encoder(given, head)
    counts = [valid * keep // 1000 + 1 for valid in LOW]
    assert found.salience.counts.tolist() == counts
    assert isinstance(found.salience.teacher, Foreground)
    change = moved(given, found.tokens)
    assert change[:, start:].all()
    low = change[:, :start]
    assert low.sum(dim=1).tolist() == counts
    assert not (low & given.padding[:, :start]).any()
    for image, count in enumerate(counts):
        scores = found.salience.logits[image, :start]
        best = scores.masked_fill(given.padding[image, :start], -torch.inf).topk(count).indices
        assert low[image, best].all()
        assert torch.equal(found.salience.kept[image, :count], best)


def test_scored_lite_that_keeps_all_is_lite_on_valid_tokens():
    encoder, head = scored(1.0)
    plain = build(high_levels=2)
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if "scorer" not in k})
    given = tokens(junk=3.0)
    found, expected = encoder(given, head).tokens, plain(given, None).tokens
    valid = ~given.padding
    torch.testing.assert_close(found.features[valid], expected.features[valid])


def test_scored_lite_leaves_the_other_low_tokens_as_they_came():
    encoder, head = scored(0.3)
    given = tokens()
    found = encoder(given, head)
    start = given.starts[-2]
    rest = torch.ones(2, start, dtype=torch.bool)
    for image, count in enumerate(found.salience.counts.tolist()):
        rest[image, found.salience.kept[image, :count]] = False
    assert torch.equal(found.tokens.features[:, :start][rest], given.features[:, :start][rest])


def test_scored_lite_learns_with_all_weights():
    encoder, head = scored(0.5)
    found = encoder(tokens(), head)
    (found.tokens.features.square().sum() + found.salience.logits.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in encoder.parameters())


def test_scored_lite_scores_an_image_by_itself():
    """Neither the rest of the batch nor the canvas has a say, unlike in the official scorers."""
    encoder, head = scored()
    alone = canvas([blocks(3, 4)], ((3, 4), (1, 2), (1, 1)))
    wide = [torch.zeros(h, w, 2 * DIM) for h, w in alone.shapes]
    given = torch.cat((alone.features, alone.position), dim=-1)
    for level, (height, width) in enumerate(alone.shapes):
        first = alone.starts[level]
        wide[level] = given[0, first : first + height * width].reshape(height, width, 2 * DIM)
    both = canvas([blocks(4, 6), wide], SHAPES, junk=3.0)
    expected = encoder(alone, head)
    found = encoder(both, head)
    valid = ~both.padding[1]
    torch.testing.assert_close(found.salience.logits[1, valid], expected.salience.logits[0])
    torch.testing.assert_close(found.tokens.features[1, valid], expected.tokens.features[0])


def test_tokens_are_scored_only_with_a_share():
    assert not LiteEncoderConfig().scores_tokens
    assert LiteEncoderConfig(keep_low=0.3).scores_tokens
    with pytest.raises(RecipeError, match=r"encoder\.keep_low above 0 and up to 1"):
        LiteEncoderConfig(keep_low=0.0)
