"""The detector as people use it."""

import numpy as np
import pytest
import torch
from PIL import Image

from autograd_graph import graph
from leandetr.boxes import cxcywh_to_xyxy
from leandetr.errors import ImageTooLarge, UnreadableImage
from leandetr.images import Preprocess
from leandetr.types import Detections
from tiny import CLASSES, QUERIES, batch, family, single_level, targets, tiny_model

SIZE = (48, 64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = tiny_model()
    model.preprocess = Preprocess(short=48, long=64)
    model.names = ("cat", "dog", "owl")
    return model


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def same(first: Detections, second: Detections):
    torch.testing.assert_close(first.boxes, second.boxes)
    torch.testing.assert_close(first.scores, second.scores)
    assert torch.equal(first.labels, second.labels)


def test_predict_takes_paths_pil_images_arrays_and_tensors(model, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    sources = [str(tmp_path / "a.png"), tmp_path / "a.png", picture, array, tensor]
    found = model.predict(sources, threshold=0.0, batch=2)
    assert len(found) == 5
    for detections in found[1:]:
        same(detections, found[0])
    assert found[0].names == ("cat", "dog", "owl")
    assert found[0].name(0) in found[0].names


def test_one_image_needs_no_list(model, picture):
    (alone,) = model.predict(picture, threshold=0.0)
    (listed,) = model.predict([picture], threshold=0.0)
    same(alone, listed)
    assert model.predict([]) == []


def test_boxes_are_pixels_of_the_image_as_given(model, picture):
    """The picture is worked on at 48 x 64, whatever its own size."""
    large = picture.resize((SIZE[1] * 4, SIZE[0] * 4), Image.Resampling.NEAREST)
    (found,) = model.predict(large, threshold=0.0)
    images = model.preprocess.prepare([_photo(large)])
    with torch.inference_mode():
        answer = model(images).answer
    unit = cxcywh_to_xyxy(answer.boxes[0])
    best = answer.logits[0].sigmoid().flatten().argmax()
    scale = torch.tensor([256.0, 192.0, 256.0, 192.0])
    torch.testing.assert_close(found.boxes[0], unit[best // CLASSES] * scale)


def _photo(image):
    from leandetr.images import read_image

    return read_image(image)


def test_only_scores_above_the_threshold_come_back(model, picture):
    (everything,) = model.predict(picture, threshold=0.0)
    assert len(everything) == QUERIES  # `top` of the recipe
    middle = everything.scores.median().item()
    (some,) = model.predict(picture, threshold=middle)
    assert 0 < len(some) < len(everything)
    assert (some.scores >= middle).all()
    (none,) = model.predict(picture, threshold=1.0)
    assert len(none) == 0


def test_predicting_leaves_the_mode_alone_and_never_drops_out(model, picture):
    model.train()
    (found,) = model.predict(picture, threshold=0.0)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    (again,) = model.predict(picture, threshold=0.0)
    same(found, again)


def test_the_mode_comes_back_after_an_error(model, monkeypatch):
    model.train()
    monkeypatch.setattr(model.neck, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.detect(batch(SIZE), [SIZE])
    assert model.training
    model.eval()


def test_detect_gives_one_answer_an_image(model):
    found = model.detect(batch(SIZE, (32, 40)), [(480, 640), (320, 400)])
    assert [len(detections) for detections in found] == [QUERIES, QUERIES]
    assert not found[0].boxes.requires_grad


def test_the_first_bad_image_is_named(model, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match=r"^broken\.png"):
        model.predict([picture, tmp_path / "broken.png"])
    with pytest.raises(ImageTooLarge):
        model.predict(picture, max_pixels=100)


def test_training_groups_need_targets(model):
    assert len(model.train()(batch(SIZE)).groups) == 1
    model.eval()


@pytest.mark.parametrize("name", [*family(), *single_level()])
def test_the_way_back_copies_nothing_for_changes_in_place(name):
    """A change to a view costs three copies of what it looks at."""
    model = tiny_model(name).train()
    outputs = model(batch((48, 64), (40, 64)), targets(2, 1))
    last = outputs.layers[-1]
    steps = graph(last.logits.sum() + last.boxes.sum())
    assert steps & {"AddmmBackward0", "LinearBackward0"}
    assert not steps & {"CopySlices", "AsStridedBackward0"}
