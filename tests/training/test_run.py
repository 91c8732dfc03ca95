import csv
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from leandetr.checkpoints import store
from leandetr.errors import (
    CheckpointError,
    DataError,
    NetworkUnavailable,
    OutputExists,
    TrainingError,
)
from leandetr.recipes.recipe import Recipe
from leandetr.training import by_heart, loop, prepare, record, run, state
from leandetr.training.optim import COSINE_END
from leandetr.training.run import differences, overfit, train


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "minutes"} for row in csv.DictReader(file)]


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "last" / "model.safetensors")


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module", autouse=True)
def _no_curves() -> Iterator[None]:
    """Drawing takes most of the time of so small a run; other tests draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_preview", lambda images, path: path.touch())
        patch.setattr(record, "_draw", lambda *arguments: True)
        yield


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C during step number `steps`."""
    original, taken = loop.train_step, []

    def step(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == steps:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(loop, "train_step", step)


def test_a_run_leaves_a_model_that_knows_its_classes(
    tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    out = train(tiny, pictures, tmp_path / "run")
    for name in ("train.log", "tensorboard", "last/state.pt", "best/recipe.yaml", "preview.png"):
        assert (out / name).exists(), name
    assert [(row["epoch"], row["step"], row["skipped"]) for row in rows(out)] == [
        ("1", "2", "0"),
        ("2", "4", "0"),
    ]
    model = store.load(out / "best")
    assert (model.names, model.category_ids) == (("red", "green"), (3, 7))
    assert model.recipe.model.classes == 2


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Recipe) -> Path:
    """An uninterrupted run of `averaged`."""
    return train(averaged(tiny), pictures, tmp_path_factory.mktemp("whole"))


def averaged(tiny: Recipe) -> Recipe:
    return tiny.with_train(ema=0.9, schedule="cosine", warmup=2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(
    steps: int,
    whole: Path,
    tiny: Recipe,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = averaged(tiny)
    with monkeypatch.context() as patch:
        interrupt_after(steps, patch)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(recipe, pictures, tmp_path / "parts")
    torch.manual_seed(99)
    parts = train(recipe, pictures, tmp_path / "parts", resume=True)
    assert_same(weights(whole), weights(parts))
    first, second = (
        torch.load(out / "last" / "state.pt", weights_only=True) for out in (whole, parts)
    )
    assert_same(first["parts"]["model"], second["parts"]["model"])
    assert torch.equal(first["random"][0]["torch"], second["random"][0]["torch"])
    assert [row["ap"] for row in rows(whole)] == [row["ap"] for row in rows(parts)]


def test_a_finished_run_takes_more_epochs(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    whole = train(tiny, pictures, tmp_path / "whole")
    parts = train(tiny, pictures, tmp_path / "parts", overrides=["train.epochs=1"])
    train(tiny, pictures, parts, resume=True)
    assert_same(weights(whole), weights(parts))
    assert rows(whole) == rows(parts)


def test_a_run_is_never_overwritten(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    with pytest.raises(OutputExists, match="--resume"):
        train(tiny, pictures, tmp_path)


def test_a_run_that_begins_anew_has_a_new_preview(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preview.png").write_bytes(b"of a run that came to no checkpoint")
    monkeypatch.setattr(run, "write_preview", lambda images, path: path.write_bytes(b"new"))
    train(tiny, pictures, tmp_path, overrides=["train.epochs=1"], splits=("val", "none"))
    assert (tmp_path / "preview.png").read_bytes() == b"new"


def test_resuming_nothing_is_refused(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to go on with"):
        train(tiny, pictures, tmp_path / "rnu", resume=True)
    assert not (tmp_path / "rnu").exists()


def test_resuming_another_run_is_refused(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    short = ["train.epochs=1"]
    out = train(tiny, pictures, tmp_path / "run", overrides=short, splits=("val", "none"))
    record = {path: path.read_bytes() for path in (out / "recipe.yaml", out / "run.json")}
    with pytest.raises(TrainingError, match=r"train\.lr: 0\.001 -> 0\.01"):
        train(tiny, pictures, out, overrides=["train.lr=0.01"], resume=True)
    assert {path: path.read_bytes() for path in record} == record


def test_a_run_of_several_processes_is_not_resumed_by_one(
    tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    short = ["train.epochs=1"]
    out = train(tiny, pictures, tmp_path / "run", overrides=short, splits=("val", "none"))
    path = out / "last" / "state.pt"
    alone = state.read(path)
    state.write(replace(alone, random={0: alone.random[0], 1: alone.random[0]}), path)
    with pytest.raises(TrainingError, match=r"processes: 2 -> 1"):
        train(tiny, pictures, out, overrides=short, resume=True, splits=("val", "none"))


def test_differences_name_paths_but_not_what_may_change() -> None:
    before = {"recipe": {"train": {"epochs": 1, "lr": 1}, "name": "a"}, "names": ["x"]}
    now = {"recipe": {"train": {"epochs": 2, "lr": 2}, "name": "a"}, "names": ["x", "y"]}
    assert differences(before, now) == ["train.lr: 1 -> 2", "names: ['x'] -> ['x', 'y']"]


def test_without_validation_it_trains_and_says_so(
    tiny: Recipe, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train(
        tiny, pictures, tmp_path / "run", splits=("train", "none"), overrides=["train.epochs=1"]
    )
    assert "there is no validation" in capsys.readouterr().err
    assert not (out / "best").exists()
    assert rows(out)[0]["ap"] == ""


def test_data_without_boxes_is_refused(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    make_split(tmp_path / "data", "train", 2, boxes=0)
    with pytest.raises(DataError, match="box"):
        train(tiny, tmp_path / "data", tmp_path / "run")


def test_a_class_that_only_validation_has_is_refused_before_training(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", 2)
    make_split(data, "val", 2)
    file = data / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("green", "blue"))
    with pytest.raises(DataError, match="got green besides"):
        train(tiny, data, tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


def test_images_without_boxes_and_fuller_than_the_queries_train(
    tiny: Recipe,
    make_split: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    make_split(data, "full", 1, boxes=15)
    make_split(data, "train", 4, boxes=0)
    shutil.copytree(data / "images" / "full", data / "images" / "train", dirs_exist_ok=True)
    shutil.copy(
        data / "annotations" / "instances_full.json", data / "annotations" / "instances_train.json"
    )
    out = train(tiny, data, tmp_path / "run", splits=("train", "none"))
    assert "holds 15 objects but the recipe has 12 queries" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(out).values())


def test_time_up_ends_with_validation_and_checkpoint(
    whole: Path, tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    out = train(averaged(tiny), pictures, tmp_path / "run", minutes=0.0)
    assert [(row["epoch"], row["step"]) for row in rows(out)] == [("1", "1")]
    assert rows(out)[0]["ap"] != ""
    train(averaged(tiny), pictures, out, resume=True)
    assert_same(weights(out), weights(whole))
    assert [row["epoch"] for row in rows(out)] == ["1", "2"]


def test_validation_can_be_rarer_but_never_misses_the_end(
    tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    out = train(
        tiny.with_train(validate_every=2),
        *(pictures, tmp_path / "run"),
        overrides=["train.epochs=3"],
    )
    assert [row["ap"] != "" for row in rows(out)] == [False, True, True]


def test_another_model_is_fine_tuned(
    tiny: Recipe, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leandetr.recipes.assemble import create_model

    old = create_model(tiny, num_classes=5)
    slow = ["train.epochs=1", "train.lr=1e-12", "train.weight_decay=0"]
    out = train(old, pictures, tmp_path / "run", overrides=slow)
    told = capsys.readouterr().err
    assert "heads.classes.* (2 tensors): no row of the old model stands for the same" in told
    assert "classes: 5 in the old model, 2 here, not both named: all are fresh" in told
    name = next(name for name in weights(out) if name.startswith("decoder") and "weight" in name)
    torch.testing.assert_close(weights(out)[name], old.state_dict()[name])
    again = train(tiny, pictures, tmp_path / "again", overrides=slow, weights=out / "best")
    torch.testing.assert_close(weights(again)[name], weights(out)[name])
    assert "classes: 2 of 2 known by name" in capsys.readouterr().err


def test_bf16_trains(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    out = train(
        tiny, pictures, tmp_path / "run", overrides=["train.epochs=1", "train.precision=bf16"]
    )
    assert rows(out)[0]["skipped"] == "0"
    assert all(value.dtype != torch.bfloat16 for value in weights(out).values())


def spoil(which: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Make the model's loss or gradient NaN in the steps of which `which` is true."""
    from leandetr.models.detector import Detector

    original, taken = Detector.forward, []

    def forward(self: Detector, images: Any, targets: Any = None) -> Any:
        found = original(self, images, targets)
        if targets is None:
            return found
        taken.append(1)
        if which(len(taken)):
            last = found.layers[-1]
            if where == "loss":
                last.logits.data.fill_(torch.nan)
            else:
                last.boxes.register_hook(lambda grad: grad * torch.nan)
        return found

    monkeypatch.setattr(Detector, "forward", forward)


@pytest.mark.parametrize(
    ("where", "named"), [("loss", "labels/main/1"), ("gradient", "the gradient of ")]
)
def test_a_broken_step_is_skipped_counted_and_named(
    where: str,
    named: str,
    tiny: Recipe,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(lambda step: step == 2, monkeypatch, where)
    out = train(tiny, pictures, tmp_path / "run")
    assert [row["skipped"] for row in rows(out)] == ["1", "0"]
    assert f"step 2 skipped: {named}" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(out).values())


def test_a_step_of_two_batches_is_one_step(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    smaller = ["train.batch=1", "train.accumulate=2", "train.schedule=cosine"]
    out = train(tiny, pictures, tmp_path / "run", overrides=smaller)
    assert [row["step"] for row in rows(out)] == ["3", "6"]  # five images: 2, 2 and 1
    rate = float(rows(out)[-1]["lr"])
    assert rate == pytest.approx(COSINE_END * tiny.train.lr)
    with pytest.raises(TrainingError, match=r"train\.accumulate: 2 -> 1"):
        train(tiny, pictures, out, overrides=[*smaller, "train.accumulate=1"], resume=True)


def test_a_run_that_gets_no_better_stops_early(
    tiny: Recipe, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ["train.epochs=9", "train.lr=1e-12", "train.weight_decay=0", "train.patience=2"]
    out = train(tiny, pictures, tmp_path / "run", overrides=still)
    assert len(rows(out)) == 3
    assert "stopped early: no better AP for 2 validations" in capsys.readouterr().err


def test_a_run_that_only_breaks_ends(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(lambda step: True, monkeypatch, "loss")
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(tiny, pictures, tmp_path / "run")


def test_workers_change_nothing(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    one = ["train.epochs=1"]
    alone = train(tiny, pictures, tmp_path / "alone", overrides=one)
    helped = train(tiny, pictures, tmp_path / "helped", overrides=[*one, "train.workers=1"])
    assert_same(weights(alone), weights(helped))


def test_logging_is_left_as_it_was(tiny: Recipe, pictures: Path, tmp_path: Path) -> None:
    level = logging.getLogger("leandetr").level
    train(tiny, pictures, tmp_path / "run", overrides=["train.epochs=1"], splits=("val", "none"))
    assert logging.getLogger("leandetr").level == level


def test_without_a_network_both_ways_out_are_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: Any) -> str:
        raise NetworkUnavailable("fetch weights.pth by hand")

    monkeypatch.setattr(prepare, "load_pretrained", unreachable)
    with pytest.raises(NetworkUnavailable, match=r"by hand; or .* --set backbone.weights=none"):
        train("dino-r50", pictures, tmp_path / "run", overrides=["dim=32"])


def test_a_backbone_that_the_old_model_lacks_starts_pretrained(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leandetr.recipes.assemble import build

    def loaded(*arguments: Any) -> str:
        raise NetworkUnavailable("the backbone was asked for")

    monkeypatch.setattr(prepare, "load_pretrained", loaded)
    store.save(build(tiny), tmp_path / "old")
    with pytest.raises(NetworkUnavailable, match="was asked for"):
        train(
            "dino-r50",
            *(pictures, tmp_path / "run"),
            overrides=["dim=32"],
            weights=tmp_path / "old",
        )


def test_missing_images_are_skipped_when_asked_for(
    tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(pictures, tmp_path / "data"))
    next((broken / "images" / "train").iterdir()).unlink()
    with pytest.raises(DataError, match=r"--set train\.skip_missing=true"):
        train(tiny, broken, tmp_path / "refused")
    out = train(tiny, broken, tmp_path / "run", overrides=["train.skip_missing=true"])
    assert "images skipped, missing or unreadable: 1" in (out / "train.log").read_text()


def test_images_are_learned_by_heart_until_it_is_enough(
    tiny: Recipe,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "ENOUGH", 0.0)
    monkeypatch.setattr(by_heart, "LOOK_EVERY", 2)
    out = overfit(tiny, pictures, tmp_path / "run", images=2)
    told = capsys.readouterr().err
    assert f"learning 2 images of {pictures.name}/train by heart" in told
    assert "learned by heart: AP50" in told
    assert [row["step"] for row in rows(out)] == ["2"]  # one row and one checkpoint
    assert store.load(out / "last").recipe.train.ema is None


def test_an_interrupted_test_begins_anew(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt, match="begins anew, with another --out"):
        overfit(tiny, pictures, tmp_path / "run", images=2)


def test_what_is_not_learned_by_heart_has_a_likely_cause(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_heart, "LOOK_EVERY", 1)
    still = ["train.lr=1e-12", "train.epochs=3"]  # 1500 were it not for these
    with pytest.raises(
        TrainingError, match=r"not learned .* after 3 steps.*\n- the loss hardly fell"
    ):
        overfit(tiny, pictures, tmp_path / "run", images=2, overrides=still)


def test_a_preset_learns_to_do_with_few_images(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leandetr.data.sources import load_data
    from leandetr.recipes.assemble import recipe

    data = prepare.Data(load_data(pictures, "train"), None)
    chosen = ["train.epochs=3", "dim=32"]
    changed = prepare.fit_recipe(prepare.choose_recipe("dino-r50", chosen), data, chosen)
    assert (changed.train.epochs, changed.train.ema, changed.model.classes) == (3, 0.998, 2)
    own = recipe("dino-r50").with_train(clip=1.0)
    assert prepare.fit_recipe(own, data, ()).train == own.train
