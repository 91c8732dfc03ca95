"""Huge JPEG files decoded to what the network needs: nearly the same pixels, the same sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.data.loader import DetectionSet
from leandetr.deploy.draw import draw
from leandetr.deploy.feed import Reader
from leandetr.deploy.predict import PredictOptions, predict
from leandetr.errors import ImageTooLarge
from leandetr.images import Photo, Preprocess, read_image, resize
from leandetr.types import Detections
from scripted import Scripted

PREPROCESS = Preprocess(short=60, long=100)
ORIENTATION = 0x0112


def jpeg(path: Path, width: int, height: int, turn: int = 1) -> Path:
    """A smooth picture with fine stripes, so that a wrong place or turn shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red, green = 255 * x / width, 255 * y / height
    stripes = 128 + 60 * np.sin(x / 3) * np.cos(y / 5)
    image = Image.fromarray(np.stack([red, green, stripes], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    image.save(path, quality=95, exif=exif)
    return path


def read(path: Path) -> tuple[Photo, Photo]:
    """The file decoded whole, and coarsely."""
    return read_image(path), read_image(path, enough=PREPROCESS.enough)


@pytest.mark.parametrize("turn", range(1, 9))
def test_coarse_is_the_same_picture_of_the_same_size(tmp_path: Path, turn: int) -> None:
    whole, coarse = read(jpeg(tmp_path / "a.jpg", 1203, 801, turn))
    assert coarse.size == whole.size == ((801, 1203) if turn < 5 else (1203, 801))
    assert coarse.whole == whole.size
    assert whole.whole is None
    assert coarse.note == "decoded at 1/4 of its size"  # 301 x 201 are left, 200 x 120 are enough
    assert coarse.pixels.shape[1:] == ((201, 301) if turn < 5 else (301, 201))
    wanted = PREPROCESS.resized(*whole.size)
    near = (resize(whole.pixels, *wanted).int() - resize(coarse.pixels, *wanted).int()).abs()
    assert near.max() <= 8
    assert near.float().mean() < 0.6


@pytest.mark.parametrize(
    ("width", "height", "left"),
    [
        (199, 240, (240, 199)),  # half of it would be less than enough
        (400, 240, (120, 200)),
        (1599, 959, (240, 400)),  # a hair too small for an eighth
        (4000, 2400, (300, 500)),  # libjpeg goes down to an eighth
    ],
)
def test_never_less_than_enough_is_decoded(
    tmp_path: Path, width: int, height: int, left: tuple[int, int]
) -> None:
    _, coarse = read(jpeg(tmp_path / "a.jpg", width, height))
    assert tuple(coarse.pixels.shape[1:]) == left
    assert all(np.array(left) >= np.minimum(PREPROCESS.enough(height, width), (height, width)))


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "a.jpg", 800, 480)
    Image.open(source).save(tmp_path / "a.png")
    _, coarse = read(tmp_path / "a.png")
    assert (coarse.whole, coarse.note, coarse.pixels.shape[1:]) == (None, None, (480, 800))


def test_grey_files_and_the_limit(tmp_path: Path) -> None:
    Image.open(jpeg(tmp_path / "a.jpg", 800, 480)).convert("L").save(tmp_path / "grey.jpg")
    _, coarse = read(tmp_path / "grey.jpg")
    assert coarse.pixels.shape == (3, 120, 200)
    with pytest.raises(ImageTooLarge, match="800 x 480 is 384,000 pixels"):
        read_image(tmp_path / "a.jpg", max_pixels=100_000, enough=PREPROCESS.enough)


def test_a_coarse_photo_is_drawn_at_its_own_size(tmp_path: Path) -> None:
    whole, coarse = read(jpeg(tmp_path / "a.jpg", 800, 480))
    one = Detections(torch.tensor([[100.0, 100, 700, 400]]), torch.ones(1), torch.zeros(1).long())
    drawn = [np.asarray(draw(photo, one)).astype(int) for photo in (whole, coarse)]
    assert drawn[0].shape == drawn[1].shape == (480, 800, 3)
    assert np.abs(drawn[0] - drawn[1]).mean() < 12


def boxes_at(size: tuple[int, int]) -> list:
    height, width = size
    return [([0, 0, width / 2, height / 2], 0.9, 0)]


def test_boxes_are_in_pixels_of_the_whole_picture(tmp_path: Path) -> None:
    jpeg(tmp_path / "in.jpg", 801, 600, 6)
    found = []
    for coarse in (False, True):
        model, out = Scripted(boxes_at), tmp_path / str(coarse)
        options = PredictOptions(pictures=False, coarse=coarse)
        predict(model, [tmp_path / "in.jpg"], out, options)
        found.append((model.batches, (out / "results.json").read_text()))
        assert ("1/8 of its size" in (out / "images.json").read_text()) == coarse
    assert found[0] == found[1]
    assert found[0][0] == [[(801, 600)]]


def test_coarse_photos_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="--no-pictures"):
        PredictOptions(coarse=True)


def test_evaluation_sees_what_prediction_sees(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", 811, 607, 8)
    sample = Sample(
        path=path,
        image_id=1,
        size=(811, 607),
        boxes=torch.tensor([[0.0, 0, 607, 811]]),
        labels=torch.tensor([0]),
        crowd=torch.tensor([False]),
        areas=torch.tensor([1.0]),
    )
    data = DetectionData("one", (Category(1, "cell"),), (sample,))
    item = DetectionSet(data, PREPROCESS, coarse=True)[0]
    ready = Reader(PREPROCESS, 10_000_000, whole=False, coarse=True).read(path).ready
    assert ready is not None
    assert torch.equal(item.pixels, PREPROCESS.normalise(ready.resized))
    torch.testing.assert_close(item.target.boxes, torch.tensor([[0.5, 0.5, 1, 1]]))
    assert item.size == ready.size == (811, 607)
