"""The DETR decoder's own laws."""

from dataclasses import replace

import pytest

import dense_decoders
from dense_decoders import one_level, queries
from leandetr.errors import RecipeError
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.models.dims import Dims

both = pytest.mark.parametrize("pre_norm", [False, True])


@pytest.fixture
def tokens():
    return one_level()


def parts(layers=3, **options):
    config = DetrDecoderConfig(layers, heads=2, hidden=16, **options)
    return dense_decoders.parts(config, background=True)


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
