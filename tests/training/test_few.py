import pytest

from leandetr.data.transforms import SmallDataAugment
from leandetr.recipes.assemble import recipe
from leandetr.training.few import FEW, LONGEST, STEPS, for_few


def test_a_recipe_for_coco_gets_enough_steps_for_a_small_set() -> None:
    before = recipe("dino-r50")
    after, told = for_few(before, 400)
    assert after.train.epochs * 400 // before.train.batch == STEPS
    assert after.train.epochs == 30
    assert after.train.drops == (28,)  # 11 of 12 epochs before
    assert isinstance(after.train.augment, SmallDataAugment)
    assert after.train.ema == 0.998
    assert after.model == before.model
    assert "train.epochs: 12 -> 30" in told
    assert "train.augment: detr -> small-data" in told


def test_what_was_chosen_stays() -> None:
    before = recipe("dino-r50")
    after, told = for_few(before, 400, ("train.epochs", "train.augment.flip", "train.ema"))
    assert (after.train.epochs, after.train.drops) == (12, (11,))
    assert after.train.augment == before.train.augment
    assert after.train.ema is None
    assert not any("epochs" in line or "ema" in line for line in told)


def test_the_rate_drops_at_its_share_of_the_epochs_that_are_asked_for() -> None:
    asked = recipe("dino-r50").with_train(epochs=60)
    after, told = for_few(asked, 400, ("train.epochs",), preset=recipe("dino-r50"))
    assert (after.train.epochs, after.train.drops) == (60, (55,))
    assert "train.drops: (11,) -> (55,)" in told


def test_another_augmentation_leaves_the_rest_to_the_number_of_images() -> None:
    asked = recipe("dino-r50").with_train(augment=SmallDataAugment(turn=0.0))
    after, _ = for_few(asked, 400, ("train.augment",), preset=recipe("dino-r50"))
    assert after.train.augment == asked.train.augment
    assert (after.train.epochs, after.train.ema) == (30, 0.998)


def test_a_handful_of_images_does_not_take_for_ever() -> None:
    assert for_few(recipe("dino-r50"), 3)[0].train.epochs == LONGEST


@pytest.mark.parametrize(("name", "images"), [("dino-r50", FEW), ("dino-nano", 100)])
def test_many_images_and_recipes_for_few_are_left_alone(name: str, images: int) -> None:
    assert for_few(recipe(name), images) == (recipe(name), [])
