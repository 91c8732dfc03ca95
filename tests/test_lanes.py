"""Lanes: the same answers in the same order, whatever works beside what."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from torch import Tensor, nn

from leandetr.lanes import Lanes, lanes_of
from leandetr.models.detector import Detector
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.mark.parametrize(("batch", "count", "share"), [(1, 1, 1), (2, 2, 1), (5, 2, 2), (8, 2, 4)])
def test_no_more_than_a_batch_is_under_way(batch: int, count: int, share: int) -> None:
    lanes = Lanes(nn.Linear(1, 1), batch)
    assert (lanes.count, lanes.share) == (count, share)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, on compiling
def test_one_lane_where_two_would_not_do() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    assert lanes_of(model, 8) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert lanes_of(model, 8) == 1
    assert lanes_of(nn.Linear(1, 1, device="meta"), 8) == 1
    model[0].compile()
    assert lanes_of(model, 8) == 1
    torch.set_num_threads(1)
    assert lanes_of(nn.Linear(1, 1), 8) == 1
    torch.set_num_threads(2)


def test_work_is_side_by_side_and_answers_stay_in_order() -> None:
    both = threading.Barrier(2, timeout=20)  # breaks unless two are at work at once

    def work(item: int) -> tuple[int, int, str]:
        both.wait()
        return item, torch.get_num_threads(), threading.current_thread().name

    with Lanes(nn.Linear(1, 1), 4) as lanes:
        found = list(lanes.map(work, range(10)))
    assert [item for item, _, _ in found] == list(range(10))
    assert {threads for _, threads, _ in found} == {1}
    assert len({name for _, _, name in found}) == 2


def test_items_are_asked_for_when_their_turn_is_near() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            asked.append(item)
            yield item

    with Lanes(nn.Linear(1, 1), 2) as lanes:
        for given, _ in enumerate(lanes.map(abs, items())):
            assert len(asked) <= given + 1 + lanes.count


def test_an_error_comes_in_its_place_and_begins_nothing_more() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    given: list[int] = []
    with pytest.raises(ValueError, match="three"), Lanes(nn.Linear(1, 1), 2) as lanes:
        given.extend(lanes.map(work, range(20)))
    assert given == [0, 1, 2]
    assert max(begun) <= 6


def test_whoever_stops_early_leaves_nothing_waiting() -> None:
    begun: list[int] = []
    with Lanes(nn.Linear(1, 1), 2) as lanes, closing(lanes.map(begun.append, range(20))) as answers:
        next(answers)
    assert len(begun) <= 4


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_in_evaluation_mode_and_then_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Dropout(0.5)).train(training)
    ones = torch.ones(1000)

    def look(_: int) -> Tensor:
        return model(ones)

    with Lanes(model, 2) as lanes:
        assert all(torch.equal(answer, ones) for answer in lanes.map(look, range(4)))
    assert (model.training, model[0].training) == (training, training)


def test_a_detector_finds_the_same_in_one_lane_as_in_two() -> None:
    model = tiny_model()
    assert isinstance(model, Detector)
    photos = [torch.rand(3, 64, 64 + 16 * (index % 2)) for index in range(10)]
    beside = model.predict(photos, threshold=0.0, batch=8)
    torch.set_num_threads(1)
    alone = model.predict(photos, threshold=0.0, batch=8)
    torch.set_num_threads(2)
    for one, other in zip(beside, alone, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-2)
        assert torch.equal(one.labels, other.labels)


def test_no_lane_waits_for_one_that_could_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def once(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    model = nn.Linear(1, 1).train()
    with pytest.raises(RuntimeError, match="can't start"), Lanes(model, 2):
        pass
    assert model.training
    started[0].join(20)
    assert not started[0].is_alive()
