"""The dense encoder's own laws."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.dense import DenseEncoderConfig
from tiny import DIM, blocks, canvas, stir

SHAPES = ((4, 6), (2, 3), (1, 2))


def build(levels=3, **changes):
    config = DenseEncoderConfig(**{"layers": 2, "heads": 2, "hidden": 16} | changes)
    encoder = config.build(Dims(DIM, levels, 3))
    stir(encoder)
    return encoder.eval()


def tokens(levels=3):
    return canvas(
        [blocks(4, 6, levels=levels), blocks(3, 4, levels=levels)], SHAPES[:levels], junk=2.0
    )


@pytest.mark.parametrize(("level", "start", "stop"), [(-1, 30, 32), (1, 24, 30), (0, 0, 24)])
def test_one_level_is_refined_and_the_others_pass(level, start, stop):
    given = tokens()
    found = build(level=level)(given, None).tokens
    changed = (found.features != given.features).any(dim=-1)
    assert changed[:, start:stop].all()
    assert not changed[:, :start].any()
    assert not changed[:, stop:].any()
    assert torch.equal(found.position, given.position)


def test_a_level_is_refined_as_if_it_were_alone():
    given, encoder = tokens(), build(level=1)
    alone = replace(
        given,
        **{name: getattr(given, name)[:, 24:30] for name in ("features", "position", "padding")},
        valid_ratios=given.valid_ratios[:, 1:2],
        shapes=SHAPES[1:2],
    )
    single = build(levels=1)
    single.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(
        single(alone, None).tokens.features, encoder(given, None).tokens.level(1)
    )


@pytest.mark.parametrize("pre_norm", [False, True])
def test_padded_tokens_do_not_matter(pre_norm):
    encoder = build(levels=1, pre_norm=pre_norm)
    contents = [blocks(4, 6, levels=1), blocks(3, 4, levels=1)]
    tight = canvas(contents, ((4, 6),))
    loose = canvas(contents, ((6, 7),), junk=5.0)
    one, other = (encoder(some, None).tokens.features[~some.padding] for some in (tight, loose))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_post_norm_is_that_of_pytorch():
    """`nn.TransformerEncoderLayer` without positions, with the same weights."""
    encoder = build(levels=1, layers=1)
    (layer,) = encoder.layers
    theirs = nn.TransformerEncoderLayer(DIM, 2, 16, batch_first=True).eval()
    names = {
        "self_attn.in_proj_": "attention.inputs.",
        "self_attn.out_proj.": "attention.output.",
        "linear1.": "feed_forward.layers.0.",
        "linear2.": "feed_forward.layers.1.",
        "norm1.": "gather.norm.",
        "norm2.": "refine.norm.",
    }
    ours = layer.state_dict()
    theirs.load_state_dict(
        {their + end: ours[our + end] for their, our in names.items() for end in ("weight", "bias")}
    )
    given = tokens(levels=1)
    given = replace(given, position=torch.zeros_like(given.position))
    real = ~given.padding
    expected = theirs(given.features, src_key_padding_mask=given.padding)
    found = encoder(given, None).tokens.features
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=0)


def test_pre_norm_keeps_what_was_there_and_ends_in_a_norm():
    post, pre = build(levels=1), build(levels=1, pre_norm=True)
    extra = set(pre.state_dict()) - set(post.state_dict())
    assert extra == {"norm.weight", "norm.bias"}
    pre.load_state_dict(post.state_dict() | {"norm.weight": torch.ones(DIM), "norm.bias": zeros()})
    given = tokens(levels=1)
    one, other = (encoder(given, None).tokens.features for encoder in (post, pre))
    assert (one - other).abs().max() > 0.1
    torch.testing.assert_close(other.mean(dim=-1), torch.zeros(2, 24), atol=1e-5, rtol=0)
    still = {key: torch.zeros_like(value) for key, value in pre.layers.state_dict().items()}
    pre.layers.load_state_dict(still)
    expected = pre.norm(given.features)
    torch.testing.assert_close(pre(given, None).tokens.features, expected)


def zeros():
    return torch.zeros(DIM)


def test_positions_are_seen_and_not_taken():
    encoder = build(levels=1)
    given = tokens(levels=1)
    moved = replace(given, position=given.position.flip(1))
    one, other = (encoder(some, None).tokens.features for some in (given, moved))
    assert (one - other).abs().max() > 1e-3
    alone = canvas([blocks(1, 1, levels=1)], ((1, 1),))  # whoever is alone sees only itself
    placed = replace(alone, position=alone.position + 1)
    one, other = (encoder(some, None).tokens.features for some in (alone, placed))
    torch.testing.assert_close(one, other)


def test_gradients_reach_every_parameter():
    encoder = build(pre_norm=True).train()
    encoder(tokens(), None).tokens.features[:, 30:].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("level", [-4, 3])
def test_levels_that_are_not_there_are_refused(level):
    with pytest.raises(RecipeError, match=rf"0 to 2; got {level}; type encoder.level=-1"):
        build(level=level)


@pytest.mark.parametrize("name", ["layers", "heads", "hidden"])
def test_counts_of_nothing_are_refused(name):
    with pytest.raises(RecipeError, match=rf"encoder\.{name} of at least 1; got 0"):
        DenseEncoderConfig(**{name: 0})
