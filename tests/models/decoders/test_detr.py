"""The DETR decoder's own laws."""

from dataclasses import replace

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.types import Group, Match, Queries
from tiny import DIM, blocks, canvas, stir

both = pytest.mark.parametrize("pre_norm", [False, True])


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=1), blocks(3, 3, levels=1)], ((4, 5),), junk=2.0)


def parts(layers=3, **options):
    decoder = DetrDecoderConfig(layers, heads=2, hidden=16, **options).build(Dims(DIM, 1, 3))
    heads = PredictionHeads(DIM, 3, layers=layers, shared=True, background=True)
    stir(decoder)
    stir(heads)
    return decoder, heads


def queries(count=4, hidden=None, content=None):
    content = torch.zeros(2, count, DIM) if content is None else content
    group = Group("main", 0, count, Match())
    return Queries(content, torch.randn(2, count, DIM), None, hidden, (group,))


@both
def test_one_prediction_a_layer(tokens, pre_norm):
    decoder, heads = parts(pre_norm=pre_norm)
    found = decoder(queries(), tokens, heads, watch=True)
    assert len(found.layers) == 3
    assert found.looks == ()
    for prediction in found.layers:
        assert prediction.logits.shape == (2, 4, 4)
        assert ((prediction.boxes > 0) & (prediction.boxes < 1)).all()


def test_pre_norm_and_post_norm_hold_the_same_weights_and_differ(tokens):
    post, heads = parts()
    pre, _ = parts(pre_norm=True)
    pre.load_state_dict(post.state_dict())
    asked = queries()
    one, other = (decoder(asked, tokens, heads).layers[-1] for decoder in (post, pre))
    assert (one.logits - other.logits).abs().max() > 1e-2


@both
def test_padded_tokens_do_not_matter(tokens, pre_norm):
    decoder, heads = parts(pre_norm=pre_norm)
    asked = queries()
    junk = tokens.features.masked_fill(tokens.padding[..., None], 99.0)
    one, other = (
        decoder(asked, some, heads).layers[-1] for some in (tokens, tokens.with_features(junk))
    )
    torch.testing.assert_close(one.boxes, other.boxes, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-6, rtol=0)


def test_hidden_queries_do_not_matter(tokens):
    decoder, heads = parts()
    hidden = torch.zeros(6, 6, dtype=torch.bool)
    hidden[:4, 4:] = True
    asked = queries(6, hidden, torch.randn(2, 6, DIM))
    alone = replace(
        asked, content=asked.content[:, :4], position=asked.position[:, :4], hidden=None
    )
    together, apart = (decoder(some, tokens, heads).layers for some in (asked, alone))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.boxes[:, :4], other.boxes, atol=1e-5, rtol=0)


@both
def test_order_of_queries_does_not_matter(tokens, pre_norm):
    decoder, heads = parts(pre_norm=pre_norm)
    asked, order = queries(), [2, 0, 3, 1]
    shuffled = replace(asked, position=asked.position[:, order])
    first, second = (decoder(some, tokens, heads).layers[-1] for some in (asked, shuffled))
    torch.testing.assert_close(second.boxes, first.boxes[:, order], atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter_but_those_that_cannot_matter(tokens):
    """Content of zeros has no use for the first self-attention's matrix, only for its bias."""
    decoder, heads = parts()
    layers = decoder(queries(), tokens, heads).layers
    sum(layer.logits.square().sum() + layer.boxes.sum() for layer in layers).backward()
    for name, parameter in (*decoder.named_parameters(), *heads.named_parameters()):
        assert parameter.grad is not None, name
        if name == "layers.0.self_attention.inputs.weight":
            assert parameter.grad.abs().max() < 1e-5
        else:
            assert parameter.grad.abs().max() > 1e-5, name


def test_impossible_parts_are_refused(tokens):
    with pytest.raises(RecipeError, match=r"decoder\.layers of at least 1; got 0"):
        DetrDecoderConfig(layers=0)
    with pytest.raises(RecipeError, match="not a multiple of heads 3"):
        DetrDecoderConfig(heads=3).build(Dims(16, 1, 3))
    decoder, heads = parts()
    with pytest.raises(RecipeError, match="positions; type queries=learned"):
        decoder(replace(queries(), position=None), tokens, heads)
