import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leandetr.recipes.codec import dump_yaml
from leandetr.recipes.recipe import Recipe
from leandetr.training.criterion import average_boxes
from leandetr.types import Target

SCRIPT = """
import sys
from pathlib import Path
from leandetr.recipes.codec import load_yaml
from leandetr.training.run import train

recipe, data, out = map(Path, sys.argv[1:])
train(load_yaml(recipe.read_text()), data, out)
"""


@pytest.mark.slow
def test_two_processes_share_an_epoch_though_one_sees_no_box(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", 4)
    make_split(data, "val", 2)
    file = data / "annotations" / "instances_train.json"
    coco = json.loads(file.read_text())
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] > 1]
    file.write_text(json.dumps(coco))
    (tmp_path / "recipe.yaml").write_text(dump_yaml(tiny.with_train(batch=1, ema=0.9)))
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(tmp_path / name) for name in ("script.py", "recipe.yaml", "data", "run")]
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as table:
        steps = [(row["step"], row["skipped"]) for row in csv.DictReader(table)]
    assert steps == [("2", "0"), ("4", "0")]
    assert done.stderr.count("done; the model is in") == 1


def test_boxes_are_averaged_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [Target(torch.zeros(3, dtype=torch.long), torch.rand(3, 4))]
    assert average_boxes(targets) == 3
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(8))
    assert average_boxes(targets) == 5.5
