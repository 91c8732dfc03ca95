"""Dropout on a CPU: shares, scale, gradient, and the generator it draws from."""

import pytest
import torch

from leandetr.nn.dropout import Dropout, drop


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_share_is_zero_and_the_mean_stays(share):
    x = torch.ones(400, 501)
    answer = drop(x, share, training=True)
    deviation = (share * (1 - share) / x.numel()) ** 0.5
    assert (answer == 0).float().mean().item() == pytest.approx(share, abs=5 * deviation + 1e-5)
    torch.testing.assert_close(answer[answer != 0].unique(), torch.tensor([1 / (1 - share)]))


def test_every_place_of_a_draw_is_as_likely_to_be_dropped():
    dropped = drop(torch.ones(40_000, 4), 0.25, training=True) == 0
    torch.testing.assert_close(
        dropped.float().mean(dim=0), torch.full((4,), 0.25), atol=0.012, rtol=0
    )
    together = (dropped[:, 0] & dropped[:, 1]).float().mean().item()
    assert together == pytest.approx(0.0625, abs=0.007)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_goes_where_values_went(dtype):
    x = torch.full((3, 5, 7), 2.0, dtype=dtype, requires_grad=True)
    answer = drop(x, 0.5, training=True)
    assert answer.dtype == dtype
    answer.sum().backward()
    assert torch.equal(x.grad * 2, answer)


def test_all_nothing_and_evaluation():
    x = torch.randn(7)
    assert not drop(x, 1.0, training=True).any()
    assert torch.equal(drop(x, 0.0, training=True), x)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert drop(torch.empty(0, 3), 0.5, training=True).shape == (0, 3)


def test_a_seed_says_what_is_dropped():
    x, dropout = torch.ones(1000), Dropout(0.5)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(dropout(x))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_a_view_in_any_order_is_dropped_by_place():
    x = torch.arange(1.0, 25).view(2, 3, 4).permute(2, 0, 1)
    answer = drop(x, 0.5, training=True)
    assert ((answer == 0) | (answer == 2 * x)).all()
