"""Several models on one data set: who is in, what is measured, who is on the front."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from leandetr.checkpoints.store import save
from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.errors import DataError, OutputExists, UncountedOperator
from leandetr.evaluation import compare_text, conventions
from leandetr.evaluation.coco import CocoScores
from leandetr.evaluation.compare import Compared, Comparison, Failed, compare, mean_gmacs
from leandetr.evaluation.compare_files import OUTPUTS, write
from leandetr.evaluation.contestant import Contestant, enter
from leandetr.evaluation.counting import Counts, Row
from leandetr.evaluation.evaluate import evaluate
from leandetr.evaluation.memory import peak_memory
from leandetr.evaluation.operators import Kind
from leandetr.evaluation.parts import Part
from leandetr.evaluation.turns import in_turn
from leandetr.images import Preprocess
from leandetr.recipes.assemble import build
from leandetr.recipes.codec import dump_yaml
from leandetr.recipes.recipe import Recipe
from tiny import tiny

NAMES = ("cell", "ring", "star")
CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Three pictures of two sizes with a box each, of the classes that `models` know."""
    samples = []
    for index, (height, width) in enumerate(((48, 64), (64, 48), (48, 64))):
        path = tmp_path / f"{index}.png"
        Image.effect_noise((width, height), 80).convert("RGB").save(path)
        samples.append(
            Sample(
                path=path,
                image_id=index + 1,
                size=(height, width),
                boxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]),
                labels=torch.tensor([index % 3]),
                crowd=torch.tensor([False]),
                areas=torch.tensor([36.0 * 36.0]),
            )
        )
    categories = tuple(Category(10 + i, name) for i, name in enumerate(NAMES))
    return DetectionData("three", categories, tuple(samples))


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A tiny detector on disk."""
    torch.manual_seed(0)
    detector = build(small())
    detector.names, detector.category_ids = NAMES, (10, 11, 12)
    save(detector, tmp_path / "model")
    return str(tmp_path / "model")


def small() -> Recipe:
    """Two layers, for pictures of 32 x 42."""
    return replace(tiny(), preprocess=Preprocess(32, 64))


def compared(name: str, ap: float | None, gmacs: float = 1.0, ms: float = 1.0) -> Compared:
    scores = None if ap is None else CocoScores(ap, *[math.nan] * 11, classes=())
    return Compared(name, 1_000_000, gmacs, ms, ms / 2, ms * 2, 3.0, scores)


def comparison(*models: Compared, failed: tuple[Failed, ...] = ()) -> Comparison:
    return Comparison("data/val", 5, 9, "a machine", models, failed)


def test_a_model_that_cannot_be_used_does_not_stop_the_others(
    data: DetectionData, model: str, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "other")
    labels = {"names": ["cell", "ring", "cross"], "category_ids": [10, 11, 12]}
    (tmp_path / "other" / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "mine.yaml").write_text(dump_yaml(small()))
    names = [str(tmp_path / "nothing"), model, str(tmp_path / "other"), str(tmp_path / "mine.yaml")]
    done = compare(names, data, device="cpu", warmup=1)
    assert [one.name for one in done.models] == [names[1], names[3]]
    assert [one.name for one in done.failed] == [names[0], names[2]]
    assert "no model folder" in done.failed[0].reason
    assert "lacks star" in done.failed[1].reason
    trained, random = done.models
    assert trained.scores == evaluate(enter(model, data, CPU).model, data, workers=0)
    assert random.scores is None
    assert trained.gmacs == random.gmacs > 0
    assert 0 < trained.ms_low <= trained.ms <= trained.ms_high
    assert trained.mebibytes > 32 * 42 * 3 * 4 / 2**20


def test_a_model_whose_work_cannot_be_counted_does_not_stop_the_others(
    data: DetectionData, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "odd")
    known = iter([UncountedOperator("the operator aten.odd"), 7.0])

    def count(*_: object) -> float:
        found = next(known)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("leandetr.evaluation.compare.mean_gmacs", count)
    done = compare([str(tmp_path / "odd"), model], data, device="cpu", warmup=0, limit=1)
    assert [(one.name, one.gmacs) for one in done.models] == [(model, 7.0)]
    assert [(one.name, one.reason) for one in done.failed] == [
        (str(tmp_path / "odd"), "the operator aten.odd")
    ]


def test_models_may_be_optimised_first(data: DetectionData, model: str) -> None:
    plain, fast = (enter(model, data, CPU, fast=fast) for fast in (False, True))
    assert fast.parameters == plain.parameters
    assert len(list(fast.model.modules())) != len(list(plain.model.modules()))
    for one in (plain, fast):
        one.look(0)
    best = [max(found["score"] for found in one.found) for one in (plain, fast)]
    assert best[0] == pytest.approx(best[1], abs=0.02)


def test_one_that_breaks_down_on_the_way_is_left_out(
    data: DetectionData, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "twin")
    look = Contestant.look

    def tired(self: Contestant, index: int) -> None:
        if self.name == model and index == 2:
            raise RuntimeError("out of memory:\n  tried to allocate")
        look(self, index)

    monkeypatch.setattr(Contestant, "look", tired)
    done = compare([model, str(tmp_path / "twin")], data, device="cpu", warmup=0)
    assert [one.name for one in done.models] == [str(tmp_path / "twin")]
    assert done.failed[0].reason == "broke down in image 3: out of memory: tried to allocate"


def test_an_image_that_cannot_be_read_is_everybodys_trouble(
    data: DetectionData, model: str
) -> None:
    data.samples[1].path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png"):
        compare([model], data, device="cpu", warmup=0)


def test_warming_up_is_not_measured(data: DetectionData, model: str) -> None:
    one = enter(model, data, CPU)
    one.look(0)
    assert len(one.milliseconds) == 1
    assert one.found
    one.forget()
    assert one.milliseconds == []
    assert one.found == []


def test_every_round_begins_with_another() -> None:
    rounds = [list(in_turn("abc", number)) for number in range(4)]
    assert [turn[0] for turn in rounds] == ["a", "b", "c", "a"]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)


def test_sizes_weigh_by_how_often_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_area(model: object, size: tuple[int, int]) -> Counts:
        row = Row(Part("encoder"), Kind.PRODUCT, float(size[0] * size[1]))
        return Counts((row,), size)

    monkeypatch.setattr(conventions, "count", by_area)
    assert mean_gmacs(small(), [(3, 3), (5, 5), (3, 3)]) == pytest.approx((9 + 25 + 9) / 3)


def test_memory_is_that_of_tensors_alive_together() -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = (first + 1)[:10]
        del first
        third = second * torch.zeros(10)
        del second, third
        torch.zeros(500)

    assert peak_memory(work, CPU) == 2 * 4000


def test_the_front_holds_what_no_other_beats() -> None:
    best, cheap = compared("best", 0.6, 9.0), compared("cheap", 0.2, 1.0)
    done = comparison(
        best,
        compared("worse", 0.5, 9.5),
        cheap,
        compared("same for more", 0.2, 2.0),
        compared("random", None, 0.1),
        compared("undefined", math.nan, 0.1),
    )
    assert done.front("gmacs") == (cheap, best)


def test_tables_say_who_is_on_the_front_and_who_is_missing() -> None:
    done = comparison(
        compared("a|b", 0.5, 10.0, 2.0),
        compared("slow", 0.4, 20.0, 1000.0),
        compared("new", None),
        failed=(Failed("gone", "no such folder"), Failed("nex", "did you mean new?")),
    )
    text = compare_text.markdown(done)
    assert "| a\\|b | 50.0 | - | - | - | - | • 10.0 | • 2.00 | 1.00 to 4.00 | 3.00 | 1.0M |" in text
    assert "| slow | 40.0 | - | - | - | - | 20.0 | 1000 |" in text
    assert "| new * | - |" in text
    assert "\n\\* random weights" in text
    assert text.endswith("\nLeft out: gone: no such folder.\n\nLeft out: nex: did you mean new?\n")
    rows = list(csv.DictReader(compare_text.as_csv(done).splitlines()))
    assert [(row["name"], row["ap"], row["ms"]) for row in rows[:2]] == [
        ("a|b", "0.5", "2.0"),
        ("slow", "0.4", "1000.0"),
    ]
    models = compare_text.to_dict(done)["models"]
    assert models[0]["on_front"] == ["gmacs", "ms", "mebibytes"]
    assert models[2]["trained"] is False


def test_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = comparison(compared("one", 0.5, 3.0), compared("two", 0.6, 80.0), compared("new", None))
    write(done, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUTS)
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["models"][1]["ap"] == 0.6
    with Image.open(tmp_path / "out" / "compare.png") as picture:
        assert picture.width > picture.height > 600
        assert len(picture.convert("RGB").getcolors(1_000_000) or ()) > 50
    with pytest.raises(OutputExists):
        write(done, tmp_path / "out")
    write(done, tmp_path / "out", overwrite=True)
