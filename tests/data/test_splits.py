"""Three layouts of a data folder, and what is said when a split is not there."""

from pathlib import Path

import pytest

from leandetr.data.splits import find_split, find_splits
from leandetr.errors import DataError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("images", ["images/val", "val", "images"])
def test_annotations_in_a_folder_of_their_own(tmp_path: Path, images: str) -> None:
    annotations = touch(tmp_path / "annotations" / "instances_val.json")
    (tmp_path / images).mkdir(parents=True)
    assert find_split(tmp_path, "val") == (annotations, tmp_path / images)


def test_the_split_of_its_own_goes_first(tmp_path: Path) -> None:
    touch(tmp_path / "annotations" / "instances_val.json")
    for images in ("images/val", "val"):
        (tmp_path / images).mkdir(parents=True)
    assert find_split(tmp_path, "val")[1] == tmp_path / "images" / "val"


def test_annotations_beside_the_images(tmp_path: Path) -> None:
    annotations = touch(tmp_path / "valid" / "_annotations.coco.json")
    assert find_split(tmp_path, "valid") == (annotations, tmp_path / "valid")


def test_splits_are_listed_and_a_near_name_is_offered(tmp_path: Path) -> None:
    touch(tmp_path / "annotations" / "instances_train.json")
    touch(tmp_path / "valid" / "_annotations.coco.json")
    assert find_splits(tmp_path) == ["train", "valid"]
    with pytest.raises(DataError) as caught:
        find_split(tmp_path, "val")
    for part in (
        f"{tmp_path}: no split 'val'; ",
        "did you mean valid?",
        "looked for annotations/instances_val.json and val/_annotations.coco.json",
        "splits found: train, valid",
    ):
        assert part in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; expected a data set with annotations/"):
        find_split(tmp_path / "gone", "train")
    with pytest.raises(DataError, match="splits found: none"):
        find_split(tmp_path, "train")
    touch(tmp_path / "annotations" / "instances_train.json")
    with pytest.raises(DataError, match="no image folder; make images/train, train, images"):
        find_split(tmp_path, "train")
