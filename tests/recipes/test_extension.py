"""An encoder of another package works everywhere a built-in one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leandetr.checkpoints.store import load, save
from leandetr.models.encoders import encoders
from leandetr.recipes import create_model, load_yaml
from leandetr.training.build import build_criterion
from tiny import batch, targets

TESTS = Path(__file__).parent.parent
SMALL = ("dim=16", "queries.count=12", "backbone.widths=[8, 8, 8, 8]", "decoder.hidden=16")


@pytest.fixture
def stride(monkeypatch):
    """The encoder, registered for one test."""
    monkeypatch.setattr(encoders, "_configs", dict(encoders._configs))
    sys.modules.pop("stride", None)
    import stride

    return stride


@pytest.mark.usefixtures("stride")
def test_a_foreign_encoder_is_chosen_by_name(tmp_path):
    model = create_model(
        "dino-nano", encoder="stride", num_classes=3, overrides=[*SMALL, "encoder.step=3"]
    )
    assert model.recipe.model.encoder.step == 3
    boxes = targets(2, 1)
    outputs = model(batch((64, 48), (40, 40)), boxes)
    build_criterion(model.recipe)(outputs, boxes).total.backward()
    assert model.get_parameter("encoder.gather.0.attention.value.weight").grad.any()
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.recipe == model.recipe
    with torch.no_grad():
        images = batch((40, 40))
        assert torch.equal(again(images).answer.logits, model.eval()(images).answer.logits)


def test_an_installed_encoder_works_on_the_command_line(tmp_path):
    about = tmp_path / "stride-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stride\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[leandetr.encoders]\nstride = stride\n")
    paths = (tmp_path, TESTS, TESTS.parent / "src")
    done = subprocess.run(
        [sys.executable, "-m", "leandetr", "show", "dino-nano", "--set", "encoder=stride"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "    type: stride\n    layers: 2\n    step: 2\n" in done.stdout


@pytest.mark.usefixtures("stride")
def test_yaml_names_a_foreign_encoder():
    from leandetr.recipes import dump_yaml, override, recipe

    text = dump_yaml(override(recipe("dino-nano"), ["encoder=stride"]))
    assert type(load_yaml(text).model.encoder).__name__ == "StrideEncoderConfig"
