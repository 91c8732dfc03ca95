"""What a data set may hold and no run may fall over."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leandetr.checkpoints import store
from leandetr.errors import TrainingError
from leandetr.evaluation.evaluate import evaluate
from leandetr.recipes.recipe import Recipe
from leandetr.training import record, run
from leandetr.training.run import train

NAMES = ["🐈 café", "a/b\\c", "two\nlines", "\"quoted\" 'one' | two, three", "x" * 300, "# - : [y]"]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_draw", lambda *arguments: True)


def test_classes_may_be_called_anything(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for split, images in (("train", 3), ("val", 2)):
        make_split(data, split, images)
        file = data / "annotations" / f"instances_{split}.json"
        coco = json.loads(file.read_text())
        coco["categories"] = [{"id": n, "name": name} for n, name in enumerate(NAMES, start=3)]
        file.write_text(json.dumps(coco))
    out = train(tiny, data, tmp_path / "run", overrides=["train.epochs=1"])
    model = store.load(out)
    assert model.names == tuple(NAMES)
    scores = evaluate(model, data, workers=0)
    assert [one.name for one in scores.classes] == NAMES
    rows = scores.table().split("\nclass")[1].splitlines()
    assert len(rows) == 1 + len(NAMES)
    assert max(map(len, rows)) < 120
    assert len(scores.markdown().split("| class |")[1].strip().splitlines()) == 2 + len(NAMES)


def test_ten_thousand_boxes_in_an_image_train(
    tiny: Recipe,
    make_split: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from leandetr.evaluation.memory import peak_memory
    from leandetr.training import loop

    peaks, original = [], loop.train_step

    def step(parts, batches):
        found = []
        device = parts.accelerator.device
        peaks.append(peak_memory(lambda: found.append(original(parts, batches)), device))
        return found[0]

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(run, "write_preview", lambda images, path: path.touch())
    make_split(tmp_path / "data", "train", 1, boxes=10_000)
    one = ["train.epochs=1", "preprocess.short=64", "preprocess.long=80"]
    out = train(tiny, tmp_path / "data", tmp_path / "run", overrides=one)
    assert record.read_rows(out / "metrics.csv")[0].skipped == 0
    assert len(peaks) == 1
    assert peaks[0] < 300e6
    told = capsys.readouterr().err
    assert "holds 10000 objects but the recipe has 12 queries" in told
    assert "cut such images into smaller ones, and add --set queries.count=2000" in told


def test_a_folder_that_cannot_be_written_is_told_before_the_run(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(dir: Path) -> None:  # noqa: A002
        raise OSError(30, "Read-only file system", str(dir))

    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"File exists.*choose another with --out"):
        train(tiny, pictures, tmp_path / "file")
    with pytest.raises(TrainingError, match=r"Not a directory.*choose another with --out"):
        train(tiny, pictures, tmp_path / "file" / "run")
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(TrainingError, match=r"Read-only file system.*choose another with --out"):
        train(tiny, pictures, tmp_path / "run")
