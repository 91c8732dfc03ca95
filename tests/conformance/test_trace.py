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


def trace(kind, name):
    """What traced.py prints."""
    paths = os.pathsep.join([*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "traced.py"), kind, name],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*family(with_switches=False), *single_level()])
def test_exported_detectors_take_images_of_any_size(name):
    found = trace("detector", name)
    assert len(found["export"]) == 4
    assert max(found["export"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [*encoders.names(), "lite:keep_low=0.5"])
def test_exported_and_compiled_encoders_answer_like_plain_ones(name):
    found = trace("encoder", name)
    assert len(found["export"]) == 3
    assert max(found["export"]) < 1e-5
    assert max(found["compile"]) < 1e-5
