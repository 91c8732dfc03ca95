import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.models.backbones.windows import (
    SEAM,
    WindowAttention,
    relative_positions,
    seams,
    whole,
    windows_of,
)


@given(height=st.integers(1, 9), width=st.integers(1, 9), size=st.integers(2, 5))
def test_maps_are_padded_to_whole_windows_at_the_bottom_and_right(height, width, size):
    cells = torch.randn(2, height, width, 3)
    found = whole(cells, size)
    assert found.shape[1] % size == found.shape[2] % size == 0
    assert 0 <= found.shape[1] - height < size
    assert 0 <= found.shape[2] - width < size
    assert torch.equal(found[:, :height, :width], cells)
    assert found.abs().sum() == pytest.approx(float(cells.abs().sum()), rel=1e-4)


def test_windows_are_cut_row_by_row():
    cells = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1).float()
    found = windows_of(cells, 2)[..., 0]
    assert found.shape == (12, 4)
    assert found[1].tolist() == [2, 3, 8, 9]
    assert found[3].tolist() == [12, 13, 18, 19]
    assert found[6].tolist() == [24, 25, 30, 31]


@given(rows=st.integers(1, 3), columns=st.integers(1, 3), size=st.integers(2, 4))
def test_cells_meet_exactly_when_they_are_neighbours_before_the_shift(rows, columns, size):
    height, width, shift = rows * size, columns * size, size // 2
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([y, x], -1)[None].roll((-shift, -shift), dims=(1, 2)).float()
    windows = windows_of(cells, size)
    distance = (windows[:, :, None] - windows[:, None]).abs().amax(-1)
    apart = seams(cells, size, shift)
    # inside one window, cells that were rolled from the other end are at least
    # height - size + 1 away; those of a map with a single window are told by their order
    together = apart == 0
    assert set(apart.unique().tolist()) <= {0.0, SEAM}
    assert (distance[together] < size).all()
    if rows > 1 and columns > 1:
        assert (distance[~together] >= size).all()


def test_relative_positions_name_each_offset_once():
    table = relative_positions(3)
    assert table.shape == (9, 9)
    assert table.unique().numel() == 25
    assert (table.diagonal() == 12).all()
    assert table[0, 1] == 11  # one column to the left
    assert table[0, 3] == 7  # one row up


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_equals_the_formula_window_by_window(shifted):
    attention = WindowAttention(8, 2, size=3)
    cells = torch.randn(2, 6, 9, 8)
    apart = seams(cells, 3, 1) if shifted else None
    found = windows_of(attention(cells, apart), 3)
    for index, window in enumerate(windows_of(cells, 3)):
        query, key, value = attention.qkv(window).reshape(9, 3, 2, 4).permute(1, 2, 0, 3)
        logits = query @ key.transpose(1, 2) / 2  # M T T
        bias = attention.relative_position_bias_table[attention.relative_position_index]
        logits = logits + bias.permute(2, 0, 1)
        if apart is not None:
            logits = logits + apart[index % 6]
        mixed = (logits.softmax(-1) @ value).transpose(0, 1).reshape(9, 8)
        torch.testing.assert_close(found[index], attention.proj(mixed))
