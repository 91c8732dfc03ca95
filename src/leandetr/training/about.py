"""What a run was made of: `run.json` and `recipe.yaml` in its folder, written before it starts."""

import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from leandetr.data.dataset import DetectionData
from leandetr.errors import TrainingError
from leandetr.evaluation.machine import describe
from leandetr.files import write_json, write_text
from leandetr.recipes.codec import dump_yaml
from leandetr.recipes.recipe import Recipe

log = logging.getLogger(__name__)

RUN, RECIPE = "run.json", "recipe.yaml"


def fingerprint(data: DetectionData) -> str:
    """16 letters that change with any class, file name, picture size, box or label of `data`.

    Pixels are not read: two sets with the same names and boxes are the same here.
    """
    hashed = hashlib.sha256(json.dumps(data.names).encode())
    for sample in data.samples:
        hashed.update(json.dumps([sample.path.name, sample.size]).encode())
        for tensor in (sample.boxes, sample.labels, sample.crowd):
            hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def git_commit(folder: Path) -> str | None:
    """The commit of the repository around `folder`, with `+changes` where files differ from it.

    None where there is no repository, or no git.
    """
    git = shutil.which("git")
    if git is None:
        return None
    said = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(  # noqa: S603 - git, with words of our own
                [git, "-C", str(folder), *question],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        said.append(done.stdout.strip())
    return f"{said[0]}{'+changes' if said[1] else ''}"


def write_about(
    folder: Path,
    recipe: Recipe,
    data: Sequence[DetectionData],
    device: torch.device,
    *,
    resume: bool = False,
) -> None:
    """Write what a run is made of; with `resume` its record is kept, when and where are added."""
    started = {
        "started": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "machine": describe(device),
        "commit": git_commit(Path.cwd()),
        "leandetr": version("leandetr"),
    }
    path, about = folder / RUN, {}
    now = [_of(one) for one in data]
    if resume and path.exists():
        about = read_about(folder)
        for before, one in zip(about["data"], now, strict=False):
            if before["fingerprint"] != one["fingerprint"]:
                log.warning(
                    "%s is not what it was when the run began (%d images then, %d now): what it "
                    "goes on to is the result of neither",
                    *(one["name"], before["images"], one["images"]),
                )
        about["sessions"].append(started)
    else:
        about = {"seed": recipe.train.seed, "data": now, "sessions": [started]}
    write_json(path, about)
    write_text(folder / RECIPE, dump_yaml(recipe))


def read_about(folder: Path) -> dict[str, Any]:
    """The record of a run. Raises `TrainingError` for what is none."""
    path = folder / RUN
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(about["sessions"], list) and isinstance(about["data"], list):
            return about
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainingError(
        f"{path}: expected the record of a run; move it away and a new one is written"
    )


def _of(data: DetectionData) -> dict[str, Any]:
    return {
        "name": data.name,
        "images": len(data),
        "boxes": data.boxes,
        "classes": list(data.names),
        "fingerprint": fingerprint(data),
    }
