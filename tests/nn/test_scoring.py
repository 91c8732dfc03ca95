"""Scores of tokens: counting, padding, writing back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.nn.scoring import TokenScorer, padding_last, share, write_back

RHOS = (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("rho", RHOS)
def test_shares_are_the_official_counts_up_to_a_hundred_thousand_tokens(rho):
    """In single precision: (valid_token_nums * rho).int() + 1 (kakaobrain/sparse-detr)."""
    valid = torch.arange(100_001)
    assert torch.equal(share(valid, round(1000 * rho)), (valid * rho).int() + 1)


def test_a_share_is_rounded_down():
    counts = share(torch.tensor([0, 1, 999, 1000, 1001]), 1)
    assert counts.tolist() == [1, 1, 1, 2, 2]


def test_padding_takes_the_smallest_score_of_the_batch():
    scores = torch.tensor([[3.0, -1.0, 5.0], [0.5, -2.0, 9.0]], requires_grad=True)
    padding = torch.tensor([[False, True, False], [False, False, True]])
    filled = padding_last(scores, padding)
    assert filled.tolist() == [[3.0, -2.0, 5.0], [0.5, -2.0, -2.0]]
    filled.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1, 0, 1], [1, 3, 0]]


@st.composite
def written(draw):
    """Shapes, which tokens ask, and how many of them count."""
    images, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    width = draw(st.integers(1, tokens))
    kept = [draw(st.permutations(range(tokens)))[:width] for _ in range(images)]
    counts = [draw(st.integers(0, width)) for _ in range(images)]
    return tokens, kept, counts


@given(written())
def test_writing_back_replaces_the_counted_tokens_and_no_other(case):
    tokens, kept, counts = case
    features = torch.randn(len(kept), tokens, 4)
    updated = torch.randn(len(kept), len(kept[0]), 4)
    found = write_back(features, torch.tensor(kept), torch.tensor(counts), updated)
    for image, count in enumerate(counts):
        expected = features[image].clone()
        expected[kept[image][:count]] = updated[image, :count]
        assert torch.equal(found[image], expected)


def test_gradients_flow_through_what_was_written_only():
    features = torch.zeros(1, 3, 2, requires_grad=True)
    updated = torch.ones(1, 2, 2, requires_grad=True)
    write_back(features, torch.tensor([[2, 0]]), torch.tensor([1]), updated).sum().backward()
    assert features.grad is not None
    assert updated.grad is not None
    assert features.grad[0, :, 0].tolist() == [1, 1, 0]
    assert updated.grad[0, :, 0].tolist() == [1, 0]


def test_a_score_depends_on_the_token_and_on_the_mean_of_all():
    scorer = TokenScorer(8)
    features = torch.randn(2, 5, 8)
    scores = scorer(features)
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scorer(features.flip(1)), scores.flip(1))
    other = features.clone()
    other[:, 0] = torch.randn(2, 8)
    assert (scorer(other) != scores).all()
    scores.sum().backward()
    assert all(weight.grad is not None for weight in scorer.parameters())
