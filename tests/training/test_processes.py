import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from safetensors.torch import load_file

from leandetr.errors import TrainingError
from leandetr.models.backbones.resnet import ResNetConfig
from leandetr.models.decoders.deformable import DeformableDecoderConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.recipes.codec import dump_yaml
from leandetr.recipes.recipe import Recipe
from leandetr.training.build import build_accelerator
from leandetr.training.criterion import average_boxes
from leandetr.training.run import train
from leandetr.types import Target

SCRIPT = """
import sys
from pathlib import Path
from leandetr.recipes.codec import load_yaml
from leandetr.training.run import train

recipe, data, out = map(Path, sys.argv[1:])
train(load_yaml(recipe.read_text()), data, out)
"""


def two_processes(folder: Path, recipe: Recipe, data: Path) -> tuple[Path, str]:
    """Train on two processes; the run's folder and what was said."""
    (folder / "recipe.yaml").write_text(dump_yaml(recipe))
    (folder / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    files = [str(path) for path in (folder / "script.py", folder / "recipe.yaml", data)]
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [*launch, *files, str(folder / "run")],
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run", done.stderr


def without_chance(tiny: Recipe) -> Recipe:
    """Nothing is drawn, and nothing depends on which images share a process."""
    decoder = DeformableDecoderConfig(2, heads=2, points=1, hidden=16, refine=True, dropout=0.0)
    return tiny.with_model(
        backbone=ResNetConfig(18, norm="frozen", frozen_stages=4),
        queries=TwoStageQueriesConfig(count=12),
        decoder=decoder,
        groups=(),
        shared_heads=False,
    ).with_train(lr=1e-4, lr_factors=(), ema=0.9)


@pytest.mark.slow
def test_two_processes_train_what_one_does_though_one_sees_no_box(
    tiny: Recipe, make_split: Callable[..., None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", 4)
    make_split(data, "val", 3)
    file = data / "annotations" / "instances_train.json"
    coco = json.loads(file.read_text())
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] > 1]
    file.write_text(json.dumps(coco))
    still = without_chance(tiny)
    many, said = two_processes(tmp_path, still.with_train(batch=1), data)
    one = train(still.with_train(batch=2), data, tmp_path / "one")
    tables = []
    for run in (many, one):
        with (run / "metrics.csv").open(newline="") as table:
            tables.append(list(csv.DictReader(table)))
    for ours, theirs in zip(*tables, strict=True):
        assert (ours["step"], ours["skipped"]) == (theirs["step"], "0")
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-3)
        assert float(ours["ap"]) == pytest.approx(float(theirs["ap"]), abs=1e-4)
    assert said.count("done; the model is in") == 1
    first, second = (load_file(run / "last" / "model.safetensors") for run in (many, one))
    apart = torch.cat([(value - second[name]).abs().flatten() for name, value in first.items()])
    moved = still.train.lr  # in a step; where a gradient is nearly zero, rounding picks its sign
    assert (apart > 0.5 * moved).float().mean() < 0.01


def test_boxes_are_averaged_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [Target(torch.zeros(3, dtype=torch.long), torch.rand(3, 4))]
    assert average_boxes(targets) == 3
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(8))
    assert average_boxes(targets) == 5.5


def test_a_model_split_over_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: sharded)
    with pytest.raises(TrainingError, match=r"set up for FSDP; start with torchrun.*recompute"):
        build_accelerator()
