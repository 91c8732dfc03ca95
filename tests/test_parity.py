"""How nearness is measured, and that the page about it is complete."""

import math
from pathlib import Path

import pytest
import torch

import golden_data
import parity

PAGE = Path(__file__).parent.parent / "docs" / "parity.md"


@pytest.fixture
def row():
    golden_data.opened.append("made/up")
    yield lambda: parity.measured["made/up"]
    golden_data.opened.clear()
    parity.measured.clear()


def test_the_number_nearest_to_its_tolerance_counts(row):
    torch.testing.assert_close(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]), atol=1, rtol=0)
    assert (row().numbers, row().difference, row().allowed) == (2, 0.5, 1.0)
    assert 10.0 == pytest.approx(9.0, abs=1.5)  # noqa: SIM300
    assert (row().numbers, row().difference, row().allowed) == (3, 1.0, 1.5)
    assert [1.0, math.nan] == pytest.approx([1.0, math.nan], abs=1, nan_ok=True)
    assert (row().numbers, row().difference) == (4, 1.0)


def test_what_differs_still_fails(row):
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.tensor(1.0), torch.tensor(2.0), atol=0.1, rtol=0)
    assert 1.0 != pytest.approx(2.0, abs=0.1)  # noqa: SIM300
    assert "made/up" not in parity.measured


def test_nothing_is_measured_without_a_case():
    assert 1.0 == pytest.approx(1.0)  # noqa: SIM300
    assert not parity.measured


@pytest.mark.skipif(not golden_data.is_full(), reason="the page lists the full golden set")
def test_the_page_has_a_row_for_every_case():
    """After adding one, type: make parity."""
    folder, rows = "", set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        folder = line.removeprefix("## ") if line.startswith("## ") else folder
        if line.startswith("| "):
            rows.add(f"{folder}/{line.split('|')[1].strip()}")
    assert set(golden_data.cases("*/*")) <= rows
