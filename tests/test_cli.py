"""The command line: what is printed, where, and with which exit code."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from leandetr.checkpoints import store
from leandetr.checkpoints.store import save
from leandetr.cli import app
from leandetr.models.optimise import best_dtype
from leandetr.recipes.assemble import create_model, list_models
from leandetr.training import run as training
from scripted import Scripted


def leandetr(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def quarter(size: tuple[int, int]) -> list:
    height, width = size
    return [([0, 0, width / 2, height / 2], 0.9, 0)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """What every model folder loads as."""
    model = Scripted(quarter)
    monkeypatch.setattr(store, "load", lambda name: model)
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One picture with one cell, as the split val."""
    root = tmp_path / "data"
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.new("RGB", (40, 30)).save(root / "images" / "val" / "a.png")
    truth = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 2, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [0, 0, 20, 15]}],
    }
    (root / "annotations" / "instances_val.json").write_text(json.dumps(truth))
    return root


def test_help_and_version() -> None:
    assert leandetr("--help").exit_code == 0
    assert leandetr("--version").stdout.startswith("leandetr ")


def test_list_shows_recipes_by_pattern() -> None:
    names = [line.split()[0] for line in leandetr("list").stdout.splitlines() if line]
    assert set(list_models()) <= set(names)
    assert f"{store.shipped_models()[0]}:" in names
    lite = leandetr("list", "lite-dino-*").stdout
    assert "lite-dino-nano " in lite
    assert "\ndino-nano " not in lite


def test_show_prints_a_recipe_that_can_be_shown_again(tmp_path: Path) -> None:
    shown = leandetr("show", "dino-nano", "--set", "train.epochs=3")
    assert "epochs: 3\n" in shown.stdout
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    assert leandetr("show", tmp_path / "mine.yaml").stdout == shown.stdout


def test_show_prints_a_difference() -> None:
    shown = leandetr("show", "dino-r50", "lite-dino-r50-h3l1-2p1x3").stdout
    assert {"-    type: deformable", "+    type: lite"} <= set(shown.splitlines())
    assert "are the same" in leandetr("show", "dino-r50", "dino-r50").stdout


def test_show_takes_a_model_folder(tmp_path: Path) -> None:
    tiny = ["dim=32", "queries.count=12", "top=12"]
    save(create_model("dino-nano", num_classes=2, overrides=tiny), tmp_path / "model")
    assert "dim: 32" in leandetr("show", tmp_path / "model").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "dino-r5"], "did you mean dino-r50"),
        (["show", "dino-r50", "--set", "encoder.layrs=3"], "did you mean encoder.layers"),
        (["show", "dino-r50", "--set", "encoder.layers=many"], "expected int"),
        (["predict", "nowhere", "a.jpg", "--out", "out"], "no model folder 'nowhere'"),
        (["train", "dino-nano", "--data", "nowhere", "--out", "out"], "no such folder"),
        (["train", "dino", "--data", "nowhere", "--out", "out"], "no recipe 'dino'"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = leandetr(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("leandetr: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_debug_shows_where_a_mistake_came_from() -> None:
    done = leandetr("--debug", "show", "dino-r5")
    assert done.exit_code == 1
    assert done.exception is not None
    assert "did you mean" in str(done.exception)


def test_wrong_usage_is_code_2() -> None:
    assert leandetr("predict").exit_code == 2
    assert leandetr("bogus").exit_code == 2
    assert leandetr("predict", "m", "a.jpg", "--out", "o", "--threshold", "7").exit_code == 2


def test_predict_counts_and_tells(scripted: Scripted, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    out = tmp_path / "out"
    done = leandetr("predict", "model", tmp_path / "a.png", "--out", out, "--no-pictures")
    assert done.exit_code == 0
    pattern = rf"1 picture, 1 detection, 0 skipped; \d+\.\d pictures a second; written to {out}\n"
    assert re.fullmatch(pattern, done.stdout)
    mixed = leandetr("predict", "model", tmp_path / "*.png", "--out", out, "--overwrite")
    assert mixed.exit_code == 1
    assert "b.png: is not an image" in mixed.stderr
    assert f"1 skipped (why: {out / 'images.json'});" in mixed.stdout
    bad = leandetr("predict", "model", tmp_path / "b.png", "--out", tmp_path / "bad")
    assert bad.exit_code == 2


def test_predict_never_overwrites_unasked(scripted: Scripted, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    words = ("predict", "model", tmp_path / "a.png", "--out", tmp_path / "out")
    assert leandetr(*words).exit_code == 0
    again = leandetr(*words)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert leandetr(*words, "--overwrite").exit_code == 0


def test_coarse_photos_are_not_drawn(scripted: Scripted, tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg")
    words = ("predict", "model", tmp_path, "--out", tmp_path / "out", "--coarse")
    refused = leandetr(*words)
    assert (refused.exit_code, "--no-pictures" in refused.stderr) == (2, True)
    assert leandetr(*words, "--no-pictures").exit_code == 0
    assert "decoded at 1/4" in (tmp_path / "out" / "images.json").read_text()


def test_a_limit_is_told_by_its_option(scripted: Scripted, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    words = ("predict", "model", tmp_path, "--out", tmp_path / "out", "--max-pixels", "100")
    assert "add --max-pixels 1200" in leandetr(*words).stderr


def test_fast_optimises_the_model(scripted: Scripted, data: Path, tmp_path: Path) -> None:
    asked = []
    scripted.optimise = lambda *, dtype: asked.append(dtype) or scripted
    predict = ("predict", "m", data / "images", "--out", tmp_path / "out", "--no-pictures")
    assert leandetr(*predict, "--fast").exit_code == 0
    assert leandetr("evaluate", "m", "--data", data, "--workers", 0, "--fast").exit_code == 0
    assert asked == [best_dtype()] * 2
    leandetr(*predict, "--overwrite")
    assert len(asked) == 2


def test_an_unusable_device_is_told(scripted: Scripted, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    words = ("predict", "m", tmp_path / "a.png", "--out", tmp_path / "out", "--device", "tpu9")
    done = leandetr(*words)
    assert done.exit_code == 2
    assert "device 'tpu9' cannot be used" in done.stderr


def test_evaluate_prints_and_writes_the_scores(
    scripted: Scripted, data: Path, tmp_path: Path
) -> None:
    words = ("evaluate", "model", "--data", data, "--out", tmp_path / "scores", "--workers", 0)
    done = leandetr(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("model on data/val: 1 image, 1 box\n")
    assert "ap50        1.000" in done.stdout
    assert "cell    1.000   1.000       1" in done.stdout
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["ap50"] == 1
    again = leandetr(*words)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    wrong = leandetr("evaluate", "model", "--data", data, "--split", "vall")
    assert wrong.exit_code == 2
    assert "did you mean val" in wrong.stderr


def test_train_passes_everything_on(
    monkeypatch: pytest.MonkeyPatch, scripted: Scripted, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr(training, "train", lambda *args, **options: calls.append((args, options)))
    words = ["--data", "d", "--out", "o", "--epochs", "3", "--minutes", "2", "--resume"]
    words += ["--fit-memory", "--track", "wandb"]
    done = leandetr("train", "dino-nano", *words, "--set", "train.lr=1e-3", "--weights", "w")
    assert done.exit_code == 0, done.output
    ((recipe, data, out), options) = calls.pop()
    assert (recipe.name, data, out) == ("dino-nano", [Path("d")], Path("o"))
    assert options == {
        "overrides": ["train.lr=1e-3", "train.epochs=3"],
        "resume": True,
        "weights": "w",
        "minutes": 2.0,
        "fit_memory": True,
        "trackers": ["wandb"],
    }
    leandetr("train", tmp_path, "--data", "d", "--out", "o")
    assert calls.pop()[0][0] is scripted


def test_scenes_go_into_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    fake = SimpleNamespace(write_scenes=lambda out, **options: calls.append((out, options)))
    monkeypatch.setitem(sys.modules, "leandetr.data.scenes", fake)
    done = leandetr("scenes", tmp_path / "new", "--train", "3", "--val", "2", "--seed", "7")
    assert done.exit_code == 0, done.output
    assert calls == [(tmp_path / "new", {"train": 3, "val": 2, "seed": 7})]
    (tmp_path / "mine.txt").touch()
    assert leandetr("scenes", tmp_path).exit_code == 2
    assert len(calls) == 1


def test_an_interruption_is_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    done = leandetr("train", "dino-nano", "--data", "d", "--out", "o")
    assert done.exit_code == 130
    assert "interrupted" in done.stderr
