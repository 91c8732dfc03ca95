"""The operators in compiled and exported programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SIZES = {"operator": 2, "reference": 2, "export": 3}
"""How many numbers of queries each program is tried with."""


@pytest.mark.parametrize(
    ("amount", "hows"),
    [
        ("few", ("operator", "export")),
        pytest.param("all", ("operator", "export", "reference"), marks=pytest.mark.exhaustive),
    ],
)
def test_traced_programs_answer_as_the_plain_call(amount, hows):
    """Compiled through the operators without a break, backward too; exported as plain PyTorch."""
    paths = os.pathsep.join((str(TESTS.parent / "src"), str(TESTS)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "ops" / "traced_operators.py"), amount, *hows],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    apart = json.loads(done.stdout)
    assert {how: len(found) for how, found in apart.items()} == {how: SIZES[how] for how in hows}
    assert all(one < 1e-5 for found in apart.values() for one in found), apart
