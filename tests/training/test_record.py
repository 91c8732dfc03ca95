import csv
import math
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from leandetr.evaluation.coco import CocoScores
from leandetr.training.criterion import Losses, LossTerm
from leandetr.training.record import Means, Record, Row, _draw, build_row

TERMS = {"total": 9.0, "labels/main/0": 5.0, "labels/main/1": 2.0, "boxes/main/1": 1.0}


def scores(ap: float) -> CocoScores:
    return CocoScores(*[ap] * 12, classes=())


def row(epoch: int, ap: float | None = None) -> Row:
    found = None if ap is None else scores(ap)
    return build_row(TERMS, found, epoch=epoch, step=10 * epoch, seconds=60.0, lr=1e-4, skipped=0)


def losses(**values: float) -> Losses:
    terms = tuple(LossTerm(name, torch.tensor(value), 1.0) for name, value in values.items())
    return Losses(torch.tensor(sum(values.values())), terms)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_means_count_only_batches_that_had_the_term() -> None:
    means = Means()
    means.add(losses(a=1.0, b=2.0))
    means.add(losses(a=3.0))
    assert means.all() == {"total": 3.0, "a": 2.0, "b": 2.0}
    assert Means().all() == {}


def test_a_row_has_the_last_layer_and_the_scores() -> None:
    found = row(1, ap=0.25)
    assert (found.loss, found.labels, found.boxes, found.ap) == (9.0, 2.0, 1.0, 0.25)
    assert math.isnan(found.giou)
    assert math.isnan(row(1).ap)


def test_every_row_is_on_disk_at_once_with_curves_and_board(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add(row(1, ap=0.1), TERMS)
    record.add(row(2), TERMS)
    record.close()
    assert [line["ap"] for line in lines(tmp_path)] == ["0.1", ""]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert list((tmp_path / "tensorboard").iterdir())


def test_curves_are_whole_or_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"before")

    def stops(self: Figure, file: Path, **how: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError

    monkeypatch.setattr(Figure, "savefig", stops)
    with pytest.raises(OSError):  # noqa: PT011
        _draw([], path)
    assert path.read_bytes() == b"before"


def test_going_on_drops_later_rows(tmp_path: Path) -> None:
    first = Record(tmp_path)
    for epoch in (1, 2, 3):
        first.add(row(epoch, ap=0.1), TERMS)
    first.close()
    again = Record(tmp_path, start=2)
    again.add(row(3, ap=0.9), TERMS)
    again.close()
    found = [(line["epoch"], line["ap"]) for line in lines(tmp_path)]
    assert found == [("1", "0.1"), ("2", "0.1"), ("3", "0.9")]


def test_without_tensorboard_and_matplotlib_the_table_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("torch.utils.tensorboard", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with caplog.at_level("INFO", "leandetr"):
        record = Record(tmp_path)
        record.add(row(1), TERMS)
        record.add(row(2), TERMS)
        record.close()
    assert len(lines(tmp_path)) == 2
    assert not (tmp_path / "curves.png").exists()
    assert len(caplog.messages) == 2
    assert all("leandetr[train]" in message for message in caplog.messages)
