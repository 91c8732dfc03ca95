"""The doctor: every illness is found, named and given advice; the healthy are left in peace."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from leandetr.data import suspicion
from leandetr.data.advice import ADVICE
from leandetr.data.census import Part, count
from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.data.doctor import Report, check
from leandetr.data.report import show
from leandetr.errors import DataError
from leandetr.images import Preprocess
from tiny_data import (
    BOXES,
    NAMES,
    WRITERS,
    Rows,
    coco_value,
    picture,
    text,
    voc_page,
    write_coco,
    write_voc,
    write_yolo,
)

BROKEN = Path(__file__).resolve().parents[1] / "fixtures" / "broken"
ERRORS = {
    "duplicate_annotation_id": "annotation-twice",
    "duplicate_category_name": "category-name-twice",
    "duplicate_image_id": "image-twice",
    "empty_file": "split-unreadable",
    "missing_area_and_iscrowd": "split-unreadable",  # a list
    "missing_image": "image-missing",
    "nan_box": "annotation-entry",
    "no_boxes_at_all": "boxes-none",
    "no_categories_key": "split-unreadable",
    "no_images": "split-unreadable",
    "not_an_object": "split-unreadable",
    "path_escapes": "image-entry",
    "string_box": "annotation-entry",
    "three_number_box": "annotation-entry",
    "truncated": "split-unreadable",
    "unknown_category": "annotation-entry",
    "unknown_image": "annotation-entry",
}
WARNINGS = {
    "box_fully_outside": "box-outside",
    "box_partly_outside": "box-clipped",
    "negative_width": "box-negative",
    "size_disagrees_with_file": "size-differs",
    "zero_area": "box-empty",
}


def kinds(report: Report, *levels: str) -> set[str]:
    return {one.kind for one in report.findings if one.level in (levels or ("error", "warning"))}


def healthy(root: Path) -> Path:
    """Two splits with a dozen boxes of every class, nothing in common."""
    for split, start in (("train", 0), ("val", 100)):
        boxes: dict[str, Rows] = {
            f"{split}{i}": [(label, (3.0 + label * 11, 4.0 + i, 8, 9)) for label in range(3)]
            for i in range(12)
        }
        write_coco(root, split, boxes)
        for i, name in enumerate(boxes):
            picture(root / "images" / split / f"{name}.png", start + i)
    return root


def test_the_healthy_are_left_in_peace(tmp_path: Path) -> None:
    report = check(healthy(tmp_path))
    assert report.findings == ()
    assert report.ok(strict=True)
    assert [part.split for part in report.parts] == ["train", "val"]
    assert report.classes() == {split: dict.fromkeys(NAMES, 12) for split in ("train", "val")}


@pytest.mark.parametrize("name", sorted(path.stem for path in BROKEN.glob("*.json")))
def test_every_broken_file_gets_its_verdict(name: str) -> None:
    report = check(BROKEN / f"{name}.json")
    found = kinds(report) - {"val-none", "class-rare", "class-unused"}
    if name == "duplicate_image_id":  # boxes of the id that became another's
        found.remove("annotation-entry")
    expected = ERRORS.get(name) or WARNINGS.get(name)
    assert found == ({expected} if expected else set())
    assert report.ok() is (name not in ERRORS)
    assert all(one.advice == ADVICE[one.kind] for one in report.findings)


def test_all_kinds_are_counted_at_once_and_one_bad_split_does_not_stop_the_rest(
    tmp_path: Path,
) -> None:
    root = healthy(tmp_path)
    file = root / "annotations" / "instances_train.json"
    value = json.loads(file.read_text())
    rows = value["annotations"]
    rows[0]["bbox"] = [0, 0, math.nan, 1]
    rows[1]["category_id"] = 9
    rows[2]["bbox"] = [0, 0, 0, 5]
    rows[3]["bbox"] = rows[3]["bbox"][:3]
    value["images"][11]["file_name"] = "gone.png"
    file.write_text(json.dumps(value))
    text(root / "annotations" / "instances_test.json", "[")
    report = check(root)
    counted = {one.kind: one.count for one in report.findings}
    assert {kind: counted[kind] for kind in ("annotation-entry", "box-empty", "image-missing")} == {
        "annotation-entry": 3,
        "box-empty": 1,
        "image-missing": 1,
    }
    assert counted["split-unreadable"] == 1
    assert report.numbers[0].boxes == 36 - 3 - 1 - 3
    assert report.numbers[1].boxes == 36


# ---------------------------------------------------------------- splits


def test_images_in_two_splits_are_an_error(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    file = root / "images" / "val" / "val0.png"
    file.write_bytes((root / "images" / "train" / "train3.png").read_bytes())
    report = check(root, pixels=False)
    (leak,) = [one for one in report.findings if one.kind == "leak"]
    assert (leak.level, leak.places) == ("error", ("train/train3.png = val/val0.png",))
    assert check(root, pixels=True).errors == 1  # not a near copy, too


def test_one_folder_as_two_splits_is_an_error(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    about = tmp_path / "data.yaml"
    about.write_text(about.read_text() + "val: images/train\n")
    report = check(tmp_path)
    assert [one.count for one in report.findings if one.kind == "leak"] == [4]


def test_near_copies_and_copies_within_a_split_are_warnings(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    folder = root / "images"
    with Image.open(folder / "train" / "train3.png") as image:
        image.point(lambda value: min(255, value + 20)).save(folder / "val" / "val5.png")
    (folder / "train" / "train8.png").write_bytes((folder / "train" / "train9.png").read_bytes())
    report = check(root)
    assert kinds(report) == {"leak-near", "image-copies"}
    assert kinds(check(root, pixels=False)) == {"image-copies"}


def test_augmented_copies_in_two_splits_are_an_error(tmp_path: Path) -> None:
    for split, name in (("train", "a_png.rf.1"), ("valid", "a_png.rf.2")):
        WRITERS["roboflow"](tmp_path, split, {name: BOXES["one"]})
        picture(tmp_path / split / f"{name}.png", len(split))
    report = check(tmp_path)
    assert [one.places for one in report.findings if one.kind == "leak-origin"] == [
        ("a_png in train, val",)
    ]


def test_missing_splits_are_told(tmp_path: Path) -> None:
    assert "val-none" in kinds(check(write_coco(tmp_path / "a")))
    assert "train-none" in kinds(check(write_coco(tmp_path / "b", "val")))


def test_trainval_is_no_leak(tmp_path: Path) -> None:
    for split, names in (
        ("train", ["one"]),
        ("val", ["two"]),
        ("trainval", ["one", "two"]),
    ):
        write_voc(tmp_path, split, {name: BOXES[name] for name in names})
    picture(tmp_path / "JPEGImages" / "two.png", 7)
    report = check(tmp_path)
    assert "leak" not in kinds(report)
    assert [part.split for part in report.parts] == ["train", "val"]


def test_damaged_pictures_are_found_by_their_pixels(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    file = root / "images" / "train" / "train0.png"
    file.write_bytes(file.read_bytes()[:-200])
    assert kinds(check(root)) == {"image-broken"}
    report = check(root, pixels=False)
    assert report.ok(strict=True)
    assert not report.pixels


def test_unlisted_images_are_a_note(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    picture(root / "images" / "train" / "more.png", 77)
    assert kinds(check(root), "note") == {"image-unlisted"}


# ---------------------------------------------------------------- units and ids


def test_fractions_in_a_coco_file(tmp_path: Path) -> None:
    value = coco_value()
    for row in value["annotations"]:
        row["bbox"] = [number / 40 for number in row["bbox"]]
    text(tmp_path / "train.json", json.dumps(value))
    for name in BOXES:
        picture(tmp_path / "images" / f"{name}.png")
    assert "box-fractions" in kinds(check(tmp_path), "error")


def test_corners_in_a_coco_file(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    file = root / "annotations" / "instances_train.json"
    value = json.loads(file.read_text())
    for row in value["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    file.write_text(json.dumps(value))
    assert "box-corners" in kinds(check(root), "error")


def test_pixels_in_a_yolo_file(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    text(tmp_path / "labels" / "train" / "two.txt", "0 20 16 10 8\n1 8 9 10 8\n")
    (found,) = [one for one in check(tmp_path).findings if one.kind == "box-pixels"]
    assert (found.level, found.count) == ("error", 2)
    assert found.advice.startswith("divide x and width by")


def test_ids_counted_from_one_in_yolo_files(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    for file in (tmp_path / "labels" / "train").iterdir():
        rows = [line.split(" ", 1) for line in file.read_text().splitlines()]
        file.write_text("".join(f"{int(kind) + 1} {rest}\n" for kind, rest in rows))
    (found,) = [one for one in check(tmp_path).findings if one.kind == "class-unknown"]
    assert found.advice == (
        "the first class is never used: ids seem to be counted from 1; take one away from every id"
    )


def test_ids_counted_from_zero_in_a_coco_file(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    file = root / "annotations" / "instances_train.json"
    value = json.loads(file.read_text())
    for row in value["annotations"]:
        row["category_id"] -= 1
    file.write_text(json.dumps(value))
    (found,) = [one for one in check(root).findings if one.kind == "annotation-entry"]
    assert "ids seem to be counted from 0; add one to every id" in found.advice


# ---------------------------------------------------------------- classes and boxes


def classes_of(**counts: dict[str, int]) -> set[str]:
    return {one.kind for one in suspicion.classes(counts)}


def test_classes_by_their_boxes() -> None:
    good = {"cat": 50, "dog": 40}
    assert classes_of(train=good, val=good) == set()
    assert classes_of(train=good | {"cow": 0}, val=good | {"cow": 0}) == {"class-unused"}
    assert classes_of(train=good | {"cow": 0}, val=good | {"cow": 2}) == {"class-untrained"}
    assert classes_of(train=good, val=good | {"cow": 0}) == {"class-unknown-here", "class-unused"}
    assert classes_of(train=good | {"cow": 9}) == {"class-rare"}
    assert classes_of(train={"cat": 5000, "dog": 40}) == {"class-uneven"}
    assert classes_of(train={"cat": 50, "Cat": 40}) == {"class-alike"}
    assert classes_of(train={"cat ": 50, "d\nog": 40}) == {"class-odd"}
    assert classes_of(train={"0": 50, "1": 40}) == {"class-number"}
    assert classes_of(train={"細胞": 50, "a/b c": 40, "naïve": 12}) == set()


def part(boxes: list[list[float]], size: tuple[int, int] = (100, 200)) -> Part:
    """A split of one image."""
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    areas = (rows[:, 2:] - rows[:, :2]).prod(dim=1)
    sample = Sample(Path("a.png"), 1, size, rows, zeros, zeros.bool(), areas)
    return Part("x", "COCO", "train", DetectionData("x/train", (Category(1, "c"),), (sample,)))


def boxes_of(*boxes: list[float]) -> set[str]:
    return {one.kind for one in suspicion.boxes(part(list(boxes)))}


def test_boxes_that_look_wrong() -> None:
    assert boxes_of([1, 2, 30, 40], [1, 2, 30, 41]) == set()
    assert boxes_of([1, 2, 30, 40], [1, 2, 30.01, 40]) == {"box-twice"}
    assert boxes_of([1, 2, 2, 40]) == {"box-tiny"}
    assert boxes_of([0, 0, 199, 100]) == {"box-whole"}


def test_ten_thousand_boxes_against_the_queries() -> None:
    one = part([[i % 100, i // 100, i % 100 + 5, i // 100 + 5] for i in range(10_000)])
    (found,) = suspicion.crowded(one, queries=300)
    assert found.places == ("a.png holds 10000",)
    assert list(suspicion.crowded(part([[0, 0, 5, 5]] * 70), queries=100)) == []
    assert len(list(suspicion.crowded(part([[0, 0, 5, 5]] * 71), queries=100))) == 1


def test_boxes_that_are_lost_at_the_size_the_model_sees() -> None:
    one = part([[0, 0, 20, 20]], size=(1000, 2000))
    assert [found.kind for found in suspicion.lost(one, Preprocess(100, 200))] == ["box-lost"]
    assert list(suspicion.lost(one, Preprocess(400, 800))) == []


def test_images_too_large_and_listed_twice() -> None:
    one = part([[0, 0, 20, 20]], size=(20_000, 20_000))
    double = DetectionData(one.data.name, one.data.categories, one.data.samples * 2)
    found = suspicion.images(Part("x", "COCO", "train", double), count(double))
    assert [one.kind for one in found] == ["image-large", "image-listed-twice"]


def test_sizes_are_counted_as_coco_does() -> None:
    numbers = count(part([[0, 0, 31, 32], [0, 0, 32, 32], [0, 0, 96, 95], [0, 0, 96, 96]]).data)
    assert (numbers.small, numbers.medium, numbers.large) == (1, 2, 1)
    assert (numbers.most, numbers.median, numbers.smallest) == (4, 4.0, (100, 200))


# ---------------------------------------------------------------- the report


def test_the_report_is_json_and_words(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    (root / "Annotations" / "two.xml").write_text("<annotation><object>")
    report = check([root, write_coco(tmp_path / "other")], queries=2)
    value = json.loads(json.dumps(report.to_dict()))
    assert (value["ok"], value["errors"]) == (False, report.errors)
    assert {split["format"] for split in value["splits"]} == {"COCO", "Pascal VOC"}
    console = Console(width=110, record=True, file=io.StringIO())
    show(report, console)
    words = console.export_text()
    for expected in (
        "set/train (Pascal VOC)",
        "dust é",
        "Annotations/two.xml: broken XML at line 1",
        "images with too many objects for 2 queries",
        "→ give the model more queries",
        "Correct the errors before training.",
    ):
        assert expected in words


def test_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set recognised"):
        check(tmp_path)


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    page = voc_page("one", [(0, (1, 1, 9, 9))], ["[bold]cell[/bold]"])
    picture(tmp_path / "one.png")
    text(tmp_path / "one.xml", page)
    console = Console(width=110, record=True, file=io.StringIO())
    show(check(tmp_path), console)
    assert "[bold]cell[/bold]" in console.export_text()
