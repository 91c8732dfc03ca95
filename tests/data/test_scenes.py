"""Synthetic scenes are what their annotations say, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandetr.data import load_data, write_scenes
from leandetr.data.shapes import FINE, SHAPES, Scene, draw_scene
from leandetr.errors import DataError, OutputExists

SIZE, OBJECTS = (120, 160), (6, 20)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def scene(seed: int) -> Scene:
    return draw_scene(np.random.default_rng(seed), SIZE, OBJECTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "data"
    return write_scenes(out, train=4, val=2, size=SIZE, objects=OBJECTS, seed=3)


def test_the_same_seed_draws_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = write_scenes(tmp_path / "b", train=4, val=2, size=SIZE, objects=OBJECTS, seed=3)
    other = write_scenes(tmp_path / "c", train=4, val=2, size=SIZE, objects=OBJECTS, seed=4)
    assert files(again) == files(folder)
    assert files(other) != files(folder)


def test_more_scenes_are_added_to_the_same_ones(folder: Path, tmp_path: Path) -> None:
    more = files(write_scenes(tmp_path / "b", train=5, val=2, size=SIZE, objects=OBJECTS, seed=3))
    pictures = {name: data for name, data in files(folder).items() if name.endswith(".png")}
    assert pictures.items() <= more.items()


def test_the_folder_is_read_without_a_warning(folder: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        data = load_data(folder, split)
        assert (len(data.samples), data.warnings, data.names) == (count, (), tuple(SHAPES))
        for sample in data.samples:
            assert sample.size == SIZE
            assert OBJECTS[0] <= len(sample.boxes) <= OBJECTS[1]
    first = Image.open(load_data(folder, "train").samples[0].path)
    second = Image.open(load_data(folder, "val").samples[0].path)
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_tight_around_what_is_visible(seed: int) -> None:
    one = scene(seed)
    for row, box in enumerate(one.boxes):
        rows, columns = np.nonzero(one.owner == row + 1)
        visible = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box == pytest.approx(np.array(visible) / FINE)
        assert one.areas[row] == pytest.approx(len(rows) / FINE**2)


@pytest.mark.parametrize("seed", range(4))
def test_objects_stand_out_where_they_are_and_nowhere_else(seed: int) -> None:
    one = scene(seed)
    height, width = SIZE
    points = one.owner.reshape(height, FINE, width, FINE).transpose(0, 2, 1, 3)
    covered = (points > 0).mean(axis=(2, 3))
    change = np.abs(one.pixels.astype(int) - one.ground.astype(int)).max(axis=2)
    assert (change[covered == 0] == 0).all()
    assert np.median(change[covered == 1]) > 40


def test_most_objects_are_small_and_some_are_large() -> None:
    longest = np.concatenate(
        [(b[:, 2:] - b[:, :2]).max(axis=1) for b in (scene(i).boxes for i in range(12))]
    )
    short = min(SIZE)
    assert (longest < short / 8).mean() > 0.5
    assert longest.max() > short / 5
    assert longest.min() >= 3


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists, match="expected a new or empty folder"):
        write_scenes(tmp_path, train=1, val=1)
    assert files(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"train": 0}, "at least one scene"),
        ({"seed": -1}, "0 or more"),
        ({"size": (16, 320)}, "at least 32 pixels"),
        ({"objects": (9, 3)}, "in this order"),
        ({"objects": (1, 5000)}, "have room for"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    wrong: dict, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        write_scenes(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
