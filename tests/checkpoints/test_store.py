"""A model folder brings the model back, or says what is wrong with it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from leandetr.checkpoints import store
from leandetr.checkpoints.store import find, load, read_recipe, recipe_of, save, shipped_models
from leandetr.errors import CheckpointError, CheckpointMismatch, RecipeError
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model

TINY = ("dim=32", "queries.count=12", "top=12")


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(1)
    model = create_model("lite-dino-nano", num_classes=2, overrides=TINY)
    model.names, model.category_ids = ("red", "weiß 白"), (4, 91)
    return model


@pytest.fixture(scope="module")
def saved(model: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "cells"
    save(model, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "cells"))


def test_a_saved_model_comes_back_whole(model: Detector, saved: Path) -> None:
    again = load(saved)
    assert (again.names, again.category_ids) == (("red", "weiß 白"), (4, 91))
    assert again.recipe == model.recipe
    assert not again.training
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_model_folder_has_three_files_and_a_version(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "labels.json",
        "model.safetensors",
        "recipe.yaml",
    ]
    assert yaml.safe_load((saved / "recipe.yaml").read_text())["format"] == store.FORMAT


def test_every_tensor_is_stored_once(model: Detector, saved: Path) -> None:
    stored = load_file(saved / "model.safetensors")
    used = {id(value) for value in (*model.parameters(), *model.buffers())}
    assert len(stored) <= len(used)


def test_a_failing_save_leaves_the_old_model(
    model: Detector, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, "to_bytes", full)
    with pytest.raises(CheckpointError, match="no space left"):
        save(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_without_names_can_be_kept(tmp_path: Path) -> None:
    save(create_model("lite-dino-nano", num_classes=2, overrides=TINY), tmp_path / "bare")
    assert load(tmp_path / "bare").names == ()


def test_names_must_fit_the_classes(model: Detector, folder: Path) -> None:
    (folder / "labels.json").write_text(json.dumps({"names": ["red"], "category_ids": [1]}))
    with pytest.raises(CheckpointError, match=r"labels\.json: expected 2 names.* got 1"):
        load(folder)
    other = create_model("lite-dino-nano", num_classes=2, overrides=TINY)
    other.names = ("a", "b", "c")
    with pytest.raises(CheckpointError, match="expected 2 names"):
        save(other, folder)


@pytest.mark.parametrize("name", ["recipe.yaml", "labels.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}; a model folder holds"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", b"\x80\x04garbage", "damaged"),
        ("model.safetensors", b"", "damaged"),
        ("recipe.yaml", b"{unclosed", "YAML"),
        ("recipe.yaml", b"- 1\n", "YAML"),
        ("recipe.yaml", b"\xff\xfe", "YAML"),
        ("recipe.yaml", b"name: x\nmodle: 3\n", "did you mean model"),
        ("recipe.yaml", b"format: 99\nname: x\n", "pip install --upgrade"),
        ("recipe.yaml", b"format: new\nname: x\n", "pip install --upgrade"),
        ("labels.json", b"{", "JSON"),
        ("labels.json", b"[]", "names"),
        ("labels.json", b'{"names": [1, 2], "category_ids": [1, 2]}', "names"),
    ],
)
def test_damage_is_told(folder: Path, name: str, content: bytes, says: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        load(folder)
    assert name in str(caught.value)


def test_truncated_weights_are_told(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)


def test_other_keys_and_shapes_are_listed_on_both_sides(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    keys = sorted(tensors)
    tensors["stranger.weight"] = tensors.pop(keys[0])
    tensors[keys[1]] = torch.zeros(7, 7)
    save_file(tensors, path)
    with pytest.raises(CheckpointMismatch) as caught:
        load(folder)
    message = str(caught.value)
    assert f"missing: {keys[0]}" in message
    assert "not in the model: stranger.weight" in message
    assert f"{keys[1]} (7, 7) instead of" in message


def test_weights_of_another_recipe_are_listed_in_part(folder: Path) -> None:
    save_file({f"k{i}": torch.zeros(1) for i in range(9)}, folder / "model.safetensors")
    with pytest.raises(CheckpointMismatch, match="k0, k1, k2, k3, k4, and 4 more"):
        load(folder)


def test_unknown_names_suggest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ZOO", folder.parent)
    with pytest.raises(CheckpointError, match="did you mean cells"):
        load("cell")
    with pytest.raises(CheckpointError, match=r"did you mean .*cells"):
        load(folder.parent / "cels")
    with pytest.raises(CheckpointError, match=r"is a recipe.*leandetr train dino-r50"):
        load("dino-r50")
    with pytest.raises(CheckpointError, match=r"expected a model folder, got a file"):
        load(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"did you mean .*cells"):
        load(folder.parent)


def test_a_slip_in_the_name_of_a_recipe_is_told_and_not_all_recipes():
    with pytest.raises(CheckpointError, match=r"did you mean dino-r50\b"):
        find("dino-r5")
    with pytest.raises(CheckpointError, match=r"; known: lite-dino-nano-cells$"):
        find("zzz")


def test_shipped_models_are_found_by_name_and_folders_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ZOO", folder.parent)
    monkeypatch.chdir(folder)  # where no folder of that name is
    assert shipped_models() == ["cells"]
    assert find("cells") == folder
    assert load("cells").names == ("red", "weiß 白")
    (folder / "cells").mkdir()
    assert find("cells") == Path("cells")


def test_every_shipped_model_loads() -> None:
    for name in shipped_models():
        assert load(name).names


def test_a_recipe_file_can_be_read_alone(folder: Path, model: Detector) -> None:
    assert read_recipe(folder) == read_recipe(folder / "recipe.yaml") == model.recipe
    with pytest.raises(CheckpointError, match=r"nowhere\.yaml"):
        read_recipe(folder / "nowhere.yaml")


def test_a_name_stands_for_a_recipe(
    folder: Path, model: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ZOO", folder.parent)
    monkeypatch.chdir(folder)
    for name in ("cells", str(folder), str(folder / "recipe.yaml")):
        assert recipe_of(name) == model.recipe
    (folder / "dino-nano").mkdir()
    assert recipe_of("dino-nano").name == "dino-nano"
    with pytest.raises(RecipeError, match="did you mean dino-nano"):
        recipe_of("dino-nan")


def test_a_run_folder_means_its_best_model_else_its_last(model: Detector, tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(model, run / "last")
    assert find(run) == run / "last"
    save(model, run / "best")
    assert find(run) == run / "best"
    assert load(run).names == model.names
