"""YOLO label files and YAML files: layouts, forms of lines, and what is said about bad ones."""

from pathlib import Path

import pytest

from leandetr.data.findings import How
from leandetr.data.sources import find_splits, load_data, recognise
from leandetr.errors import DataError
from tiny_data import BOXES, NAMES, picture, text, write_yolo, yolo_lines


def line(root: Path, words: str) -> Path:
    """The data set with one more line in the labels of `two`."""
    write_yolo(root)
    file = root / "labels" / "train" / "two.txt"
    file.write_text(file.read_text() + words + "\n")
    return root


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    "written",
    ["images/train", "../images/train", "./images/train", "/content/sets/mine/images/train"],
)
def test_paths_are_found_as_exports_write_them(tmp_path: Path, written: str) -> None:
    write_yolo(tmp_path)
    text(tmp_path / "data.yaml", f"train: {written}\nnc: 3\nnames: {list(NAMES)}\n")
    assert len(load_data(tmp_path, "train")) == 4
    assert len(load_data(tmp_path / "data.yaml", "train")) == 4


def test_the_layout_of_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "images" / "a.png")
        text(tmp_path / split / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    words = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cell]\n"
    text(tmp_path / "data.yaml", words)
    assert load_data(tmp_path, "val").boxes == 1
    with pytest.raises(DataError, match=r"test: no such folder or list '\.\./test/images'"):
        load_data(tmp_path, "test")


def test_a_yaml_file_elsewhere_says_where(tmp_path: Path) -> None:
    write_yolo(tmp_path / "sets" / "mine")
    about = tmp_path / "configs" / "mine.yaml"
    text(about, "path: ../sets/mine\ntrain: images/train\nnames: {0: a, 1: b, 2: c}\n")
    assert load_data(about, "train").names == ("a", "b", "c")


def test_lists_of_files_and_of_folders(tmp_path: Path) -> None:
    write_yolo(tmp_path, "a")
    write_yolo(tmp_path, "b")
    text(tmp_path / "list.txt", "./images/a/one.png\nimages/a/two.png\n\n")
    words = f"train: [images/a, images/b]\nval: list.txt\nnames: {list(NAMES)}\n"
    text(tmp_path / "data.yaml", words)
    assert len(load_data(tmp_path, "train")) == 8
    assert [sample.path.stem for sample in load_data(tmp_path, "val").samples] == ["one", "two"]


def test_names_may_be_a_map_with_gaps(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    text(tmp_path / "data.yaml", "train: images/train\nnames: {0: a, 1: b, 2: c, 7: d}\n")
    data = load_data(tmp_path, "train")
    assert (data.category_ids, data.names) == ((0, 1, 2, 7), ("a", "b", "c", "d"))


@pytest.mark.parametrize("listed", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_names_may_be_a_list_of_lines(tmp_path: Path, listed: str) -> None:
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    text(tmp_path / listed, "\n".join(NAMES) + "\n")
    data = load_data(tmp_path, "train")
    assert (data.names, len(data), data.boxes) == (NAMES, 4, 6)


def test_labels_may_lie_beside_the_pictures(tmp_path: Path) -> None:
    for seed, (name, rows) in enumerate(BOXES.items()):
        picture(tmp_path / f"{name}.png", seed)
        text(tmp_path / f"{name}.txt", yolo_lines(rows))
    text(tmp_path / "classes.txt", "\n".join(NAMES))
    data = load_data(tmp_path, "train")
    assert (find_splits(tmp_path), len(data), data.boxes) == (["train"], 4, 6)


def test_a_picture_without_a_label_file_is_background(tmp_path: Path) -> None:
    data = load_data(write_yolo(tmp_path), "train")
    assert not (tmp_path / "labels" / "train" / "empty.txt").exists()
    assert [len(s.boxes) for s in data.samples if s.path.stem == "empty"] == [0]


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("words", "box"),
    [
        ("0 0.5 0.5 0.25 0.5", [15, 8, 25, 24]),
        ("0.0  0.5\t0.5 0.25 0.5", [15, 8, 25, 24]),
        ("1 0.25 0.25 0.75 0.25 0.5 0.75", [10, 8, 30, 24]),  # a triangle
        ("2 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5", [10, 8, 30, 24]),  # a turned box
    ],
)
def test_boxes_and_the_extent_of_polygons(tmp_path: Path, words: str, box: list) -> None:
    data = load_data(line(tmp_path, words), "train")
    sample = next(sample for sample in data.samples if sample.path.stem == "two")
    assert sample.boxes[-1].tolist() == box
    assert int(sample.labels[-1]) == int(float(words.split()[0]))


def test_key_points_after_a_box_are_left_out(tmp_path: Path) -> None:
    line(tmp_path, "0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.9 0.9 1")
    about = tmp_path / "data.yaml"
    about.write_text(about.read_text() + "kpt_shape: [2, 3]\n")
    sample = next(s for s in load_data(tmp_path, "train").samples if s.path.stem == "two")
    assert sample.boxes[-1].tolist() == [15, 8, 25, 24]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("0 0.5 0.5 0.2", "expected class x y width height, .* got 4 numbers '0 0.5 0.5 0.2'"),
        ("0 0.5 0.5 0.2 0.1 0.9", "expected class .* got 6 numbers"),
        ("cell 0.5 0.5 0.2 0.1", "expected numbers, got 'cell 0.5 0.5 0.2 0.1'"),
        ("0 nan 0.5 0.2 0.1", "expected finite numbers, got '0 nan 0.5 0.2 0.1'"),
        ("3 0.5 0.5 0.2 0.1", "expected a class of 0 cell, 1 dust é, 2 a/b c, got 3"),
        ("1.5 0.5 0.5 0.2 0.1", "expected a class of .* got 1.5"),
        ("0 20 16 10 8", "expected fractions of the image, 0 to 1, got '0 20 16 10 8'; .*pixels"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(tmp_path: Path, words: str, message: str) -> None:
    line(tmp_path, words)
    with pytest.raises(DataError, match=rf"^labels/train/two\.txt line 2: {message}"):
        load_data(tmp_path, "train")


def test_when_asked_for_bad_lines_are_collected(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    file = tmp_path / "labels" / "train" / "two.txt"
    file.write_text("3 0.5 0.5 0.2 0.1\nx\n0 20 16 10 8\n0 0.5 0.5 0 0.1\n4 .5 .5 .1 .1\n")
    read = recognise(tmp_path).read("train", How(strict=False))
    assert read.data().boxes == 5
    counted = {one.kind: (one.level, one.count) for one in read.log.findings}
    assert counted == {
        "class-unknown": ("error", 2),
        "line": ("error", 1),
        "box-pixels": ("error", 1),
        "box-empty": ("warning", 1),
    }
    places = {one.kind: one.places for one in read.log.findings}
    assert places["box-empty"] == ("labels/train/two.txt line 4",)


def test_a_missing_picture_of_a_list(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    text(tmp_path / "list.txt", "images/train/one.png\nimages/train/gone.png\n")
    text(tmp_path / "data.yaml", f"train: list.txt\nnames: {list(NAMES)}\n")
    with pytest.raises(DataError, match=r"^images/train/gone\.png: gone\.png: no such file"):
        load_data(tmp_path, "train")
    data = load_data(tmp_path, "train", skip_missing=True)
    assert len(data) == 1
    assert data.warnings[0].endswith(
        "images skipped, missing or unreadable: 1 (images/train/gone.png)"
    )


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "two.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"two\.txt: cannot be read as text"):
        load_data(tmp_path, "train")


def test_no_label_file_at_all(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "a.png")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cell]\n")
    with pytest.raises(DataError, match=r"none of 1 images has a label file; expected labels/"):
        load_data(tmp_path, "train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train: [images\nnames: [a]", "broken YAML at line 2"),
        ("train: images/train\nnames: []", "expected a list of class names, .*got \\[\\]"),
        ("train: images/train\nnames: [yes, no]", "got True for 0: put it in quotes"),
        ("train: images/train\nnames: [a, a]", "got 'a' twice"),
        ("train: images/train\nnames: {x: a}", "got the id 'x': ids are 0, 1, 2"),
        ("train: images/train\nnc: 2\nnames: [a]", "got 1 names but nc: 2; make them agree"),
        ("train: images/train\nnc: 2", "names: expected a list of class names.*got nothing"),
        ("train: 3\nnames: [a]", "train: expected a path or a list of paths, got 3"),
        ("names: [a]", "expected names and at least one of train, val"),
    ],
)
def test_a_bad_yaml_file_is_refused(tmp_path: Path, words: str, message: str) -> None:
    about = text(tmp_path / "data.yaml", words)
    with pytest.raises(DataError, match=rf"data\.yaml: .*{message}"):
        load_data(about, "train")
