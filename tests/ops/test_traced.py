"""The operators in compiled and exported programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "how", ["operator", "export", pytest.param("reference", marks=pytest.mark.exhaustive)]
)
def test_a_traced_program_answers_as_the_plain_call(how):
    """Compiled through the operators without a break, backward too; exported as plain PyTorch."""
    paths = os.pathsep.join((str(TESTS.parent / "src"), str(TESTS)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "ops" / "traced_operators.py"), how],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    apart = json.loads(done.stdout)
    assert len(apart) == (3 if how == "export" else 2)
    assert max(apart) < 1e-5, apart
