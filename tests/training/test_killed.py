"""A run that is killed outright goes on from its last whole checkpoint, to the same weights."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from leandetr.recipes.codec import dump_yaml
from leandetr.recipes.recipe import Recipe
from leandetr.training.run import train
from leandetr.training.state import read

SCRIPT = """
import sys
from pathlib import Path

import torch

from leandetr.recipes.codec import load_yaml
from leandetr.training.run import train

torch.set_num_threads(int(sys.argv[4]))
recipe, data, out = map(Path, sys.argv[1:4])
train(load_yaml(recipe.read_text()), data, out, resume=(out / "last" / "state.pt").exists())
"""


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a file is there."""
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()[-2000:]
        time.sleep(0.01)


def kill_once(command: list[str], state: Path, seconds: float) -> None:
    """Start the run, and kill it so long after it has a checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        wait_for(state, process)
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    "times", [1, pytest.param(8, marks=pytest.mark.exhaustive)], ids="{} times".format
)
def test_a_killed_run_goes_on_to_the_same_weights(
    times: int, tiny: Recipe, pictures: Path, tmp_path: Path
) -> None:
    recipe = tiny.with_train(ema=0.9, epochs=200, validate_every=50, save_minutes=0.0)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    (tmp_path / "script.py").write_text(SCRIPT)
    out, threads = tmp_path / "run", torch.get_num_threads()
    files = [str(tmp_path / "script.py"), str(tmp_path / "recipe.yaml"), str(pictures), str(out)]
    state = out / "last" / "state.pt"
    for moment in range(times):
        seconds = random.Random(moment).uniform(0, 1)
        kill_once([sys.executable, *files, str(threads)], state, seconds)
        steps = read(state).position.step  # whole, whatever the moment
        assert 1 <= steps < 400
    short = [f"train.epochs={-(-steps // 2) + 1}"]
    train(recipe, pictures, out, overrides=short, resume=True)
    whole = train(recipe, pictures, tmp_path / "whole", overrides=short)
    one, other = (load_file(path / "last" / "model.safetensors") for path in (out, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
