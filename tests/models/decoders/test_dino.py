"""The DINO decoder's own laws."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.types import Group, Match, Queries, Sight
from tiny import DIM, blocks, canvas, stir

SHAPES = ((4, 5), (2, 2))


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=2), blocks(3, 3, levels=2)], SHAPES)


def parts(layers=3, *, key_aware=False, shared=True):
    config = DinoDecoderConfig(layers, heads=2, points=2, hidden=16, key_aware=key_aware)
    decoder = config.build(Dims(DIM, 2, 3))
    heads = PredictionHeads(DIM, 3, layers=layers, shared=shared)
    stir(decoder)
    stir(heads)
    return decoder, heads


def queries(count=4, sights=()):
    reference = torch.rand(2, count, 4) * 0.5 + 0.2
    group = Group("main", 0, count, Match())
    return Queries(torch.randn(2, count, DIM), None, reference, sights, (group,))


@pytest.mark.parametrize("key_aware", [False, True])
def test_one_prediction_a_layer(tokens, key_aware):
    decoder, heads = parts(key_aware=key_aware)
    found = decoder(queries(), tokens, heads).layers
    assert len(found) == 3
    for prediction in found:
        assert prediction.logits.shape == (2, 4, 3)
        assert prediction.boxes.shape == (2, 4, 4)
        assert ((prediction.boxes > 0) & (prediction.boxes < 1)).all()


def test_heads_that_move_nothing_leave_the_references(tokens):
    decoder, _ = parts()
    still = PredictionHeads(DIM, 3, layers=3, shared=True)
    asked = queries()
    for prediction in decoder(asked, tokens, still).layers:
        torch.testing.assert_close(prediction.boxes, asked.reference, atol=1e-5, rtol=0)


def test_hidden_queries_do_not_matter(tokens):
    decoder, heads = parts()
    sights = (Sight(4, 0, 4), Sight(2, 0, 6))
    asked = queries(6, sights)
    alone = Queries(asked.content[:, :4], None, asked.reference[:, :4], (), asked.groups)
    together, apart = (decoder(some, tokens, heads).layers for some in (asked, alone))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.boxes[:, :4], other.boxes, atol=1e-5, rtol=0)


def test_order_of_queries_does_not_matter(tokens):
    decoder, heads = parts()
    asked, order = queries(), [2, 0, 3, 1]
    shuffled = Queries(asked.content[:, order], None, asked.reference[:, order], (), asked.groups)
    first, second = (decoder(some, tokens, heads).layers[-1] for some in (asked, shuffled))
    torch.testing.assert_close(second.boxes, first.boxes[:, order], atol=1e-5, rtol=0)


def test_boxes_teach_their_own_layer_and_the_one_before(tokens):
    """Look forward twice (section 3.5): the reference is detached one layer later."""
    decoder, heads = parts(shared=False)
    for layer, prediction in enumerate(decoder(queries(), tokens, heads).layers):
        for earlier, head in enumerate(heads.boxes):
            grads = torch.autograd.grad(
                prediction.boxes.sum(),
                list(head.parameters()),
                retain_graph=True,
                allow_unused=True,
            )
            reached = any(grad is not None and grad.any() for grad in grads)
            assert reached is (earlier in (layer - 1, layer)), (layer, earlier)


def test_impossible_sizes_are_refused():
    with pytest.raises(RecipeError, match=r"decoder\.layers of at least 1; got 0"):
        DinoDecoderConfig(layers=0)
    with pytest.raises(RecipeError, match="not a multiple of heads 3"):
        DinoDecoderConfig(heads=3).build(Dims(16, 2, 3))
