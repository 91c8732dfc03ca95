"""The contact sheet: which pictures, where, in which colours."""

from dataclasses import replace
from pathlib import Path

import pytest

from leandetr.data.sheet import MARGIN, ROW, Heading, Tile, choose, sheet
from leandetr.data.sources import load_data
from leandetr.palette import COLOURS
from tiny_data import BOXES, NAMES, write_coco

HEADING = Heading("cells", "train: 4 images", [(name, 3) for name in NAMES])


def tiles(root: Path, times: int = 1) -> list[Tile]:
    data = load_data(write_coco(root), "train")
    return [Tile(one, data.names, one.path.name) for one in data.samples] * times


def colours(image) -> set[tuple]:
    return {colour for _, colour in image.getcolors(2**24)}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_a_sheet_has_the_width_asked_for_and_the_colours_of_the_classes(tmp_path: Path) -> None:
    page = sheet(tiles(tmp_path), HEADING, width=900)
    assert page.width == 900
    assert {rgb(colour) for colour in COLOURS[:3]} <= colours(page)


def test_rows_fill_the_page_and_grow_with_the_pictures(tmp_path: Path) -> None:
    few, many = (sheet(tiles(tmp_path, times), HEADING, width=900) for times in (1, 6))
    assert many.height > few.height + 2 * ROW
    right = many.crop((900 - MARGIN - 30, many.height // 2, 900 - MARGIN, many.height // 2 + 200))
    assert len(colours(right)) > 50


def test_extreme_shapes_are_framed(tmp_path: Path) -> None:
    (tile,) = tiles(tmp_path)[:1]
    tall = replace(tile, sample=replace(tile.sample, size=(4000, 40)))
    assert tall.shape == pytest.approx(0.5)
    assert sheet([tile, tall], HEADING, width=900).width == 900


def test_a_picture_that_cannot_be_decoded_says_so(tmp_path: Path) -> None:
    (tile,) = tiles(tmp_path)[:1]
    tile.sample.path.write_bytes(b"no picture")
    assert sheet([tile], HEADING, width=600).width == 600


def test_every_class_is_chosen_and_the_seed_chooses(tmp_path: Path) -> None:
    boxes = {f"p{i}": [(0, (1.0, 1, 9, 9))] for i in range(20)} | {
        "rare": [(1, (1, 1, 9, 9))],
        "rarer": [(2, (1, 1, 9, 9))],
    }
    samples = load_data(write_coco(tmp_path, "train", boxes), "train").samples
    for seed in range(3):
        chosen = choose(samples, 4, seed=seed)
        assert {20, 21} <= set(chosen)
        assert len(set(chosen)) == 4
    assert choose(samples, 6, seed=0) != choose(samples, 6, seed=1)
    assert sorted(choose(samples, 99)) == list(range(22))
    assert len(BOXES) == 4


def test_long_lists_of_classes_and_letters_of_any_script(tmp_path: Path) -> None:
    names = [(f"class number {i} 細胞", i) for i in range(200)]
    page = sheet(tiles(tmp_path), Heading("細胞", "many", names), width=1200)
    assert page.height > 600
