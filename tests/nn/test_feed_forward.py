"""MLP and feed-forward block."""

import torch
import torch.nn.functional as F

from leandetr.nn.feed_forward import MLP, FeedForward


def test_no_activation_after_the_last_layer():
    mlp = MLP(4, 3, hidden=8, depth=3)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(8, 4), (8, 8), (3, 8)]
    x = torch.randn(2, 5, 4)
    first, second, last = mlp.layers
    torch.testing.assert_close(mlp(x), last(F.relu(second(F.relu(first(x))))))
    assert (mlp(x) < 0).any()


def test_depth_one_is_linear():
    mlp = MLP(4, 3, hidden=8, depth=1)
    x = torch.randn(2, 4)
    torch.testing.assert_close(mlp(x), mlp.layers[0](x))


def test_the_block_normalises_after_adding():
    block = FeedForward(6, 12)
    x = torch.randn(2, 5, 6) * 9
    answer = block(x)
    torch.testing.assert_close(answer.mean(dim=-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    expected = block.norm(x + block.linear2(F.relu(block.linear1(x))))
    torch.testing.assert_close(answer, expected)


def test_tokens_do_not_see_each_other():
    block = FeedForward(6, 12)
    x = torch.randn(1, 5, 6)
    torch.testing.assert_close(block(x)[:, 2:3], block(x[:, 2:3]))


def test_dropout_of_an_mlp_falls_between_its_layers_in_training_only():
    mlp = MLP(4, 3, hidden=64, depth=2, dropout=1.0)
    x = torch.randn(2, 5, 4)
    last = mlp.layers[-1]
    torch.testing.assert_close(mlp(x), last.bias.expand(2, 5, 3))
    mlp.eval()
    torch.testing.assert_close(mlp(x), last(F.relu(mlp.layers[0](x))))
