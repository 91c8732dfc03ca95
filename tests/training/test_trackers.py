import logging
from pathlib import Path

import pytest

from leandetr import cli_training
from leandetr.errors import TrainingError
from leandetr.recipes.recipe import Recipe
from leandetr.training import record, run, trackers
from leandetr.training.trackers import Service, Tracker, Trackers, check_trackers, open_trackers


class Noted:
    """A tracker of one's own."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.steps: list[int] = []
        self.names: set[str] = set()
        self.closed = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)
        self.names |= set(values)
        values.clear()  # nobody else is to suffer from it
        if self.fails:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        self.closed += 1


def test_a_run_tells_own_trackers_and_outlives_one_that_raises(
    tiny: Recipe,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "write_preview", lambda images, path: path.touch())
    monkeypatch.setattr(record, "_draw", lambda *arguments: True)
    bad, good = Noted(fails=True), Noted()
    assert isinstance(good, Tracker)
    out = run.train(tiny, pictures, tmp_path / "run", trackers=[bad, good])
    assert (bad.steps, bad.closed) == ([2], 0)
    assert (good.steps, good.closed) == ([2, 4], 1)
    assert {"loss/total", "lr", "validation/ap"} <= good.names
    told = capsys.readouterr().err
    assert told.count("Noted is left out from here on (ConnectionError: no route to host)") == 1
    assert len(record.read_rows(out / "metrics.csv")) == 2


def test_a_service_is_told_settings_and_numbers(tmp_path: Path) -> None:
    service = Service("tensorboard", tmp_path, settings={"train.lr": 0.1, "train.drops": [1, 2]})
    service.log({"loss/total": 1.0}, 3)
    service.close()
    assert list(tmp_path.rglob("events.out.tfevents*"))
    settings = next(tmp_path.rglob("hparams.yml")).read_text()
    assert "train.lr: 0.1" in settings
    assert "'[1, 2]'" in settings


def test_a_service_that_cannot_be_opened_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise RuntimeError("not logged in")

    monkeypatch.setattr(trackers, "Service", refused)
    with caplog.at_level(logging.WARNING, "leandetr"):
        opened = open_trackers(["wandb", "tensorboard"], tmp_path, {})
    opened.close()
    assert isinstance(opened, Trackers)
    assert "the tracker wandb is left out" in caplog.text
    assert "not logged in" in caplog.text


def test_a_test_by_heart_has_no_trackers(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--overfit without"):
        cli_training.train("dino-nano", [pictures], tmp_path, overfit=2, track=["wandb"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wandbb", r"got 'wandbb'; did you mean wandb "),
        ("comet_ml", r"pip install comet-ml, or leave out --track comet_ml"),
    ],
)
def test_a_service_that_is_not_there_is_told_before_the_run(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(TrainingError, match=said):
        check_trackers([Noted(), "tensorboard", name])
