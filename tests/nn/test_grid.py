"""Where tokens are, what is valid, what proposes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.nn import grid
from leandetr.types import Tokens


def plain(*shapes, valid=None):
    """Tokens of one image; `valid` is the (rows, columns) of each level that are not padding."""
    holes, ratios = [], []
    for (height, width), (rows, columns) in zip(shapes, valid or shapes, strict=True):
        hole = torch.ones(1, height, width, dtype=torch.bool)
        hole[:, :rows, :columns] = False
        holes.append(hole.flatten(1))
        ratios.append(grid.valid_ratio(hole, torch.float32))
    padding = torch.cat(holes, dim=1)
    nothing = torch.zeros(1, padding.shape[1], 2)
    return Tokens(nothing, nothing, padding, torch.stack(ratios, dim=1), shapes)


def test_valid_ratio_puts_x_first():
    hole = torch.ones(2, 4, 8, dtype=torch.bool)
    hole[0, :3, :2] = False
    hole[1] = False
    expected = torch.tensor([[2 / 8, 3 / 4], [1.0, 1.0]])
    torch.testing.assert_close(grid.valid_ratio(hole, torch.float32), expected)


def test_cell_centres_go_row_by_row():
    centres = grid.cell_centres(2, 3, torch.zeros(1))
    assert centres.tolist() == [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
    ]


def test_reference_points_are_centres_in_the_unpadded_image():
    points = grid.reference_points(plain((2, 2), (1, 4), valid=[(1, 2), (1, 2)]))[0]
    torch.testing.assert_close(points[0], torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(points[1], torch.tensor([0.75, 0.5]))
    assert points[2, 1] > 1  # a padded row lies below the image
    torch.testing.assert_close(points[4:, 0], torch.tensor([0.25, 0.75, 1.25, 1.75]))


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_padding_moves_no_reference_point_and_no_proposal(height, width, more):
    tight = plain((height, width))
    loose = plain((height + more[0], width + more[1]), valid=[(height, width)])
    kept = ~loose.padding[0]
    for function in (grid.reference_points, grid.proposals):
        torch.testing.assert_close(function(loose)[:, kept], function(tight), atol=1e-6, rtol=0)


def test_references_on_levels_are_fractions_of_each_padded_level():
    ratios = torch.tensor([[[0.5, 1.0], [0.25, 0.75]]])
    boxes = torch.tensor([[[0.4, 0.8, 0.2, 0.4]]])
    found = grid.on_levels(boxes, ratios)
    expected = torch.tensor([[[[0.2, 0.8, 0.1, 0.4], [0.1, 0.6, 0.05, 0.3]]]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grid.on_levels(boxes[..., :2], ratios), expected[..., :2])


def test_proposals_double_their_side_on_every_coarser_level():
    found = grid.proposals(plain((2, 2), (1, 1), (1, 1)))[0]
    sides = found[:, 2:]
    torch.testing.assert_close(sides[:, 0], torch.tensor([0.05] * 4 + [0.1, 0.2]))
    assert torch.equal(sides[:, 0], sides[:, 1])
    torch.testing.assert_close(found[0, :2], torch.tensor([0.25, 0.25]))


@pytest.mark.parametrize("padding", [0, 1, 35, 47])
@pytest.mark.parametrize(("side", "edges_propose"), [(49, True), (50, False), (51, False)])
def test_border_cells_of_long_sides_do_not_propose(side, edges_propose, padding):
    """The first centre of 50 cells is 0.5 / 50 = 0.01, exactly on the window, and stays out.

    However much padding follows: with 35 or 47 padded cells the valid ratio, rounded, counts fewer
    or more than 50 cells, which must not let a border cell in.
    """
    tokens = plain((1, side + padding), valid=[(1, side)])
    valid = grid.valid_proposals(grid.proposals(tokens), tokens.padding)[0, :side]
    assert valid[1:-1].all()
    assert valid[0].item() is edges_propose
    assert valid[-1].item() is edges_propose


def test_padded_tokens_do_not_propose():
    tokens = plain((3, 3), valid=[(2, 1)])
    valid = grid.valid_proposals(grid.proposals(tokens), tokens.padding)
    assert torch.equal(valid, ~tokens.padding)


def test_proposals_of_the_coarsest_levels_stay_inside_the_window():
    """Side 0.05 * 2**level passes 0.99 at the sixth level: nothing proposes there."""
    tokens = plain(*[(1, 1)] * 6)
    valid = grid.valid_proposals(grid.proposals(tokens), tokens.padding)
    assert valid.tolist() == [[True] * 5 + [False]]


def test_one_cell_is_a_level():
    tokens = plain((1, 1))
    torch.testing.assert_close(grid.reference_points(tokens), torch.full((1, 1, 2), 0.5))
    torch.testing.assert_close(tokens.valid_ratios, torch.ones(1, 1, 2))


def test_pick_takes_rows_in_order_and_lets_gradients_through():
    values = torch.arange(12.0).reshape(2, 3, 2).requires_grad_()
    found = grid.pick(values, torch.tensor([[2, 0], [1, 1]]))
    assert found.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    found.sum().backward()
    assert values.grad[:, :, 0].tolist() == [[1, 0, 1], [0, 2, 0]]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(tuple))
def test_levels_lie_behind_each_other(shapes):
    tokens = plain(*shapes)
    assert grid.count(shapes) == tokens.features.shape[1]
    assert [tokens.level(i).shape[1] for i in range(len(shapes))] == [h * w for h, w in shapes]
    ends = [start + h * w for start, (h, w) in zip(tokens.starts, shapes, strict=True)]
    assert [0, *ends[:-1]] == list(tokens.starts)
    assert ends[-1] == grid.count(shapes)


def test_rows_are_picked_and_put_image_by_image():
    values = torch.arange(1, 25, dtype=torch.float64).view(2, 4, 3).requires_grad_()
    index = torch.tensor([[3, 0], [1, 2]])
    picked = grid.pick(values, index)
    assert picked[:, :, 0].tolist() == [[10.0, 1.0], [16.0, 19.0]]
    changed = grid.put(values, index, -picked)
    assert (changed[:, :, 0] < 0).long().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
    torch.testing.assert_close(grid.pick(changed, index), -picked)
    assert torch.autograd.gradcheck(lambda x: grid.put(x, index, 2 * grid.pick(x, index)), values)
