"""Boxes and labels land on the picture, whatever its size."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from leandetr.deploy.draw import Style, draw, to_supervision
from leandetr.errors import MissingExtra
from leandetr.palette import COLOURS
from leandetr.types import Detections

NAMES = ("cell", "ring", "细胞 é")


def detections(*found: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
    return Detections(
        torch.tensor(boxes).reshape(-1, 4).float(),
        torch.tensor(scores).float(),
        torch.tensor(labels).long(),
        NAMES,
    )


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_the_picture_is_copied_and_boxes_have_their_class_colour() -> None:
    picture = Image.new("RGB", (200, 150))
    drawn = draw(picture, detections(([20, 60, 120, 120], 0.9, 1)))
    assert not np.asarray(picture).any()
    assert drawn.size == (200, 150)
    assert drawn.getpixel((70, 120)) == rgb(COLOURS[1])
    assert drawn.getpixel((70, 90)) == (0, 0, 0)


def test_arrays_tensors_and_pil_give_the_same() -> None:
    array = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    found = detections(([20, 30, 60, 50], 0.9, 0))
    sources = (array, torch.from_numpy(array).permute(2, 0, 1), Image.fromarray(array))
    first, second, third = (np.asarray(draw(source, found)) for source in sources)
    assert (first == second).all()
    assert (first == third).all()


def test_threshold_hides() -> None:
    picture = Image.new("RGB", (200, 150))
    found = detections(([20, 60, 120, 120], 0.4, 1))
    assert not np.asarray(draw(picture, found, threshold=0.5)).any()
    assert np.asarray(draw(picture, found, threshold=0.4)).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (64, 48), (3000, 2000)])
def test_any_size_and_any_box_can_be_drawn(size: tuple[int, int]) -> None:
    width, height = size
    found = detections(
        ([-50, -50, width + 50, height + 50], 0.9, 2),
        ([width + 10, 0, width + 20, 5], 0.8, 1),  # wholly outside
        ([0, 0, 0, 0], 0.7, 0),
    )
    assert draw(Image.new("RGB", size), found).size == size


def test_nothing_found_gives_the_picture_back() -> None:
    array = np.full((20, 30, 3), 7, np.uint8)
    assert (np.asarray(draw(array, detections())) == array).all()


def test_sizes_grow_with_the_picture_and_shrink_in_a_crowd() -> None:
    few = np.array([[0.0, 0.0, 50.0, 50.0]])
    small, large = Style.of((480, 640), few), Style.of((4800, 6400), few)
    assert large.line > small.line >= 1
    assert large.font > small.font >= 9
    assert Style.of((4800, 6400), few.repeat(100, axis=0)).font < large.font


def test_supervision_detections_carry_names_and_scores() -> None:
    found = to_supervision(detections(([1, 2, 3, 4], 0.5, 1)))
    assert found.xyxy.tolist() == [[1, 2, 3, 4]]
    assert found.confidence is not None
    assert found.confidence.tolist() == [0.5]
    assert list(found.data["class_name"]) == ["ring"]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtra, match=r"supervision.*leandetr\[viz\]"):
        to_supervision(detections(([1, 2, 3, 4], 0.5, 1)))
