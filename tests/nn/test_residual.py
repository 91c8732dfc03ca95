"""The two ways to add what a layer found."""

import pytest
import torch
from torch import nn

from leandetr.nn.residual import PostNorm, PreNorm, start_evenly


@pytest.fixture
def x():
    return torch.randn(2, 5, 8) * 3 + 1


def stirred(kind, **options):
    residual = kind(8, **options)
    for parameter in residual.parameters():
        nn.init.normal_(parameter)
    return residual


def test_post_norm_norms_the_sum(x):
    residual = stirred(PostNorm)
    torch.testing.assert_close(residual(x, lambda x: x * 2), residual.norm(x * 3))


def test_pre_norm_norms_what_is_changed_and_keeps_the_rest(x):
    residual = stirred(PreNorm)
    torch.testing.assert_close(residual(x, lambda x: x * 2), x + residual.norm(x) * 2)
    torch.testing.assert_close(residual(x, torch.zeros_like), x)


@pytest.mark.parametrize("kind", [PostNorm, PreNorm])
def test_dropout_falls_on_the_change_alone(kind, x):
    residual = stirred(kind, dropout=1.0)
    nothing_added = residual(x, torch.zeros_like)
    assert torch.equal(residual(x, lambda x: x * 2), nothing_added)
    residual.eval()
    assert not torch.equal(residual(x, lambda x: x * 2), nothing_added)


def test_matrices_start_evenly_and_vectors_as_they_were():
    linear = nn.Linear(40, 60)
    bias = linear.bias.clone()
    start_evenly(linear)
    limit = (6 / 100) ** 0.5
    assert 0.95 * limit < linear.weight.abs().max() <= limit
    assert torch.equal(linear.bias, bias)
