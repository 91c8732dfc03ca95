"""Feed-forward blocks piece by piece: answers, gradients, dice, and what is kept for them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leandetr.nn import in_rows as module
from leandetr.nn.feed_forward import FeedForward
from leandetr.nn.in_rows import two_layers


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 4)


def layers(dtype=torch.float64, hidden=24):
    torch.manual_seed(0)
    pair = nn.Linear(6, hidden).to(dtype), nn.Linear(hidden, 5).to(dtype)
    return [(layer.weight, layer.bias) for layer in pair]


def plain(x, first, second):
    return F.linear(F.relu(F.linear(x, *first)), *second)


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_pieces_may_end_anywhere(rows):
    first, second = layers()
    x = torch.randn(rows, 12, dtype=torch.float64)[:, ::2].requires_grad_()
    inputs = (x, *first, *second)
    torch.testing.assert_close(two_layers(x, first, second), plain(x, first, second))
    torch.autograd.gradcheck(lambda x, *p: two_layers(x, p[:2], p[2:]), inputs)


def test_dice_fall_the_same_way_on_the_way_back():
    first, second = layers()
    x = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)

    def seeded(x, *parts):
        torch.manual_seed(3)
        return two_layers(x, parts[:2], parts[2:], dropout=0.3)

    torch.autograd.gradcheck(seeded, (x, *first, *second))
    once, again = seeded(x, *first, *second), two_layers(x, first, second, dropout=0.3)
    torch.testing.assert_close(seeded(x, *first, *second), once, atol=0, rtol=0)
    assert not torch.equal(once, again)


def test_dropout_leaves_the_mean_as_it_is():
    first, second = layers()
    x = torch.randn(9, 6, dtype=torch.float64)
    whole = plain(x, first, second)
    several = torch.stack([two_layers(x, first, second, dropout=0.5) for _ in range(900)])
    noise = several.std(dim=0)
    assert (noise > 0).all()
    assert ((several.mean(dim=0) - whole).abs() < 5 * noise / 30).all()


def test_all_dropped_is_the_bias_and_no_gradient():
    first, second = layers()
    x = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    everything = two_layers(x, first, second, dropout=1.0)
    torch.testing.assert_close(everything, second[1].expand(9, 5))
    everything.sum().backward()
    assert not x.grad.any()


def test_under_autocast_products_are_low_and_gradients_are_not():
    first, second = layers(torch.float32)
    x = torch.randn(30, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        answer, truth = two_layers(x, first, second), plain(x, first, second)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer, truth, atol=1e-2, rtol=1e-2)
    grads = torch.autograd.grad(answer.float().sum(), (x, *first, *second))
    plainly = torch.autograd.grad(truth.float().sum(), (x, *first, *second))
    for grad, near in zip(grads, plainly, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - near).norm() < 1e-2 * near.norm()
    assert not torch.equal(grads[1], grads[1].bfloat16().float())  # summed in single precision


def test_nothing_wide_is_kept():
    kept = []
    first, second = layers(hidden=200)
    x = torch.randn(30, 6, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, id):
        two_layers(x, first, second)
    assert sorted(kept) == sorted([x.numel(), *(part.numel() for part in (*first, second[0]))])


def test_frozen_layers_pass_gradients_on():
    first, second = [[part.detach() for part in layer] for layer in layers()]
    x = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: two_layers(x, tuple(first), tuple(second)), (x,))


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("shape", [(2, 7, 8), (1, 0, 8), (0, 5, 8)])
def test_a_block_refines_any_batch(shape, learns):
    torch.manual_seed(0)
    block = FeedForward(8, 16).requires_grad_(learns)
    x = torch.randn(*shape[:2], 16)[..., ::2]
    expected = block.norm(x + block.linear2(F.relu(block.linear1(x))))
    torch.testing.assert_close(block(x), expected, atol=1e-6, rtol=1e-5)


def test_a_block_of_low_precision_takes_precise_tokens():
    block = FeedForward(8, 16).eval().requires_grad_(False)
    x = torch.randn(2, 7, 8)
    precise = block(x)
    block.linear1.bfloat16()
    block.linear2.bfloat16()
    found = block(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, precise, atol=5e-2, rtol=0)
    assert not torch.equal(found, precise)
