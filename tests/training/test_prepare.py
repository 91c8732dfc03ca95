from collections.abc import Callable
from pathlib import Path

import pytest

from leandetr.errors import DataError
from leandetr.recipes.recipe import Recipe
from leandetr.training.prepare import read_data


def test_without_a_box_to_find_there_is_no_validation(
    tiny: Recipe,
    make_split: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_split(tmp_path, "train", 2)
    make_split(tmp_path, "val", 2, boxes=0)
    assert read_data(tmp_path, ("train", "val"), tiny).val is None
    assert "val has not one box to be found: there is no validation" in caplog.text


def test_without_a_split_to_learn_from_it_says_how_to_make_one(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    make_split(tmp_path, "learning", 2)
    with pytest.raises(DataError, match=r"a split 'train'.*found learning;.*leandetr data split"):
        read_data(tmp_path, ("train", "val"), tiny)
