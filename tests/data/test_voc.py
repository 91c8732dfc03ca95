"""Pascal VOC files: layouts, and what is said about bad ones."""

from pathlib import Path

import pytest

from leandetr.data.dataset import Category, to_coco
from leandetr.data.findings import How
from leandetr.data.sources import find_splits, load_data, recognise
from leandetr.errors import DataError
from tiny_data import BOXES, NAMES, picture, text, voc_page, write_voc

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>"


def page(root: Path, content: str) -> Path:
    """The data set with other content in the file of `two`."""
    write_voc(root)
    (root / "Annotations" / "two.xml").write_text(content)
    return root


def test_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    write_voc(tmp_path, "train", {"two": BOXES["two"]})
    write_voc(tmp_path, "val", {"three": BOXES["three"]})
    expected = tuple(Category(i, name) for i, name in enumerate(sorted(NAMES), start=1))
    assert load_data(tmp_path, "train").categories == expected
    assert load_data(tmp_path, "val").categories == expected


def test_lists_of_single_classes_are_no_splits(tmp_path: Path) -> None:
    write_voc(tmp_path)
    text(tmp_path / "ImageSets" / "Main" / "cell_train.txt", "one  1\ntwo -1\nthree  0\n")
    assert find_splits(tmp_path) == ["train"]


def test_without_lists_all_files_are_train(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    data = load_data(tmp_path, "train")
    assert (len(data), data.boxes) == (4, 6)


@pytest.mark.parametrize("split", ["", "train"])
def test_files_may_lie_beside_the_pictures(tmp_path: Path, split: str) -> None:
    for seed, (name, rows) in enumerate(BOXES.items()):
        picture(tmp_path / split / f"{name}.png", seed)
        text(tmp_path / split / f"{name}.xml", voc_page(name, rows))
    data = load_data(tmp_path, "train")
    assert (find_splits(tmp_path), len(data), data.boxes) == (["train"], 4, 6)


def test_folders_may_have_plain_names(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages").rename(tmp_path / "images")
    (tmp_path / "Annotations").rename(tmp_path / "annotations")
    assert len(load_data(tmp_path, "train")) == 4


def test_the_picture_may_be_named_inside_only(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages" / "two.png").rename(tmp_path / "JPEGImages" / "other.png")
    content = (tmp_path / "Annotations" / "two.xml").read_text()
    (tmp_path / "Annotations" / "two.xml").write_text(content.replace("two.png", "other.png"))
    assert "other" in {sample.path.stem for sample in load_data(tmp_path, "train").samples}


def test_difficult_objects_count_as_crowds(tmp_path: Path) -> None:
    thing = f"<object><name>cell</name><difficult>1</difficult>{BOX}</object>"
    data = load_data(page(tmp_path, f"<annotation>{thing}</annotation>"), "train")
    sample = next(sample for sample in data.samples if sample.path.stem == "two")
    assert sample.crowd.tolist() == [True]
    assert sum(row["iscrowd"] for row in to_coco(data)["annotations"]) == 1


def test_a_size_that_differs_from_the_file(tmp_path: Path) -> None:
    write_voc(tmp_path)
    file = tmp_path / "Annotations" / "two.xml"
    file.write_text(file.read_text().replace("<width>40<", "<width>41<"))
    data = load_data(tmp_path, "train")
    assert data.warnings == (
        f"{tmp_path.name}/train: image sizes taken from the file, the annotations disagree: 1 "
        "(Annotations/two.xml)",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, expected <annotation>"),
        ("<annotation><object>", "broken XML at line 1 column"),
        ("<annotations/>", "expected <annotation>, got <annotations>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><annotation/>", "declares entities, which are refused"),
        (f"<annotation><object>{BOX}</object></annotation>", "object 1: expected a <name>"),
        (
            "<annotation><object><name>cell</name><robndbox/></object></annotation>",
            "object 1: expected a <bndbox>, got robndbox",
        ),
        (
            f"<annotation><object><name>a</name>{BOX.replace('5', 'wide')}</object></annotation>",
            "object 1: xmax: expected a number of pixels, got 'wide'",
        ),
        (
            f"<annotation><object><name>a</name>{BOX.replace('5', 'nan')}</object></annotation>",
            "object 1: xmax: expected a number of pixels, got 'nan'",
        ),
    ],
)
def test_a_bad_file_is_refused_by_name_and_collected_when_asked_for(
    tmp_path: Path, content: str, message: str
) -> None:
    page(tmp_path, content)
    with pytest.raises(DataError, match=rf"^Annotations/two\.xml: {message}"):
        load_data(tmp_path, "train")
    read = recognise(tmp_path).read("train", How(strict=False))
    assert read.data().boxes == 5
    assert [one.count for one in read.log.findings] == [1]


def test_a_name_in_a_list_without_a_file(tmp_path: Path) -> None:
    write_voc(tmp_path)
    text(tmp_path / "ImageSets" / "Main" / "train.txt", "one\ngone\n")
    with pytest.raises(DataError, match=r"^Annotations/gone\.xml: no such file, but its name is"):
        load_data(tmp_path, "train")


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages" / "two.png").unlink()
    with pytest.raises(DataError, match=r"^Annotations/two\.xml: two\.png: no such file"):
        load_data(tmp_path, "train")
    assert len(load_data(tmp_path, "train", skip_missing=True)) == 3


def test_an_empty_list(tmp_path: Path) -> None:
    write_voc(tmp_path)
    text(tmp_path / "ImageSets" / "Main" / "val.txt", "\n")
    with pytest.raises(DataError, match="has no annotations, expected at least one XML file"):
        load_data(tmp_path, "val")
