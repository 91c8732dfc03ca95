import math

from leandetr.training.state import Position
from leandetr.training.watch import EARLY, STALE, advice, note_loss, note_score


def test_the_best_is_kept_and_what_is_no_better_is_counted() -> None:
    position = Position()
    assert [note_score(position, ap) for ap in (0.1, 0.3, 0.2, 0.3, math.nan, 0.4)] == [
        *(True, True, False, False, False, True)
    ]
    assert (position.best, position.stale, position.validations) == (0.4, 0, 6)
    note_score(position, 0.1)
    assert position.stale == 1


def test_a_loss_that_runs_away_is_told_with_both_numbers() -> None:
    position = Position()
    assert [note_loss(position, loss) for loss in (9.0, 4.0, 7.9)] == [None] * 3
    told = note_loss(position, 12.0)
    assert told is not None
    assert "12, 3.0 times its lowest (4)" in told
    assert note_loss(position, math.nan) is None
    assert position.lowest_loss == 4.0


def test_a_model_that_finds_nothing_is_sent_to_its_data() -> None:
    position = Position()
    told = []
    for _ in range(2 * EARLY):
        note_score(position, 0.0)
        told.append(advice(position))
    assert [text is not None for text in told] == ([False] * (EARLY - 1) + [True]) * 2
    assert "leandetr data check" in str(told[-1])


def test_no_progress_is_told_now_and_then() -> None:
    position = Position()
    note_score(position, 0.5)
    told = []
    for _ in range(STALE):
        note_score(position, 0.4)
        told.append(advice(position))
    assert [text for text in told if text] == [told[-1]]
    assert f"no better AP for {STALE} validations (best 50.0)" in str(told[-1])
