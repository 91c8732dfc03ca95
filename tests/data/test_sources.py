"""Data sets recognised by looking: the same samples whatever the format, and several as one."""

import json
from pathlib import Path

import pytest
import torch

from leandetr.data.dataset import Category, DetectionData
from leandetr.data.sources import find_splits, has_split, load_data, recognise
from leandetr.errors import DataError
from tiny_data import (
    BOXES,
    NAMES,
    WRITERS,
    coco_value,
    picture,
    text,
    write_coco,
    write_roboflow,
    write_voc,
    write_yolo,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats"


def boxes_of(data: DetectionData) -> dict[str, list[tuple]]:
    """Names and rounded boxes by image, in any order of classes."""
    return {
        sample.path.stem: sorted(
            (data.names[label], *(round(value, 2) for value in box))
            for label, box in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True)
        )
        for sample in data.samples
    }


EXPECTED = {
    name: sorted((NAMES[label], x, y, x + w, y + h) for label, (x, y, w, h) in rows)
    for name, rows in BOXES.items()
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_boxes(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / "set")
    data = load_data(tmp_path / "set", "train")
    assert boxes_of(data) == EXPECTED
    assert set(data.names) == set(NAMES)
    assert data.warnings == ()
    assert data.name == "set/train"


@pytest.mark.parametrize("form", WRITERS)
def test_a_folder_of_real_pictures_is_the_same_in_every_format(form: str) -> None:
    if not SHARED.is_dir():
        pytest.skip("the set of real pictures in every format is not beside the repository")
    assert boxes_of(load_data(SHARED / form, "train")) == boxes_of(
        load_data(SHARED / "coco", "train")
    )


@pytest.mark.parametrize("form", WRITERS)
def test_val_finds_valid(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path, "train")
    WRITERS[form](tmp_path, "valid")
    assert find_splits(tmp_path) == ["train", "valid"]
    assert load_data(tmp_path, "val").name == f"{tmp_path.name}/valid"
    assert not has_split(tmp_path, "test")


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("images", ["images/val", "val", "images", "."])
def test_coco_images_may_lie_in_several_places(tmp_path: Path, images: str) -> None:
    text(tmp_path / "annotations" / "instances_val.json", json.dumps(coco_value()))
    for name in BOXES:
        picture(tmp_path / images / f"{name}.png")
    (tmp_path / "images").mkdir(exist_ok=True)
    assert load_data(tmp_path, "val").samples[0].path.parent == tmp_path / images


def test_coco_files_may_name_their_folder(tmp_path: Path) -> None:
    value = coco_value()
    for image in value["images"]:
        picture(tmp_path / "images" / "val" / image["file_name"])
        image["file_name"] = f"images/val/{image['file_name']}"
    text(tmp_path / "annotations" / "instances_val.json", json.dumps(value))
    assert len(load_data(tmp_path, "val")) == len(BOXES)


def test_coco_without_an_image_folder(tmp_path: Path) -> None:
    text(tmp_path / "annotations" / "instances_train.json", json.dumps(coco_value()))
    with pytest.raises(DataError, match="no image folder; make images/train, train, images"):
        load_data(tmp_path, "train")


def test_coco_files_of_other_tasks_are_left_alone(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017")
    text(tmp_path / "annotations" / "captions_train2017.json", "{}")
    assert find_splits(tmp_path) == ["train2017"]
    assert len(load_data(tmp_path, "train")) == 4


@pytest.mark.parametrize("name", ["train.json", "annotations/train.json", "annotations.json"])
def test_coco_files_under_plainer_names(tmp_path: Path, name: str) -> None:
    text(tmp_path / name, json.dumps(coco_value()))
    for one in BOXES:
        picture(tmp_path / "images" / f"{one}.png")
    assert len(load_data(tmp_path, "train")) == 4


def test_a_coco_file_is_a_data_set(tmp_path: Path) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_train.json"
    assert boxes_of(load_data(file, "train")) == EXPECTED


def test_the_heading_of_roboflow_is_no_class(tmp_path: Path) -> None:
    data = load_data(write_roboflow(tmp_path), "train")
    assert data.categories == tuple(Category(i, n) for i, n in enumerate(NAMES, start=1))
    file = tmp_path / "train" / "_annotations.coco.json"
    value = json.loads(file.read_text())
    value["annotations"][0]["category_id"] = 0  # with a box it is one
    file.write_text(json.dumps(value))
    assert load_data(tmp_path, "train").names == ("things", *NAMES)


# ---------------------------------------------------------------- what is not there


def test_what_was_looked_for_and_found_is_said(tmp_path: Path) -> None:
    text(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError) as caught:
        recognise(tmp_path)
    for part in (
        f"{tmp_path}: no data set recognised",
        "annotations/instances_<split>.json",
        "data.yaml",
        "Annotations/*.xml",
        "it holds notes.txt",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="this is a file; give"):
        recognise(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no such folder; expected a data set in COCO, YOLO or"):
        recognise(tmp_path / "gone")
    with pytest.raises(DataError, match="expected at least one data set, got none"):
        load_data([], "train")


def test_a_data_set_further_down_is_offered(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit" / "VOC2007")
    with pytest.raises(DataError, match=r"did you mean .*VOCdevkit/VOC2007\?"):
        recognise(tmp_path)


@pytest.mark.parametrize("form", WRITERS)
def test_a_split_that_is_not_there(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path)
    with pytest.raises(DataError, match=r"no split 'tets'; .*splits found: train"):
        load_data(tmp_path, "tets")


# ---------------------------------------------------------------- several as one


def test_several_are_united_by_name(tmp_path: Path) -> None:
    one = write_coco(tmp_path / "a")
    other = write_yolo(tmp_path / "b")
    value = (other / "data.yaml").read_text().replace("cell", "star")
    (other / "data.yaml").write_text(value)
    data = load_data([one, other], "train")
    assert data.name == "a/train + b/train"
    assert data.categories == (Category(0, "star"), *load_data(one, "train").categories)
    assert [sample.image_id for sample in data.samples] == list(range(1, 9))
    both = boxes_of(data)
    assert both["two"] == [("star", 5, 5, 8, 9)]  # of b: names of pictures may occur twice
    assert {data.names[int(label)] for s in data.samples[:4] for label in s.labels} == set(NAMES)


def test_an_id_that_is_taken_becomes_another(tmp_path: Path) -> None:
    one, other = write_coco(tmp_path / "a"), write_coco(tmp_path / "b")
    file = other / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"cell"', '"Cell"'))
    data = load_data([one, other], "train")
    assert data.categories == (*load_data(one, "train").categories, Category(4, "Cell"))
    assert data.samples[4].labels[0] == 3
    assert data.warnings == (
        "classes 'cell' and 'Cell' stay apart: their names differ; if they are the same, "
        "rename one",
    )


def test_one_of_several_may_lack_a_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = write_coco(tmp_path / "a"), write_voc(tmp_path / "b")
    write_coco(one, "val")
    assert has_split([one, other], "val")
    assert load_data([one, other], "val").name == "a/val"
    assert f"{other} has no split 'val' and is left out there" in caplog.text


def test_one_of_several_is_as_if_alone(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    alone, listed = load_data(root, "train"), load_data([root], "train")
    assert alone.categories == listed.categories
    assert torch.equal(alone.samples[0].boxes, listed.samples[0].boxes)
