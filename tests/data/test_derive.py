"""Data sets made of data sets: round trips, new splits, small parts; nothing is ever changed."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from leandetr.data.dataset import Category, DetectionData
from leandetr.data.derive import convert, sample, split
from leandetr.data.sources import find_splits, load_data
from leandetr.data.write import unique_names
from leandetr.errors import DataError, OutputExists
from tiny_data import BOXES, NAMES, WRITERS, Rows, picture, text, write_coco, write_voc, write_yolo

WITHIN = {"coco": 0.0006, "voc": 0.0006, "yolo": 0.00001}
"""Pixels: half of the last decimal that is written, and a little for single precision."""


def by_name(data: DetectionData) -> dict[str, list[tuple[str, torch.Tensor]]]:
    return {
        one.path.stem: [
            (data.names[label], box)
            for label, box in zip(one.labels.tolist(), one.boxes, strict=True)
        ]
        for one in data.samples
    }


def odd_boxes() -> dict[str, Rows]:
    """Boxes whose corners have no short decimals."""
    return {
        f"p{i}": [(i % 3, (1 + i / 7, 2 + i / 13, 9 + i / 17, 8 + i / 3)) for _ in range(2)]
        for i in range(5)
    } | {"empty": []}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("to", WITHIN)
def test_round_trips_keep_every_box(tmp_path: Path, form: str, to: str) -> None:
    root = WRITERS[form](tmp_path / "set", "train", odd_boxes())
    before = load_data(root, "train")
    written = convert(root, tmp_path / "new", to=to)
    assert (written.splits, written.findings, written.skipped) == ({"train": (6, 10)}, (), 0)
    convert(tmp_path / "new", tmp_path / "back", to="coco")
    for place, pixels in (("new", WITHIN[to]), ("back", WITHIN[to] + WITHIN["coco"])):
        after = load_data(tmp_path / place, "train")
        assert set(after.names) == set(before.names)
        for name, rows in by_name(before).items():
            others = by_name(after)[name]
            assert [word for word, _ in others] == [word for word, _ in rows]
            for (_, box), (_, other) in zip(rows, others, strict=True):
                assert float((box - other).abs().max()) <= pixels


def test_splits_get_their_usual_names_and_files_stay_as_they_are(tmp_path: Path) -> None:
    for name, number in (("train", 0), ("valid", 5)):
        WRITERS["roboflow"](tmp_path / "set", name, {f"{name}{number}": BOXES["one"]})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    convert(tmp_path / "set", tmp_path / "new", to="yolo")
    assert find_splits(tmp_path / "new") == ["train", "val"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before
    copied = tmp_path / "new" / "images" / "val" / "valid5.png"
    assert copied.read_bytes() == (tmp_path / "set" / "valid" / "valid5.png").read_bytes()


def test_images_may_be_linked(tmp_path: Path) -> None:
    convert(write_coco(tmp_path / "set"), tmp_path / "new", to="voc", link=True)
    file = tmp_path / "new" / "JPEGImages" / "one.png"
    assert file.is_symlink()
    assert file.resolve() == (tmp_path / "set" / "images" / "train" / "one.png").resolve()


def test_ids_of_coco_stay(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    file.write_text(
        file.read_text()
        .replace('"id": 2, "name"', '"id": 17, "name"')
        .replace('"category_id": 2', '"category_id": 17')
    )
    convert(root, tmp_path / "new", to="coco")
    assert load_data(tmp_path / "new", "train").category_ids == (1, 3, 17)


def test_crowds_and_areas(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    value = json.loads(file.read_text())
    value["annotations"][0] |= {"iscrowd": 1, "area": 55.5}
    file.write_text(json.dumps(value))
    for to, crowds in (("coco", [True, False, False]), ("voc", [True, False, False])):
        convert(root, tmp_path / to, to=to)
        one = load_data(tmp_path / to, "train").samples
        first = next(sample for sample in one if sample.path.stem == "one")
        assert first.crowd.tolist() == crowds
    assert float(load_data(tmp_path / "coco", "train").samples[0].areas[0]) == 55.5
    written = convert(root, tmp_path / "yolo", to="yolo")
    assert [(one.kind, one.count) for one in written.findings] == [("crowd-lost", 1)]
    assert load_data(tmp_path / "yolo", "train").boxes == 5


def test_a_class_without_boxes_is_lost_in_voc_only(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", "train", {"two": BOXES["two"]})
    (lost,) = convert(root, tmp_path / "voc", to="voc").findings
    assert (lost.kind, lost.places) == ("class-lost", NAMES[1:])
    convert(root, tmp_path / "yolo", to="yolo")
    assert load_data(tmp_path / "yolo", "train").names == NAMES


def test_what_cannot_be_read_is_counted_and_the_rest_is_written(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    text(root / "labels" / "train" / "two.txt", "9 .5 .5 .1 .1\nx\n0 .5 .5 .1 .1\n")
    (root / "images" / "train" / "three.png").write_text("no picture")
    written = convert(root, tmp_path / "new", to="coco")
    assert written.splits == {"train": (3, 4)}
    assert written.skipped == 3
    assert {one.kind for one in written.findings} == {"class-unknown", "line", "image-missing"}


def test_a_split_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    text(root / "annotations" / "instances_val.json", "[")
    written = convert(root, tmp_path / "new", to="yolo")
    assert list(written.splits) == ["train"]
    assert written.skipped == 1
    text(root / "annotations" / "instances_train.json", "[")
    with pytest.raises(DataError, match=r"instances_train\.json: broken JSON"):
        convert(root, tmp_path / "other", to="yolo")


def test_nothing_is_overwritten_and_nothing_half_done_is_left(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", "fold3")
    text(tmp_path / "mine" / "notes.txt", "keep")
    with pytest.raises(OutputExists, match="expected a new or empty folder"):
        convert(root, tmp_path / "mine", to="coco")
    with pytest.raises(DataError, match="expected the splits train, val and test, got fold3"):
        convert(root, tmp_path / "new", to="yolo")
    with pytest.raises(DataError, match="expected --to coco, yolo, voc, got 'csv'"):
        convert(root, tmp_path / "new", to="csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "set"]
    (tmp_path / "empty").mkdir()
    convert(root, tmp_path / "empty", to="coco")
    assert find_splits(tmp_path / "empty") == ["fold3"]


def test_the_folder_one_is_in_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_coco(tmp_path / "set")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(root, ".", to="voc")
    assert Path("Annotations").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "set"]


def test_a_place_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    text(tmp_path / "file", "keep")
    with pytest.raises(DataError, match=r"expected a place for a new folder.*choose another"):
        convert(root, tmp_path / "file" / "new", to="voc")


def test_names_that_xml_would_not_give_back_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"cell"', '"ce\\nll"'))
    with pytest.raises(DataError, match=r"got 'ce\\nll'; rename it to write Pascal VOC"):
        convert(root, tmp_path / "new", to="voc")


def test_pictures_of_one_name_get_another(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for seed, place in enumerate(("a/x.png", "b/x.png", "b/X.PNG", "x-2.png")):
        picture(root / "images" / "train" / place, seed)
        text((root / "labels" / "train" / place).with_suffix(".txt"), "0 .5 .5 .5 .5\n")
    text(root / "data.yaml", "train: images/train\nnames: [cell]\n")
    data = load_data(root, "train")
    assert len(set(map(str.casefold, unique_names(data.samples)))) == 4
    convert(root, tmp_path / "new", to="voc")
    assert load_data(tmp_path / "new", "train").boxes == 4


def test_several_data_sets_become_one(tmp_path: Path) -> None:
    one, other = write_coco(tmp_path / "a"), write_voc(tmp_path / "b", "val")
    written = convert([one, other], tmp_path / "new", to="yolo")
    assert written.splits == {"train": (4, 6), "val": (4, 6)}
    train, val = (load_data(tmp_path / "new", name) for name in ("train", "val"))
    assert train.categories == val.categories
    assert {name: len(rows) for name, rows in by_name(train).items()} == {
        name: len(rows) for name, rows in by_name(val).items()
    }
    assert train.categories[0] == Category(0, "cell")


# ---------------------------------------------------------------- split and sample


def many(root: Path, count: int = 40) -> Path:
    """Every tenth picture has the rare class."""
    boxes: dict[str, Rows] = {
        f"p{i:02d}": [(0, (1, 1, 9, 9))] + ([(1, (12, 1, 9, 9))] if i % 10 == 0 else [])
        for i in range(count)
    }
    return write_coco(root, "train", boxes)


def test_a_split_is_seeded_whole_and_even(tmp_path: Path) -> None:
    root = many(tmp_path / "set")
    written = split(root, tmp_path / "new", val=0.25, test=0.25, seed=3)
    assert {name: images for name, (images, _) in written.splits.items()} == {
        "train": 20,
        "val": 10,
        "test": 10,
    }
    names, rare = {}, {}
    for name in written.splits:
        data = load_data(tmp_path / "new", name)
        names[name] = [one.path.name for one in data.samples]
        rare[name] = sum(1 in one.labels.tolist() for one in data.samples)
        assert data.names == NAMES
    assert sorted(one for some in names.values() for one in some) == sorted(
        f"p{i:02d}.png" for i in range(40)
    )
    assert rare == {"train": 2, "val": 1, "test": 1}
    split(root, tmp_path / "again", val=0.25, test=0.25, seed=3)
    split(root, tmp_path / "other", val=0.25, test=0.25, seed=4)
    vals = [
        {one.path.name for one in load_data(tmp_path / place, "val").samples}
        for place in ("new", "again", "other")
    ]
    assert vals[0] == vals[1] != vals[2]


def test_copies_of_a_picture_stay_together(tmp_path: Path) -> None:
    root = many(tmp_path / "set", 20)
    folder = root / "images" / "train"
    for i in range(1, 6):
        (folder / f"p{i:02d}.png").write_bytes((folder / "p00.png").read_bytes())
    split(root, tmp_path / "new", val=0.5, seed=1)
    where = Counter(
        name
        for name in ("train", "val")
        for one in load_data(tmp_path / "new", name).samples
        if one.path.stem <= "p05"
    )
    assert len(where) == 1


def test_every_split_gets_an_image_however_many_stay_together(tmp_path: Path) -> None:
    boxes: dict[str, Rows] = {
        f"p{i}_png.rf.{copy}": [(0, (2, 3, 10, 12))] for i in range(5) for copy in range(4)
    }
    root = write_coco(tmp_path / "set", "train", boxes)
    written = split(root, tmp_path / "new", val=0.1)
    assert {name: images for name, (images, _) in written.splits.items()} == {"train": 16, "val": 4}


def test_the_format_stays_unless_another_is_asked_for(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    assert split(root, tmp_path / "a", val=0.25).format == "voc"
    assert split(root, tmp_path / "b", val=0.25, to="yolo").format == "yolo"


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"val": 0.5, "test": 0.5}, "expected shares above 0 that leave some for train"),
        ({"val": 0.0}, "expected shares above 0 that leave some for train, got train 1"),
        ({"val": -0.1}, "expected shares above 0"),
    ],
)
def test_shares_that_cannot_be_dealt(
    tmp_path: Path, shares: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split(write_coco(tmp_path / "set"), tmp_path / "new", **shares)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", "train", {"one": BOXES["one"]})
    with pytest.raises(DataError, match=r"1 images \(1 different\) cannot be dealt into 2 splits"):
        split(root, tmp_path / "new")


def test_a_sample_takes_of_every_split_and_class(tmp_path: Path) -> None:
    root = many(tmp_path / "set")
    write_coco(root, "val", {f"v{i}": [(2, (1, 1, 5, 5))] for i in range(10)})
    written = sample(root, tmp_path / "few", 10, seed=2)
    assert {name: images for name, (images, _) in written.splits.items()} == {"train": 8, "val": 2}
    train = load_data(tmp_path / "few", "train")
    assert any(1 in one.labels.tolist() for one in train.samples)
    assert sample(root, tmp_path / "all", 50).splits["train"][0] == 40
    with pytest.raises(DataError, match="expected 1 to 50 images, as many as there are, got 51"):
        sample(root, tmp_path / "more", 51)
