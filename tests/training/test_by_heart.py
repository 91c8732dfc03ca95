import dataclasses
from itertools import chain
from pathlib import Path

import pytest
import torch

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.errors import DataError
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import recipe
from leandetr.recipes.recipe import Recipe
from leandetr.training import by_heart
from leandetr.training.batches import EpochBatches
from leandetr.training.by_heart import STEPS, learner, likely_causes, rounds, some_images
from leandetr.training.record import Row
from leandetr.training.run import overfit
from tiny import tiny_model


def sample(number: int, boxes: list[list[float]], labels: list[int], crowd: bool = False) -> Sample:
    count = len(boxes)
    return Sample(
        *(Path(f"{number}.png"), number, (64, 64)),
        *(torch.tensor(boxes).reshape(count, 4), torch.tensor(labels, dtype=torch.long)),
        *(torch.full((count,), crowd), torch.full((count,), 100.0)),
    )


def data(*samples: Sample) -> DetectionData:
    return DetectionData("things", (Category(1, "a"), Category(2, "b"), Category(3, "c")), samples)


LARGE = [8.0, 8.0, 40.0, 40.0]


def row(epoch: int, loss: float, skipped: int = 0) -> Row:
    names = (item.name for item in dataclasses.fields(Row))
    numbers = dict.fromkeys(names, 0.0) | {"epoch": epoch, "step": epoch, "skipped": skipped}
    return Row(**(numbers | {"loss": loss}))  # pyright: ignore[reportArgumentType]


FALLING = [row(1, 10.0), row(2, 1.0)]


@pytest.fixture(scope="module")
def model() -> Detector:
    made = tiny_model("dino-nano")
    assert isinstance(made, Detector)
    made.names = ("a", "b", "c")
    return made.eval()


def test_nothing_keeps_it_from_learning() -> None:
    changed = learner(recipe("deformable-detr-r50"), 4)
    how, encoder = changed.train, changed.model.encoder
    assert (encoder.dropout, changed.model.decoder.dropout, how.ema, how.batch) == (0, 0, None, 2)
    assert (how.epochs * by_heart.LOOK_EVERY, how.validate_every) == (STEPS, 1)
    assert learner(recipe("dino-nano"), 4).train.batch == 4
    assert learner(recipe("dino-nano"), 4, epochs=7).train.epochs == 7


@pytest.mark.parametrize("images", [1, 3, 8, 200])
def test_an_epoch_has_enough_steps_for_a_checkpoint_at_its_end(images: int) -> None:
    few = learner(recipe("dino-nano"), images)
    order = EpochBatches(images, few.train.batch, seed=0, rounds=rounds(few, images))
    assert by_heart.LOOK_EVERY <= len(order) <= 2 * by_heart.LOOK_EVERY
    assert len(order) * few.train.epochs == pytest.approx(STEPS, rel=0.05)
    assert set(chain(*order)) == set(range(images))


def test_images_are_drawn_by_the_seed_from_those_with_boxes() -> None:
    full = [sample(number, [LARGE], [0]) for number in range(6)]
    empty, crowd = sample(7, [], []), sample(8, [LARGE], [0], crowd=True)
    chosen = some_images(data(empty, *full, crowd), 3, seed=1)
    assert len(chosen) == 3
    assert {one.image_id for one in chosen.samples} <= set(range(6))
    assert some_images(data(*full), 3, seed=1).samples == chosen.samples
    assert len(some_images(data(*full), 99, seed=0)) == 6
    with pytest.raises(DataError, match="found none"):
        some_images(data(empty, crowd), 3, seed=0)


@pytest.mark.parametrize(
    ("samples", "rows", "said"),
    [
        ([sample(0, [LARGE], [0])], FALLING, "the loss fell and the boxes are sound"),
        ([sample(0, [LARGE], [0])], [row(1, 9.0), row(2, 8.0)], "the loss hardly fell (9 to 8)"),
        ([sample(0, [LARGE], [0])], [row(1, 9.0, 3), row(2, 1.0)], "3 steps were not finite"),
        ([sample(0, [LARGE, LARGE], [0, 1])], FALLING, "one box is of two classes (0.png, say)"),
        ([sample(0, [[8.0, 8.0, 9.0, 9.0]], [0])], FALLING, "boxes are less than"),
        ([sample(0, [LARGE] * 40, [0] * 40)], FALLING, "has 40 objects and the model 12 queries"),
    ],
)
def test_each_cause_is_named(
    model: Detector, samples: list[Sample], rows: list[Row], said: str, monkeypatch
) -> None:
    monkeypatch.setattr(by_heart, "detect", lambda *arguments, **options: [])
    assert said in likely_causes(model, data(*samples), rows)[0]


def test_boxes_that_are_found_but_misnamed_point_at_the_classes(
    model: Detector, monkeypatch
) -> None:
    some = data(sample(0, [LARGE], [0]))
    found = [{"image_id": 0, "category_id": 2, "bbox": [8, 8, 32, 32], "score": 0.9}]
    monkeypatch.setattr(by_heart, "detect", lambda *arguments, **options: found)
    (cause,) = likely_causes(model, some, FALLING)
    assert "AP50 1.00 without regard to class" in cause


@pytest.mark.exhaustive
def test_a_nano_detector_really_learns_by_heart(
    tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    larger = ["dim=32", "preprocess.short=64", "preprocess.long=96", "train.lr=2e-3"]
    out = overfit(tiny, pictures, tmp_path / "run", images=2, overrides=larger)
    assert (out / "best").exists()
