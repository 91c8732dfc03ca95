import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest

from leandetr.training import display
from leandetr.training.display import Bar, Clock, Lines, Moment, duration, show


def moment(batch: int = 2, ap: float | None = 0.5) -> Moment:
    return Moment(epoch=2, epochs=4, batch=batch, batches=10, loss=1.25, ap=ap)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (59.2, "59 s"), (61.0, "1 min"), (3599.0, "1 h 00 min"), (7500.0, "2 h 05 min")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_duration_is_a_question_mark() -> None:
    assert duration(math.nan) == "?"


def test_a_moment_says_where_loss_ap_and_time_are() -> None:
    assert moment().text(90.0) == "epoch 2/4  2/10  loss 1.250  AP 50.0  2 min left"
    assert "AP" not in moment(ap=None).text(90.0)


def test_time_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    clock = Clock()
    now[0] += 3
    assert clock.left(moment(batch=1)) == 3 * 29
    now[0] += 1
    assert clock.left(moment(batch=2)) == 2 * 28
    assert clock.left(replace(moment(batch=2), most=20.0)) == 20


def test_lines_come_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    lines = Lines()
    with caplog.at_level(logging.INFO, "leandetr"):
        for batch in range(1, 10):
            now[0] += 10
            lines.step(moment(batch))
    assert len(caplog.messages) == 3


def test_messages_go_to_the_log_file_and_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with show(tmp_path) as shown:
        assert isinstance(shown, Lines)
        logging.getLogger("leandetr.somewhere").info("hello")
    logging.getLogger("leandetr.somewhere").info("nobody hears this")
    assert capsys.readouterr().err == "hello\n"
    text = (tmp_path / "train.log").read_text()
    assert text.endswith("INFO hello\n")
    assert text.count("\n") == 1


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display.sys.stderr, "isatty", lambda: True, raising=False)
    with show(tmp_path) as shown:
        assert isinstance(shown, Bar)
        shown.step(moment())


def test_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with show(tmp_path, main=False):
        logging.getLogger("leandetr.somewhere").info("hello")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "train.log").exists()
