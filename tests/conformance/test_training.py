"""Every encoder trains in every nano detector: a few steps on synthetic scenes, start to end."""

import csv
import math

import pytest

import leandetr
from leandetr.data.scenes import write_scenes
from leandetr.models.encoders import encoders

DETECTORS = ("deformable-detr-nano", "dino-nano", "h-detr-nano")
SMALLER = {
    "lite": ["encoder.high_levels=2", "encoder.blocks=1"],
    "focus": ["encoder.cascade=[1.0,0.5]", "encoder.objects=30"],
}
"""What the three levels and two layers of the nano sizes ask of an encoder."""
QUICKLY = [
    "preprocess.short=96",
    "preprocess.long=128",
    "train.epochs=1",
    "train.batch=4",
    "train.workers=0",
    "train.warmup=0",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", train=12, val=2, seed=3)


@pytest.mark.parametrize("encoder", [*encoders.names(), "lite-scored"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_every_encoder_trains_in_every_nano_detector(detector, encoder, scenes, tmp_path):
    name = encoder.removesuffix("-scored")
    changes = [f"encoder={name}", *SMALLER.get(name, []), *QUICKLY]
    changes += ["encoder.keep_low=0.5"] if encoder == "lite-scored" else []
    leandetr.train(detector, scenes, tmp_path / "run", overrides=changes)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert math.isfinite(float(epoch["loss"]))
    assert int(epoch["skipped"]) == 0
    model = leandetr.load(tmp_path / "run")
    assert type(model.encoder).__module__.endswith(f"encoders.{name}")
    picture = next((scenes / "images" / "val").glob("*.png"))
    (found,) = model.predict(picture, threshold=0.0)
    assert len(found) == model.recipe.model.top
    assert set(found.names) == set(model.names)
