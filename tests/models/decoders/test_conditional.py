"""The Conditional DETR decoder's own laws."""

from dataclasses import replace

import pytest
import torch

import dense_decoders
from dense_decoders import one_level, queries
from leandetr.boxes import inverse_sigmoid
from leandetr.errors import RecipeError
from leandetr.models.decoders.conditional import (
    POINT_EPS,
    ConditionalDecoderConfig,
    CrossAttention,
    SelfAttention,
)
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.nn.attention import Attention
from leandetr.types import Sight
from tiny import DIM, stir


@pytest.fixture
def tokens():
    return one_level()


def parts(layers=3, **options):
    config = ConditionalDecoderConfig(layers, heads=2, hidden=16, **options)
    return dense_decoders.parts(config)


def test_one_prediction_a_layer(tokens):
    decoder, heads = parts()
    found = decoder(queries(), tokens, heads, watch=True)
    assert len(found.layers) == 3
    assert found.looks == ()
    for prediction in found.layers:
        assert prediction.logits.shape == (2, 4, 3)
        assert ((prediction.boxes > 0) & (prediction.boxes < 1)).all()


def test_boxes_surround_references_that_stay(tokens):
    decoder, heads = parts()
    asked = queries()
    points = decoder.refer(asked.position).sigmoid()
    still = PredictionHeads(DIM, 3, layers=3, shared=True)
    for prediction in decoder(asked, tokens, still).layers:
        torch.testing.assert_close(prediction.boxes[..., :2], points, atol=1e-5, rtol=0)
        torch.testing.assert_close(prediction.boxes[..., 2:], torch.full((2, 4, 2), 0.5))
    last = decoder(asked, tokens, heads).layers[-1].boxes
    shift = inverse_sigmoid(last, POINT_EPS)[..., :2] - inverse_sigmoid(points, POINT_EPS)
    assert shift.abs().max() > 1e-3


def test_only_the_first_layer_asks_with_learned_positions_too():
    decoder, _ = parts()
    first, *rest = (layer.cross_attention.query_position for layer in decoder.layers)
    assert first is not None
    assert rest == [None, None]


def test_what_was_found_scales_the_place_from_the_second_layer_on(tokens):
    decoder, heads = parts()
    asked = queries()
    before = decoder(asked, tokens, heads).layers
    with torch.no_grad():
        decoder.scale.layers[-1].bias.add_(3.0)
    after = decoder(asked, tokens, heads).layers
    assert torch.equal(before[0].logits, after[0].logits)
    assert not torch.equal(before[1].logits, after[1].logits)


def test_added_positions_are_those_of_plain_attention():
    """With the same projection for content and position, both are projected at once."""
    ours, plain = SelfAttention(DIM, 2), Attention(DIM, 2)
    stir(ours)
    with torch.no_grad():
        for side in ("query", "key"):
            getattr(ours, f"{side}_position").weight.copy_(getattr(ours, f"{side}_content").weight)
            getattr(ours, f"{side}_position").bias.zero_()
        both = (ours.query_content, ours.key_content, ours.value)
        plain.inputs.weight.copy_(torch.cat([linear.weight for linear in both]))
        plain.inputs.bias.copy_(torch.cat([linear.bias for linear in both]))
        plain.output.load_state_dict(ours.output.state_dict())
    content, position = torch.randn(2, 5, DIM), torch.randn(2, 5, DIM)
    hidden = torch.rand(5, 5) < 0.3
    hidden.fill_diagonal_(False)
    sights = (Sight(2, 0, 5, hidden[:2]), Sight(3, 0, 5, hidden[2:]))
    placed = content + position
    expected = plain(placed, placed, content, sights=sights)
    torch.testing.assert_close(ours(content, position, sights), expected, atol=1e-5, rtol=1e-4)


def test_each_head_compares_content_with_content_and_place_with_place(tokens):
    attention = CrossAttention(DIM, 2)
    stir(attention)
    content, position, place = (torch.randn(2, 4, DIM) for _ in range(3))
    found = attention(content, position, place, tokens)
    by_head = {
        "content": attention.query_content(content).view(2, 4, 2, -1),
        "place": attention.query_place(place).view(2, 4, 2, -1),
        "key": attention.key_content(tokens.features).view(2, 20, 2, -1),
        "where": attention.key_position(tokens.position).view(2, 20, 2, -1),
    }
    logits = torch.einsum("nqmd,nsmd->nmqs", by_head["content"], by_head["key"])
    logits = logits + torch.einsum("nqmd,nsmd->nmqs", by_head["place"], by_head["where"])
    logits = logits / DIM**0.5  # two heads of twice half the channels
    shares = logits.masked_fill(tokens.padding[:, None, None], -torch.inf).softmax(-1)
    value = attention.value(tokens.features).view(2, 20, 2, -1)
    expected = attention.output(torch.einsum("nmqs,nsmd->nqmd", shares, value).flatten(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    moved = attention(content, position + 1, place, tokens)
    assert torch.equal(found, moved)  # learned positions are for the first layer


def test_gradients_reach_every_parameter_but_those_that_cannot_matter(tokens):
    """Content of zeros makes all values of the first self-attention alike; a bias of keys shifts
    all logits of a query by the same, which a softmax does not see."""
    decoder, heads = parts()
    layers = decoder(queries(), tokens, heads).layers
    sum(layer.logits.square().sum() + layer.boxes.sum() for layer in layers).backward()
    for name, parameter in (*decoder.named_parameters(), *heads.named_parameters()):
        assert parameter.grad is not None, name
        useless = "key" in name and name.endswith(".bias")
        if name.startswith("layers.0.self_attention.") and name.count("output") == 0:
            useless = not name.endswith("value.bias")
        if not useless:
            assert parameter.grad.abs().max() > 1e-6, name
        else:
            assert parameter.grad.abs().max() < 1e-5, name


def test_impossible_parts_are_refused(tokens):
    with pytest.raises(RecipeError, match=r"decoder\.layers of at least 1; got 0"):
        ConditionalDecoderConfig(layers=0)
    with pytest.raises(RecipeError, match="not a multiple of heads 3"):
        ConditionalDecoderConfig(heads=3).build(Dims(16, 1, 3))
    decoder, heads = parts()
    with pytest.raises(RecipeError, match="positions; type queries=learned"):
        decoder(replace(queries(), position=None), tokens, heads)
