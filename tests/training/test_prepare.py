from collections.abc import Callable
from pathlib import Path

import pytest

from leandetr.errors import DataError
from leandetr.recipes.codec import to_dict
from leandetr.recipes.recipe import Recipe
from leandetr.training.prepare import choose_recipe, fit_recipe, read_data
from leandetr.training.run import differences


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


def test_a_run_on_few_images_may_go_on_for_more_epochs(pictures: Path) -> None:
    data = read_data(pictures, ("train", "val"), choose_recipe("dino-r50", []))
    begun = fit_recipe(choose_recipe("dino-r50", []), data, [])
    more = ["train.epochs=400"]
    goes_on = fit_recipe(choose_recipe("dino-r50", more), data, more, begun)
    assert (begun.train.epochs, goes_on.train.epochs) == (300, 400)
    assert not differences({"recipe": to_dict(begun)}, {"recipe": to_dict(goes_on)})
