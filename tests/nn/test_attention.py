"""Dense attention is PyTorch's own, with other names."""

import pytest
import torch
from torch import nn

from leandetr.errors import RecipeError
from leandetr.nn.attention import Attention, mix
from leandetr.types import Sight


def pair(dim=12, heads=3, **options):
    """Ours and `nn.MultiheadAttention` with the same weights."""
    ours = Attention(dim, heads, **options)
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True, **options)
    nn.init.normal_(ours.inputs.bias)
    nn.init.normal_(ours.output.bias)
    names = {
        "in_proj_weight": ours.inputs.weight,
        "in_proj_bias": ours.inputs.bias,
        "out_proj.weight": ours.output.weight,
        "out_proj.bias": ours.output.bias,
    }
    theirs.load_state_dict(names)
    return ours, theirs


def draw():
    return torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)


def test_equals_multihead_attention():
    ours, theirs = pair()
    query, key, value = draw()
    expected, _ = theirs(query, key, value, need_weights=False)
    torch.testing.assert_close(ours(query, key, value), expected)


def test_hidden_keys_are_those_of_the_attention_mask():
    ours, theirs = pair()
    query, key, value = draw()
    hidden = torch.rand(5, 7) < 0.5
    hidden[:, 0] = False  # a query that sees nothing has no answer
    expected, _ = theirs(query, key, value, attn_mask=hidden, need_weights=False)
    torch.testing.assert_close(ours(query, key, value, sights=[Sight(5, 0, 7, hidden)]), expected)


def test_hidden_keys_and_their_values_do_not_matter():
    ours, _ = pair()
    query, key, value = draw()
    hidden = torch.zeros(5, 7, dtype=torch.bool)
    hidden[:, 3:] = True
    expected = ours(query, key[:, :3], value[:, :3])
    torch.testing.assert_close(ours(query, key, value, sights=[Sight(5, 0, 7, hidden)]), expected)


def test_gradients_equal_those_of_multihead_attention():
    ours, theirs = pair()
    query, key, value = draw()
    ours(query, key, value).square().sum().backward()
    theirs(query, key, value, need_weights=False)[0].square().sum().backward()
    torch.testing.assert_close(ours.inputs.weight.grad, theirs.in_proj_weight.grad)
    torch.testing.assert_close(ours.output.weight.grad, theirs.out_proj.weight.grad)


def test_starts_like_multihead_attention():
    ours, theirs = Attention(32, 4), nn.MultiheadAttention(32, 4)
    assert not ours.inputs.bias.any()
    assert not ours.output.bias.any()
    spread = theirs.in_proj_weight.std().item()
    assert ours.inputs.weight.std().item() == pytest.approx(spread, rel=0.1)


def test_dropout_only_in_training():
    ours, _ = pair(dropout=0.5)
    query, key, value = draw()
    assert not torch.equal(ours(query, key, value), ours(query, key, value))
    ours.eval()
    assert torch.equal(ours(query, key, value), ours(query, key, value))


def test_attention_that_drops_is_the_same_but_for_what_it_drops():
    query, key, value = (torch.randn(2, 4, length, 8, requires_grad=True) for length in (5, 7, 7))
    seen = torch.rand(5, 7) < 0.7
    seen[:, 0] = True
    for one in (None, seen):
        expected, almost = (
            mix(query, key, value, seen=one, dropout=share) for share in (0.0, 1e-9)
        )
        torch.testing.assert_close(almost, expected)
        slopes = [
            torch.autograd.grad(answer.square().sum(), (query, key, value))
            for answer in (expected, almost)
        ]
        torch.testing.assert_close(*slopes)
    torch.manual_seed(0)
    mean = torch.stack([mix(query, key, value, seen=seen, dropout=0.3) for _ in range(2000)])
    torch.testing.assert_close(mean.mean(dim=0), expected, atol=0.15, rtol=0)


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(RecipeError, match=r"dim 12 .* heads 5; choose heads from \[1, 2, 3, 4, 6"):
        Attention(12, 5)


def test_padding_hides_keys_of_its_own_image():
    ours, theirs = pair()
    query, key, value = draw()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    expected, _ = theirs(query, key, value, key_padding_mask=padding, need_weights=False)
    torch.testing.assert_close(ours(query, key, value, padding=padding), expected)


def test_padding_and_hidden_keys_add_up():
    ours, theirs = pair()
    query, key, value = draw()
    padding, hidden = torch.zeros(2, 7, dtype=torch.bool), torch.rand(5, 7) < 0.5
    padding[1, 4:] = True
    hidden[:, 0] = False  # a query that sees nothing has no answer
    sights = [Sight(2, 0, 7, hidden[:2]), Sight(3, 0, 7, hidden[2:])]
    both = {"key_padding_mask": padding, "attn_mask": hidden, "need_weights": False}
    expected, _ = theirs(query, key, value, **both)
    torch.testing.assert_close(ours(query, key, value, sights=sights, padding=padding), expected)


def test_heads_may_compare_more_channels_than_they_take():
    query, key, value = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 4)
    shares = (query @ key.mT / 8**0.5).softmax(-1)
    expected = (shares @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mix(query, key, value), expected)
