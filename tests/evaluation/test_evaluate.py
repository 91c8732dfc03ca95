"""A detector over a data set: ids and names, order, modes and what is written."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.errors import DataError, OutputExists
from leandetr.evaluation.coco import score
from leandetr.evaluation.evaluate import OUTPUTS, category_of, choose, detect, evaluate, write
from scripted import Scripted

SIZES = ((40, 60), (60, 30), (50, 50), (30, 60), (20, 20))


def answer(size: tuple[int, int]) -> list:
    """The whole upper left quarter is a cell; something of another class, unsure, is below."""
    height, width = size
    return [([0, 0, width / 2, height / 2], 0.9, 0), ([2, 30, 12, 38], 0.3, 1)]


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Five pictures with one cell each, exactly where the scripted detector sees it; id 40."""
    samples = []
    for index, (height, width) in enumerate(SIZES):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (width, height)).save(path)
        box = torch.tensor([[0, 0, width / 2, height / 2]])
        samples.append(
            Sample(
                path=path,
                image_id=100 + index,
                size=(height, width),
                boxes=box,
                labels=torch.tensor([1]),
                crowd=torch.tensor([False]),
                areas=torch.tensor([width * height / 4]),
            )
        )
    categories = (Category(30, "ring"), Category(40, "cell"))
    return DetectionData("five", categories, tuple(samples))


def test_a_perfect_detector_scores_one(data: DetectionData) -> None:
    scores = evaluate(Scripted(answer), data, workers=0)
    assert scores.ap == 1
    assert [(one.name, one.boxes) for one in scores.classes] == [("ring", 0), ("cell", 5)]


def test_detections_carry_the_ids_of_the_data(data: DetectionData) -> None:
    found = detect(Scripted(answer), data, workers=0, batch=2)
    assert {one["image_id"] for one in found} == {100, 101, 102, 103, 104}
    first = [one for one in found if one["image_id"] == 101]
    assert [one["category_id"] for one in first] == [40, 30]
    assert first[0]["bbox"] == [0, 0, 15, 30]
    assert first[0]["score"] == pytest.approx(0.9)


@pytest.mark.usefixtures("one_thread")
def test_images_of_one_shape_share_a_batch_and_results_keep_the_order(
    data: DetectionData,
) -> None:
    model = Scripted(answer)
    found = detect(model, data, workers=0, batch=2)
    squares = [(50, 50), (20, 20)]  # of one size for the network
    assert squares in model.batches
    assert sorted(model.batches) == sorted(
        [squares, *([size] for size in SIZES if size not in squares)]
    )
    assert [one["image_id"] for one in found] == [100 + index for index in range(5) for _ in "ab"]


def test_most_detections_and_first_images(data: DetectionData) -> None:
    assert len(detect(Scripted(answer), data, workers=0, max_detections=1)) == 5
    model = Scripted(answer)
    scores = evaluate(model, data, workers=0, limit=2)
    assert sum(len(batch) for batch in model.batches) == 2
    assert sum(one.boxes for one in scores.classes) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_one_sentence(data: DetectionData, workers: int) -> None:
    data.samples[3].path.write_bytes(b"no picture")
    with pytest.raises(DataError) as error:
        detect(Scripted(answer, names=("cell", "ring")), data, workers=workers)
    assert "3.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_are_matched_by_name(data: DetectionData) -> None:
    assert category_of(Scripted(answer, ["cell", "star", "ring"]), data) == {0: 40, 2: 30}
    with pytest.raises(DataError) as caught:
        category_of(Scripted(answer, ["cells", "star"]), data)
    for part in ("lacks ring, cell", "knows cells, star", "did you mean cells"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="it knows none"):
        category_of(Scripted(answer, []), data)


def test_labels_without_a_class_in_the_data_are_left_out(data: DetectionData) -> None:
    model = Scripted(lambda size: [([0, 0, 5, 5], 0.9, 1)], ["cell", "star", "ring"])
    assert detect(model, data, workers=0) == []


def test_a_folder_is_read_by_its_split(tmp_path: Path) -> None:
    (tmp_path / "images" / "test").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "test" / "a.png")
    truth = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 2, "name": "cell"}],
        "annotations": [{"id": 0, "image_id": 5, "category_id": 2, "bbox": [0, 0, 20, 15]}],
    }
    (tmp_path / "annotations" / "instances_test.json").write_text(json.dumps(truth))
    assert evaluate(Scripted(answer), tmp_path, split="test", workers=0).ap == 1
    with pytest.raises(DataError, match="no split 'val'"):
        evaluate(Scripted(answer), tmp_path, workers=0)


def test_no_images_is_an_error_and_no_boxes_a_warning(
    data: DetectionData, caplog: pytest.LogCaptureFixture
) -> None:
    empty = DetectionData("empty", data.categories, ())
    with pytest.raises(DataError, match="empty has none"):
        choose(empty)
    bare = DetectionData(
        "bare",
        data.categories,
        (
            Sample(
                path=data.samples[0].path,
                image_id=1,
                size=SIZES[0],
                boxes=torch.zeros(0, 4),
                labels=torch.zeros(0, dtype=torch.long),
                crowd=torch.zeros(0, dtype=torch.bool),
                areas=torch.zeros(0),
            ),
        ),
    )
    with caplog.at_level(logging.WARNING):
        assert math.isnan(evaluate(Scripted(answer), bare, workers=0).ap)
    assert "AP is undefined" in caplog.text


def test_what_is_written_scores_the_same(data: DetectionData, tmp_path: Path) -> None:
    from leandetr.data.dataset import to_coco

    found = detect(Scripted(answer), data, workers=0)
    scores = score(to_coco(data), found)
    out = tmp_path / "scores"
    write(scores, found, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)
    again = json.loads((out / "detections.json").read_text())
    assert score(to_coco(data), again).metrics()["ap"] == scores.ap
    assert json.loads((out / "metrics.json").read_text())["classes"][1]["name"] == "cell"
    assert (out / "classes.csv").read_text().splitlines() == [
        "class,ap,ap50,boxes",
        "ring,,,0",
        "cell,1.0,1.0,5",
    ]
    assert "| ap50 | 1.000 |" in (out / "metrics.md").read_text()
    with pytest.raises(OutputExists, match=r"metrics\.json"):
        write(scores, found, out)
    write(scores, found, out, overwrite=True)
