"""Foreground scores from coarse to fine, and what they learn from."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from leandetr.nn.foreground import ForegroundScorer, foreground

DIM = 8
SHAPES = ((4, 6), (2, 3), (1, 2))


def test_four_levels_have_the_official_limits():
    inf = float("inf")
    assert foreground(4).limits == ((-1, 64), (64, 128), (128, 256), (256, inf))


@pytest.mark.parametrize("levels", range(1, 7))
def test_limits_double_and_leave_no_size_out(levels):
    limits = foreground(levels).limits
    assert len(limits) == levels
    assert limits[0][0] == -1
    assert limits[-1][1] == float("inf")
    ends = [up_to for _, up_to in limits[:-1]]
    assert ends == [above for above, _ in limits[1:]]
    assert all(after == 2 * before for before, after in zip(ends, ends[1:], strict=False))


def test_levels_beyond_four_come_at_the_fine_end_and_fewer_leave_out_the_coarse_end():
    assert foreground(5).limits[1:] == ((32, 64), *foreground(4).limits[1:])
    assert foreground(3).limits[:2] == foreground(4).limits[:2]


@given(levels=st.integers(1, 3))
def test_coarse_scores_modulate_the_next_finer_level(levels):
    shapes = SHAPES[-levels:]
    scorer = ForegroundScorer(DIM, levels)
    cells = [torch.randn(2, h * w, DIM) for h, w in shapes]
    found = scorer(torch.cat(cells, dim=1), shapes)
    expected = [scorer.judge(cells[-1])]
    for step in range(levels - 1):
        fine = levels - 2 - step
        grid = expected[0].view(2, 1, *shapes[fine + 1])
        up = F.interpolate(grid, size=shapes[fine], mode="bilinear", align_corners=True)
        # the strengths are ordered from coarse to fine
        factor = 1 + up.flatten(1)[..., None] * scorer.strength[step]
        expected.insert(0, scorer.judge(cells[fine] * factor))
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_corners_lie_on_corners():
    """A coarse corner cell speaks for the fine corner cell alone, not for its surroundings."""
    scorer = ForegroundScorer(DIM, 2)
    scorer.judge = Given([torch.tensor([[1.0, 2.0]]), torch.zeros(1, 3)])
    with torch.no_grad():
        scorer.strength.fill_(1.0)
    scorer(torch.ones(1, 5, DIM), ((1, 3), (1, 2)))
    assert scorer.judge.asked[1][0, :, 0].tolist() == [2.0, 2.5, 3.0]  # 1 + 1 * score


class Given(torch.nn.Module):
    """A judge that says what it is told to, and keeps what it was asked."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.asked = answers, []

    def forward(self, features):
        self.asked.append(features.detach())
        return self.answers[len(self.asked) - 1]


def test_every_weight_learns():
    scorer = ForegroundScorer(DIM, 3)
    scorer(torch.randn(2, 32, DIM), SHAPES).square().sum().backward()
    assert all(parameter.grad.any() for parameter in scorer.parameters())


def test_one_level_has_no_strength_to_learn():
    assert [name for name, _ in ForegroundScorer(DIM, 1).named_parameters() if "str" in name] == []


def test_strengths_start_small():
    for _ in range(5):
        strength = ForegroundScorer(DIM, 4).strength
        assert strength.shape == (3,)
        assert strength.abs().max() <= 0.3
        assert strength.any()
