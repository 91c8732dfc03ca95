"""The Deformable DETR decoder's own laws."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.decoders.base import move
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.dims import Dims
from leandetr.models.heads import PredictionHeads
from leandetr.types import Group, Match, Queries, Sight
from tiny import DIM, blocks, canvas, stir

LAYERS = 3
KINDS = [
    pytest.param({}, id="fixed"),
    pytest.param({"refine": True}, id="refined"),
    pytest.param({"refine": True, "look_twice": True}, id="looking-twice"),
]


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=2), blocks(3, 3, levels=2)], ((4, 5), (2, 2)))


def parts(**switches):
    config = DeformableDecoderConfig(LAYERS, heads=2, points=2, hidden=16, dropout=0.0, **switches)
    decoder = config.build(Dims(DIM, 2, 3))
    heads = PredictionHeads(DIM, 3, layers=LAYERS, shared=False)
    stir(decoder)
    stir(heads)
    return decoder, heads


def queries(count=4, width=2, sights=()):
    reference = torch.rand(2, count, width) * 0.5 + 0.2
    position = torch.randn(2, count, DIM)
    group = Group("main", 0, count, Match())
    return Queries(torch.randn(2, count, DIM), position, reference, sights, (group,))


def some(asked, index):
    """The same queries, only those at `index`."""
    return Queries(
        asked.content[:, index],
        asked.position[:, index],
        asked.reference[:, index],
        (),
        asked.groups,
    )


def looked_around(decoder, asked, tokens, heads):
    """The references that each layer looked around, on each level."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, given, __: seen.append(given[2]))
        for layer in decoder.layers
    ]
    found = decoder(asked, tokens, heads).layers
    for hook in hooks:
        hook.remove()
    return seen, found


@pytest.mark.parametrize("switches", [*KINDS, pytest.param({"key_aware": True}, id="key-aware")])
@pytest.mark.parametrize("width", [2, 4])
def test_one_prediction_a_layer(tokens, switches, width):
    decoder, heads = parts(**switches)
    found = decoder(queries(width=width), tokens, heads).layers
    assert len(found) == LAYERS
    for prediction in found:
        assert prediction.logits.shape == (2, 4, 3)
        assert prediction.boxes.shape == (2, 4, 4)
        assert ((prediction.boxes > 0) & (prediction.boxes < 1)).all()


@pytest.mark.parametrize("width", [2, 4])
def test_without_refinement_all_layers_look_around_the_same_places(tokens, width):
    decoder, heads = parts()
    seen, _ = looked_around(decoder, queries(width=width), tokens, heads)
    assert all(torch.equal(around, seen[0]) for around in seen)
    assert seen[0].shape == (2, 4, 2, width)


@pytest.mark.parametrize("switches", KINDS[1:])
@pytest.mark.parametrize("width", [2, 4])
def test_refined_layers_look_into_the_boxes_of_the_layer_before(tokens, switches, width):
    decoder, heads = parts(**switches)
    seen, found = looked_around(decoder, queries(width=width), tokens, heads)
    assert seen[0].shape[-1] == width
    ratios = tokens.valid_ratios.repeat(1, 1, 2)[:, None]
    for around, before in zip(seen[1:], found, strict=False):
        torch.testing.assert_close(around, before.boxes[:, :, None] * ratios)
        assert not around.requires_grad


def test_looking_twice_leaves_the_numbers_alone(tokens):
    once, heads = parts(refine=True)
    twice, _ = parts(refine=True, look_twice=True)
    twice.load_state_dict(once.state_dict())
    asked = queries()
    pairs = zip(*(each(asked, tokens, heads).layers for each in (once, twice)), strict=True)
    for one, other in pairs:
        assert torch.equal(one.logits, other.logits)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("switches", "teaches"),
    [
        ({}, lambda layer: {layer}),
        ({"refine": True}, lambda layer: {layer}),
        ({"refine": True, "look_twice": True}, lambda layer: {layer, layer - 1} - {-1}),
    ],
    ids=["fixed", "refined", "looking-twice"],
)
def test_boxes_teach_the_shifts_they_are_made_of(tokens, switches, teaches):
    decoder, heads = parts(**switches)
    for layer, prediction in enumerate(decoder(queries(), tokens, heads).layers):
        reached = set()
        for earlier, head in enumerate(heads.boxes):
            grads = torch.autograd.grad(
                prediction.boxes.sum(),
                list(head.parameters()),
                retain_graph=True,
                allow_unused=True,
            )
            reached |= {earlier} if any(g is not None and g.any() for g in grads) else set()
        assert reached == teaches(layer)


def test_learned_points_are_taught_by_the_boxes(tokens):
    decoder, heads = parts()
    asked = queries()
    asked.reference.requires_grad_()
    decoder(asked, tokens, heads).layers[-1].boxes.sum().backward()
    assert asked.reference.grad.any()


@pytest.mark.parametrize("switches", KINDS)
def test_hidden_queries_do_not_matter(tokens, switches):
    decoder, heads = parts(**switches)
    sights = (Sight(4, 0, 4), Sight(2, 0, 6))
    asked = queries(6, sights=sights)
    alone = some(asked, slice(4))
    together, apart = (decoder(each, tokens, heads).layers for each in (asked, alone))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.boxes[:, :4], other.boxes, atol=1e-5, rtol=0)


@pytest.mark.parametrize("switches", KINDS)
def test_order_of_queries_does_not_matter(tokens, switches):
    decoder, heads = parts(**switches)
    asked, order = queries(), [2, 0, 3, 1]
    first = decoder(asked, tokens, heads).layers[-1]
    second = decoder(some(asked, order), tokens, heads).layers[-1]
    torch.testing.assert_close(second.boxes, first.boxes[:, order], atol=1e-5, rtol=0)


def test_it_tells_where_it_looked_when_asked_to(tokens):
    decoder, heads = parts(refine=True)
    asked = queries()
    assert decoder(asked, tokens, heads).looks == ()
    looks = decoder(asked, tokens, heads, watch=True).looks
    assert len(looks) == LAYERS
    for look in looks:
        assert look.locations.shape == (2, 4, 2, 2, 2, 2)
        torch.testing.assert_close(look.weights.sum(dim=(-2, -1)), torch.ones(2, 4, 2))


def test_a_point_gives_the_centre_and_the_shift_gives_the_size():
    point, shift = torch.tensor([[[0.25, 0.5]]]), torch.zeros(1, 1, 4)
    torch.testing.assert_close(move(point, shift, 1e-5), torch.tensor([[[0.25, 0.5, 0.5, 0.5]]]))
    box = torch.tensor([[[0.25, 0.5, 0.1, 0.2]]])
    torch.testing.assert_close(move(box, shift, 1e-5), box)


def test_boxes_keep_single_precision_whatever_comes_from_the_heads():
    moved = move(torch.full((1, 1, 4), 0.3), torch.zeros(1, 1, 4, dtype=torch.bfloat16), 1e-5)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, torch.full((1, 1, 4), 0.3))


def test_queries_without_position_are_refused(tokens):
    decoder, heads = parts()
    asked = queries()
    bare = Queries(asked.content, None, asked.reference, (), asked.groups)
    with pytest.raises(RecipeError, match="type queries=learned-points or queries=two-stage"):
        decoder(bare, tokens, heads)


def test_impossible_settings_are_refused():
    with pytest.raises(RecipeError, match=r"decoder\.layers of at least 1; got 0"):
        DeformableDecoderConfig(layers=0)
    with pytest.raises(RecipeError, match=r"decoder\.dropout from 0 to 1; got 2"):
        DeformableDecoderConfig(dropout=2.0)
    with pytest.raises(RecipeError, match=r"type decoder\.refine=true"):
        DeformableDecoderConfig(look_twice=True)
    with pytest.raises(RecipeError, match="not a multiple of heads 3"):
        DeformableDecoderConfig(heads=3).build(Dims(16, 2, 3))
