"""COCO files, whole and broken: what is read, what is repaired and counted, what is refused."""

import io
import json
import math
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from leandetr.data.coco import read_coco
from leandetr.data.dataset import DetectionData, require_boxes, subset, to_coco
from leandetr.data.sources import load_data
from leandetr.errors import DataError
from leandetr.evaluation.coco import score

ROOT = Path(__file__).resolve().parents[2]
BROKEN = ROOT / "tests" / "fixtures" / "broken"
CELLS = ROOT / "examples" / "cells"

ACCEPTED = {  # boxes to learn from
    "category_ids_1_17_91": 73,
    "crowd_rle": 72,
    "float_ids": 73,
    "good": 73,
    "image_without_boxes": 53,
    "no_boxes_at_all": 0,
}
REPAIRED = {  # boxes left, the one warning
    "box_fully_outside": (72, "boxes skipped, fully outside the image: 1 (annotation id 2805)"),
    "box_partly_outside": (73, "boxes clipped, partly outside the image: 1 (annotation id 2805)"),
    "negative_width": (72, "boxes skipped, negative width or height: 1 (annotation id 2805)"),
    "size_disagrees_with_file": (
        73,
        "image sizes taken from the file, the annotations disagree: 1 (image id 1)",
    ),
    "zero_area": (72, "boxes skipped, zero width or height: 1 (annotation id 2805)"),
}
REFUSED = {
    "duplicate_annotation_id": 'annotation 2805: field "id": expected a value of its own',
    "duplicate_category_name": 'category 2: field "name": expected a value of its own',
    "duplicate_image_id": 'image 1: field "id": expected a value of its own',
    "empty_file": "is empty at line 1 column 1, expected a COCO object",
    "missing_area_and_iscrowd": "expected a COCO object {...} at line 1 column 1, got a list",
    "missing_image": 'image 99: field "file_name": not_there.jpg: no such file',
    "nan_box": 'annotation 2805: field "bbox": expected finite numbers, got [NaN, 10, 20, 20]',
    "no_categories_key": 'has no "categories" key, expected a list of category objects',
    "no_images": '"images" is empty, expected at least one image',
    "not_an_object": "expected a COCO object {...} at line 1 column 1, got a list",
    "path_escapes": 'image 1: field "file_name": expected a path that stays inside the image',
    "string_box": 'annotation 2805: field "bbox": expected four numbers x, y, width, height',
    "three_number_box": 'annotation 2805: field "bbox": expected four numbers',
    "truncated": "broken JSON at line 1 column 901: ",
    "unknown_category": 'annotation 2805: field "category_id": expected one of 1, 2, 3, got 77',
    "unknown_image": 'annotation 2805: field "image_id": expected the id of an entry',
}


def read(name: str, **options: bool) -> DetectionData:
    return read_coco(BROKEN / f"{name}.json", BROKEN / "images", **options)


def written(path: Path, change: Callable[[dict], object]) -> DetectionData:
    """`good.json` after one change."""
    value = json.loads((BROKEN / "good.json").read_text())
    change(value)
    (path / "changed.json").write_text(json.dumps(value))
    return read_coco(path / "changed.json", BROKEN / "images")


def test_every_broken_file_is_spoken_for() -> None:
    assert {p.stem for p in BROKEN.glob("*.json")} == {*ACCEPTED, *REPAIRED, *REFUSED}


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_files_are_accepted_without_a_word(name: str) -> None:
    data = read(name)
    assert (len(data), data.boxes, data.warnings) == (4, ACCEPTED[name], ())
    assert data.names == ("RBC", "WBC", "Platelets")


@pytest.mark.parametrize("name", REPAIRED)
def test_repairs_are_counted_and_logged_with_ids(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    boxes, warning = REPAIRED[name]
    data = read(name)
    assert data.boxes == boxes
    assert data.warnings == (f"{name}.json: {warning}",)
    assert caplog.messages == list(data.warnings)


@pytest.mark.parametrize("name", REFUSED)
def test_doubts_are_refused_with_file_id_and_field(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read(name)
    assert str(caught.value).startswith(f"{name}.json: {REFUSED[name]}")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what is read


def test_a_sample_is_what_the_file_says() -> None:
    data = read("good")
    sample = data.samples[0]
    assert sample.path == BROKEN / "images" / "BloodImage_00000.jpg"
    assert (sample.image_id, sample.size) == (1, (480, 640))
    assert sample.boxes[0].tolist() == [260, 177, 491, 376]
    assert sample.labels[:2].tolist() == [1, 0]
    assert float(sample.areas[0]) == 45969
    assert not sample.crowd.any()
    assert data.most_boxes == max(len(sample.boxes) for sample in data.samples)


def test_ids_of_the_file_are_mapped_and_kept_for_output() -> None:
    data, good = read("category_ids_1_17_91"), read("good")
    assert data.category_ids == (1, 17, 91)
    for sample, other in zip(data.samples, good.samples, strict=True):
        assert torch.equal(sample.labels, other.labels)
    assert {a["category_id"] for a in to_coco(data)["annotations"]} == {1, 17, 91}


def test_crowds_are_no_boxes_to_learn_from_but_stay_in_the_ground_truth() -> None:
    data = read("crowd_rle")
    assert data.samples[0].crowd.nonzero().flatten().tolist() == [0]
    assert [a["iscrowd"] for a in to_coco(data)["annotations"]] == [1] + [0] * 72


def test_an_image_without_boxes_stays() -> None:
    sample = next(s for s in read("image_without_boxes").samples if not len(s.boxes))
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.dtype == torch.int64


def test_area_and_iscrowd_may_be_missing(tmp_path: Path) -> None:
    def change(value: dict) -> None:
        for annotation in value["annotations"]:
            del annotation["area"], annotation["iscrowd"]
        value["annotations"][0]["bbox"] = [600, 400, 100, 200]

    data = written(tmp_path, change)
    assert float(data.samples[0].areas[0]) == 40 * 80  # of what is inside the picture
    boxes = data.samples[1].boxes
    assert torch.equal(data.samples[1].areas, (boxes[:, 2:] - boxes[:, :2]).prod(dim=1))


def test_boxes_are_clipped_to_the_upright_file(tmp_path: Path) -> None:
    assert read("box_partly_outside").samples[0].boxes[0].tolist() == [600, 400, 640, 480]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    value = {
        "images": [{"id": 1, "file_name": "turned.jpg", "width": 20, "height": 40}],
        "categories": [{"id": 5, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 20, 40]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(value))
    data = read_coco(tmp_path / "a.json", tmp_path)
    assert (data.samples[0].size, data.warnings) == ((40, 20), ())


def test_rounding_is_not_a_mistake(tmp_path: Path) -> None:
    def change(value: dict) -> None:
        value["annotations"][0]["bbox"] = [-0.005, 0, 640.009, 480]

    data = written(tmp_path, change)
    assert data.warnings == ()
    assert data.samples[0].boxes[0].tolist() == [0, 0, 640, 480]


def test_the_size_of_the_file_counts() -> None:
    assert read("size_disagrees_with_file").samples[0].size == (480, 640)


def test_missing_images_are_skipped_with_a_count_when_asked_for() -> None:
    data = read("missing_image", skip_missing=True)
    assert len(data) == 4
    sentence = "missing_image.json: images skipped, missing or unreadable: 1 (image id 99)"
    assert data.warnings == (sentence,)


def test_unreadable_images_count_as_missing(tmp_path: Path) -> None:
    shutil.copytree(BROKEN / "images", tmp_path / "images")
    (tmp_path / "images" / "BloodImage_00002.jpg").write_bytes(b"text")
    with pytest.raises(DataError, match=r'image 2: field "file_name": .* is not an image'):
        read_coco(BROKEN / "good.json", tmp_path / "images")
    data = read_coco(BROKEN / "good.json", tmp_path / "images", skip_missing=True)
    assert [sample.image_id for sample in data.samples] == [1, 3, 4]


def test_many_ids_are_cut_short(tmp_path: Path) -> None:
    def change(value: dict) -> None:
        for annotation in value["annotations"]:
            annotation["bbox"][2] = 0

    data = written(tmp_path, change)
    assert data.warnings[0].endswith(": 73 (annotation ids 2805, 2806, 2807, 2808, 2809, ...)")


# ---------------------------------------------------------------- what is refused


def first(key: str, **fields: Any) -> Callable[[dict], object]:
    """Change fields of the first row under a key."""
    return lambda value: value[key][0].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first("annotations", bbox=[0, 0, math.inf, 1]), '2805: field "bbox": expected finite'),
        (first("annotations", bbox=None), '2805: field "bbox": expected four numbers.*got null'),
        (first("annotations", bbox=[True, 0, 1, 1]), '2805: field "bbox": expected four numbers'),
        (first("annotations", iscrowd=2), '2805: field "iscrowd": expected 0 or 1, got 2'),
        (first("annotations", id=1.5), '1.5: field "id": expected a whole number, got 1.5'),
        (first("annotations", id="x"), 'x: field "id": expected a whole number, got "x"'),
        (first("annotations", id=2**70), r'field "id": expected a whole number below 2\*\*63'),
        (first("annotations", area="big"), '2805: field "area": expected a number, got "big"'),
        (first("images", file_name=""), 'image 1: field "file_name": expected text, got ""'),
        (first("images", file_name="/etc/passwd"), "image 1: .* stays inside"),
        (first("images", file_name="a/../../b.jpg"), "image 1: .* stays inside"),
        (first("images", file_name="..\\b.jpg"), "image 1: .* stays inside"),
        (first("images", file_name="C:\\b.jpg"), "image 1: .* stays inside"),
        (first("categories", name=7), 'category 1: field "name": expected text, got 7'),
        (lambda value: value["images"][0].pop("id"), 'image entry 0: field "id": .* got nothing'),
        (lambda value: value["annotations"].insert(3, 7), '"annotations" entry 3 should be an obj'),
        (lambda value: value.pop("annotations"), 'has no "annotations" key, expected a list'),
        (lambda value: value.update(images={}), '"images" should be a list, got {}'),
    ],
)
def test_every_complaint_has_a_place(
    tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^changed\.json: .*{message}"):
        written(tmp_path, change)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"is not UTF-8 text \(byte 0\)"),
        (b"[" * 100_000, "JSON"),
        (b" \n", "is empty at line 1"),
        (b"{} x", "broken JSON at line 1 column 4"),
    ],
)
def test_files_that_are_no_json(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"^a\.json: .*{message}"):
        read_coco(tmp_path / "a.json", tmp_path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such annotation file"):
        read_coco(tmp_path / "a.json", tmp_path)
    with pytest.raises(DataError, match="is a folder, expected a COCO annotation file"):
        read_coco(tmp_path, tmp_path)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    text = (BROKEN / "good.json").read_text()
    (tmp_path / "a.json").write_text(text, encoding="utf-8-sig")
    assert read_coco(tmp_path / "a.json", BROKEN / "images").boxes == 73


# ---------------------------------------------------------------- what it is used for


def test_training_says_what_is_missing_and_evaluation_that_ap_is_undefined() -> None:
    data = read("no_boxes_at_all")
    with pytest.raises(DataError, match="has 4 images but not one box to learn from; add boxes"):
        require_boxes(data)
    require_boxes(read("good"))
    with pytest.raises(DataError, match="has no images"):
        require_boxes(subset(data, []))
    with pytest.raises(DataError, match="has no categories"):
        require_boxes(DetectionData("a", (), data.samples))
    assert math.isnan(score(to_coco(data), []).ap)


def test_the_ground_truth_loads_in_pycocotools() -> None:
    data = read("crowd_rle")
    truth = COCO()
    with redirect_stdout(io.StringIO()):
        truth.dataset = json.loads(json.dumps(to_coco(data)))
        truth.createIndex()
    assert sorted(truth.getImgIds()) == [1, 2, 3, 4]
    assert len(truth.getAnnIds()) == 73
    assert min(truth.getAnnIds()) == 1
    assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == list(data.names)
    perfect = [
        {"score": 0.9, **{k: a[k] for k in ("image_id", "category_id", "bbox")}}
        for a in to_coco(data)["annotations"]
        if not a["iscrowd"]
    ]
    assert score(to_coco(data), perfect).ap == pytest.approx(1)


def test_the_example_is_read_and_written_without_loss() -> None:
    data = load_data(CELLS, "test")
    assert (data.name, len(data), data.boxes, data.warnings) == ("cells/test", 12, 151, ())
    value = json.loads((CELLS / "annotations" / "instances_test.json").read_text())
    ours = {(a["image_id"], a["category_id"], *a["bbox"]) for a in to_coco(data)["annotations"]}
    assert ours == {(a["image_id"], a["category_id"], *a["bbox"]) for a in value["annotations"]}


def test_a_subset_keeps_the_categories() -> None:
    data = read("good")
    part = subset(data, [2, 0])
    assert [sample.image_id for sample in part.samples] == [3, 1]
    assert part.categories == data.categories
