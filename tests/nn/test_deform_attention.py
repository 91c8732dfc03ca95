"""The modules around the sampling operators."""

import pytest
import torch

from leandetr import ops
from leandetr.errors import RecipeError
from leandetr.nn.deform_attention import (
    DeformAttention,
    KeyAwareAttention,
    Offsets,
    SampledAttention,
    sampled_attention,
)
from leandetr.ops.reference_at import locate
from tiny import stir

SHAPES = ((3, 4), (2, 2))
TOKENS = 16


def modules():
    sizes = {"heads": 4, "levels": 2, "points": 2}
    return [
        pytest.param(lambda: DeformAttention(8, **sizes), id="deform"),
        pytest.param(lambda: DeformAttention(8, **sizes, shared_offsets=True), id="deform-shared"),
        pytest.param(lambda: KeyAwareAttention(8, **sizes), id="key-aware"),
        pytest.param(lambda: KeyAwareAttention(8, **sizes, own_key=True), id="key-aware-own-key"),
    ]


every = pytest.mark.parametrize("build", modules())


def stirred(build):
    module = build()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def draw(width=4):
    return (
        torch.randn(2, 5, 8),
        torch.rand(2, 5, 2, width) * 0.5 + 0.1,
        torch.randn(2, TOKENS, 8),
        SHAPES,
        torch.zeros(2, TOKENS, dtype=torch.bool),
    )


@every
@pytest.mark.parametrize("width", [2, 4])
def test_every_query_gets_an_answer(build, width):
    module = stirred(build)
    assert isinstance(module, SampledAttention)
    assert module(*draw(width)).shape == (2, 5, 8)


@every
def test_what_padded_tokens_hold_does_not_matter(build):
    module = stirred(build)
    query, reference, memory, shapes, padding = draw()
    padding[:, 5:9] = True
    other = memory.clone()
    other[padding] = 77.0
    first = module(query, reference, memory, shapes, padding)
    assert torch.equal(first, module(query, reference, other, shapes, padding))
    assert not torch.equal(first, module(query, reference, memory, shapes, ~padding))


@every
def test_heads_that_do_not_share_the_width_are_refused(build):
    kind = type(build())
    with pytest.raises(RecipeError, match=r"dim 8 .* heads 3; choose heads from \[1, 2, 4, 8\]"):
        kind(8, heads=3, levels=2, points=2)


@pytest.mark.parametrize("shared", [False, True])
def test_offsets_start_as_a_star(shared):
    """Four heads look right, down, left, up; point p lies p + 1 cells away on every level."""
    offsets = Offsets(8, heads=4, levels=2, points=3, shared=shared)
    assert not offsets.linear.weight.any()
    reference = torch.full((1, 1, 2, 2), 0.5)
    shapes = ((10, 20), (5, 4))
    found = locate(reference, offsets(torch.randn(1, 1, 8)), shapes)[0, 0]  # M L P xy
    cells = (found - 0.5) * torch.tensor([[20, 10], [4, 5]])[None, :, None]
    for head, ray in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        for point in range(3):
            expected = torch.tensor(ray).float() * (point + 1)
            for level in range(2):
                torch.testing.assert_close(cells[head, level, point], expected, atol=1e-5, rtol=0)


def test_rays_between_the_axes_reach_the_same_square():
    """Eight heads: the diagonal ones move by whole cells both ways, not along a circle."""
    offsets = Offsets(8, heads=8, levels=1, points=1)
    star = offsets.linear.bias.reshape(8, 2)
    torch.testing.assert_close(star.abs().amax(dim=1), torch.ones(8))
    torch.testing.assert_close(star[1], torch.tensor([1.0, 1.0]))


def test_offsets_inside_a_box_reach_half_of_it():
    offsets = Offsets(8, heads=4, levels=1, points=2)
    box = torch.tensor([0.5, 0.4, 0.2, 0.6]).reshape(1, 1, 1, 4)
    found = locate(box, offsets(torch.zeros(1, 1, 8)), ((10, 20),))[0, 0, :, 0]  # M P xy
    torch.testing.assert_close(found[0, 1], torch.tensor([0.5 + 0.1, 0.4]))  # right edge
    torch.testing.assert_close(found[1, 1], torch.tensor([0.5, 0.4 + 0.3]))  # lower edge
    torch.testing.assert_close(found[0, 0], torch.tensor([0.5 + 0.05, 0.4]))


def test_shared_offsets_are_few():
    own = Offsets(8, heads=4, levels=3, points=2).linear.out_features
    shared = Offsets(8, heads=4, levels=3, points=2, shared=True).linear.out_features
    assert own == 3 * shared


def test_weights_of_plain_attention_start_equal():
    module = DeformAttention(8, heads=4, levels=2, points=2)
    with torch.no_grad():
        module.offsets.linear.bias.zero_()  # every point in the centre of the reference
        module.value.weight.copy_(torch.eye(8))
        module.output.weight.copy_(torch.eye(8))
    memory = torch.ones(1, TOKENS, 8)
    memory[:, 12:] = 3.0  # the second level
    padding = torch.zeros(1, TOKENS, dtype=torch.bool)
    middle = torch.full((1, 1, 2, 2), 0.5)
    found = module(torch.randn(1, 1, 8), middle, memory, SHAPES, padding)
    torch.testing.assert_close(found, torch.full((1, 1, 8), 2.0))


@pytest.mark.parametrize("key_aware", [False, True])
def test_a_look_explains_the_answer(key_aware):
    """What a module reports is what it took: its own weights and places give its answer."""
    torch.manual_seed(2)
    shapes, padding = ((4, 5), (2, 3)), torch.zeros(1, 26, dtype=torch.bool)
    padding[0, 3] = True
    module = sampled_attention(8, heads=2, levels=2, points=3, key_aware=key_aware)
    stir(module)
    query, memory = torch.randn(1, 4, 8), torch.randn(1, 26, 8)
    reference = torch.rand(1, 4, 2, 4)
    look = module.look(query, reference, memory, shapes, padding)
    torch.testing.assert_close(look.weights.sum(dim=(3, 4)), torch.ones(1, 4, 2))
    value = module.value(memory).masked_fill(padding[..., None], 0.0).unflatten(-1, (2, 4))
    taken = module.output(ops.deform_attn(value, shapes, look.locations, look.weights))
    torch.testing.assert_close(taken, module(query, reference, memory, shapes, padding))
    assert not look.weights.requires_grad
