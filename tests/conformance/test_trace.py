"""Detectors and encoders export with symbolic sizes; encoders compile without a break.

Tracing happens in a process of its own: see traced.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leandetr.models.encoders import encoders
from tiny import family, single_level

HERE = Path(__file__).parent
FOLDERS = (HERE.parent.parent / "src", HERE.parent)


def trace(kind, names):
    """What traced.py prints, by name: one process for all, since starting it takes longest."""
    paths = os.pathsep.join([*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "traced.py"), kind, *names],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    assert list(found) == names, done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    return found


DETECTORS = ["dino-nano", "detr-r50"]
ENCODERS = ["focus", "sparse", "lite:keep_low=0.5"]
"""One of each way to make shapes; the others are traced by `make test-slow`."""
OTHERS = {
    "detector": [n for n in [*family(False), *single_level()] if n not in DETECTORS],
    "encoder": [name for name in encoders.names() if name not in ENCODERS],
}
more = pytest.mark.exhaustive


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "names", [DETECTORS, pytest.param(OTHERS["detector"], marks=more)], ids=str
)
def test_exported_detectors_take_images_of_any_size(names):
    for name, one in trace("detector", names).items():
        assert len(one["export"]) == 4, name
        assert max(one["export"]) < 1e-5, name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", [ENCODERS, pytest.param(OTHERS["encoder"], marks=more)], ids=str)
def test_exported_and_compiled_encoders_answer_like_plain_ones(names):
    for name, one in trace("encoder", names).items():
        assert len(one["export"]) == 3, name
        assert max(one["export"]) < 1e-5, name
        assert max(one["compile"]) < 1e-5, name
