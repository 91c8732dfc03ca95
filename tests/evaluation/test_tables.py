"""The papers' tables: what is printed is whole, what is counted agrees, the page says both."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leandetr.cli import app
from leandetr.errors import OutputExists, RecipeError
from leandetr.evaluation import tables, tables_text, tables_time
from leandetr.evaluation.counting import Counts, Row
from leandetr.evaluation.operators import Kind
from leandetr.evaluation.parts import Part
from leandetr.evaluation.tables import WAYS, CountedRow, count_row, count_tables
from leandetr.recipes.assemble import PRESETS, build
from leandetr.recipes.published_costs import PRINTED_TABLES, PrintedRow, PrintedTable
from tiny import tiny

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
KNOWN = [
    pytest.param(table, row, id=f"{table.key}: {row.label}")
    for table in PRINTED_TABLES
    for row in table.rows
    if row.agrees
]
SAMPLE = ("lite-4: Lite-DINO H3L1-(6+1)x1, R50",)
"""Counting takes seconds a row: `make test-slow` counts the others, and the page is read here."""


def agrees(table: PrintedTable, row: PrintedRow) -> None:
    """The total to 1 %; the encoder where it is one."""
    counted = count_row(row, table)
    assert counted.gmacs == pytest.approx(row.gmacs, rel=0.01)
    if row.encoder == 137:
        assert counted.encoder == pytest.approx(137, rel=0.01)


@pytest.mark.parametrize(("table", "row"), [one for one in KNOWN if one.id in SAMPLE])
def test_totals_agree_where_the_way_of_counting_is_known(table, row):
    agrees(table, row)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("table", "row"), [one for one in KNOWN if one.id not in SAMPLE])
def test_all_other_totals_agree(table, row):
    agrees(table, row)


def test_what_is_printed_is_whole():
    assert len({table.key for table in PRINTED_TABLES}) == len(PRINTED_TABLES)
    for table in PRINTED_TABLES:
        assert len({row.label for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert row.preset is None or row.preset in PRESETS
            assert (row.convention or table.convention) in WAYS
            assert row.preset is not None or not row.agrees
            assert row.encoder is None or row.encoder < row.gmacs


def test_the_page_has_every_row_and_its_figures_agree():
    text = PAGE.read_text(encoding="utf-8")
    for table in PRINTED_TABLES:
        body = text.partition(f"## {table.title}\n")[2].partition("\n## ")[0]
        lines = {line.split(" | ")[0].removeprefix("| "): line for line in body.splitlines()}
        for row in table.rows:
            name = row.label if row.preset is None else f"{row.label} (`{row.preset}`)"
            cells = [cell.strip() for cell in lines[name].strip("|").split("|")]
            assert float(cells[1]) == row.gmacs
            assert cells[3].startswith("**") == row.agrees
            if row.agrees:
                assert abs(float(cells[3].strip("*% "))) <= 1.0


@pytest.fixture
def by_area(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, int]]]:
    """Counting that is done at once: a billion a row and column of the picture's first hundred."""
    asked = []

    def count(recipe: object, size: tuple[int, int]) -> Counts:
        asked.append((recipe.name, size))
        kinds = ((Kind.PRODUCT, 100.0), (Kind.INTERPOLATION, 8.0), (Kind.NORM, 1.0))
        rows = [Row(Part("encoder"), kind, gmacs) for kind, gmacs in kinds]
        return Counts((*rows, Row(Part("heads"), Kind.PRODUCT, float(size[1]))), size)

    monkeypatch.setattr(tables, "count", count)
    return asked


def test_each_model_is_counted_once_a_size(by_area: list[tuple[str, tuple[int, int]]]) -> None:
    counted = count_tables(["lite-4", "dino-1"])
    assert len(by_area) == len(set(by_area)) == 14 + 4 + 3
    row = next(row for row in counted[0].rows if row.printed.label == "DINO, R50")
    assert row.gmacs == 1066 + 101  # compiled sampling is unseen, norms are not
    assert row.bare_encoder == row.encoder == 101
    assert row.common == 1066 + 108
    assert row.difference == pytest.approx(1167 / 235 - 1)
    nobody = next(row for row in counted[1].rows if row.printed.label == "HTC")
    assert nobody == CountedRow(nobody.printed)
    assert tables.presets_of(counted)[:2] == ["dino-swin-t", "lite-dino-swin-t-h2l2-2p1x3"]


def test_a_row_may_be_counted_in_a_way_of_its_own(
    by_area: list[tuple[str, tuple[int, int]]],
) -> None:
    (focus,) = count_tables(["focus"])
    assert ("dino-r50", (800, 1280)) in by_area
    assert ("focus-detr-r50", (850, 1040)) in by_area
    assert "the saving is 0 %" in tables_text.notes(focus)[1]


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match="no table 'lite4'; did you mean lite-4"):
        count_tables(["lite4"])


def test_columns_are_those_with_something_in_them(
    by_area: list[tuple[str, tuple[int, int]]],
) -> None:
    lite, dino = count_tables(["lite-4", "dino-1"])
    times = {"dino-r50": 1234.4}
    assert len(tables_text.titles(lite, {})) == 8
    assert tables_text.titles(dino, times)[-1] == "ms here"
    line = next(
        line
        for line in tables_text.markdown([dino], times, "a machine").splitlines()
        if line.startswith("| DINO, 4 scales")
    )
    assert line.split(" | ")[1:] == [*("279", "1381.0", "**+395.0 %**", "24", "1174.0", "1234 |")]
    assert "Times: a machine." in tables_text.markdown([dino], times, "a machine")
    assert "Times:" not in tables_text.markdown([dino], {}, "")


def test_only_what_is_marked_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    tables_text.replace_marked(page, "new")
    page.write_text("above\n" + page.read_text() + "below\n")
    tables_text.replace_marked(page, "newer")
    begin, end = tables_text.BEGIN, tables_text.END
    assert page.read_text() == f"above\n{begin}\nnewer\n{end}\nbelow\n"
    page.write_text("somebody's own page")
    with pytest.raises(OutputExists, match="add them"):
        tables_text.replace_marked(page, "new")


def test_times_are_the_shortest_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(replace(tiny(), name="tiny"))
    spent = iter([1.0, 2.0, 9.0, 5.0, 4.0, 7.0])  # a, b warm up; b, a; a, b
    monkeypatch.setattr(tables_time, "create_model", lambda name: model)
    monkeypatch.setattr(tables_time, "timed", lambda call, device: (call(), next(spent)))
    times = tables_time.forward_times(["a", "b"], (32, 32), rounds=2, device="cpu")
    assert times == {"a": 4.0, "b": 7.0}


def test_the_verb_prints_and_writes(
    by_area: list[tuple[str, tuple[int, int]]], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    done = CliRunner().invoke(app, ["tables", "dino-1", "--no-time", "--write", str(page)])
    assert done.exit_code == 0, done.output
    assert "DINO, 5 scales" in done.stdout
    assert "## DINO, table 1" in page.read_text()
    by_area.clear()
    page.write_text("somebody's own page")
    own = CliRunner().invoke(app, ["tables", "dino-1", "--no-time", "--write", str(page)])
    assert (own.exit_code, by_area) == (2, []), "what cannot be written is said before counting"
    wrong = CliRunner().invoke(app, ["tables", "dino1", "--no-time"])
    assert wrong.exit_code == 2
    assert "did you mean dino-1" in wrong.stderr
