"""The shipped golden subset is complete, and the gate notices a case that nobody proved."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import golden_data

HERE = Path(__file__).resolve().parent

SUITE = """
import pytest
from golden_data import load_case

def test_a():
    load_case("ops/a")

def test_b():
    load_case("boxes/b")
    {ending}
"""


@pytest.fixture
def subset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANDETR_GOLDEN", str(golden_data.SUBSET))


@pytest.mark.usefixtures("subset")
def test_the_subset_holds_what_the_tool_copies():
    path = HERE.parent / "tools" / "golden_subset.py"
    spec = importlib.util.spec_from_file_location("golden_subset", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert golden_data.cases("[!i]*/*") == sorted(tool.CASES)


@pytest.mark.usefixtures("subset")
def test_weights_come_back_bit_for_bit():
    case = golden_data.load_case("lite_detr/kda_nomask_ref2")
    weights = case.weights()
    assert {key: list(w.shape) for key, w in weights.items()} == case.meta["key_shapes"]
    crc = 0
    for key in sorted(weights):
        crc = zlib.crc32(np.ascontiguousarray(weights[key].numpy()), crc)
    assert crc == int(case.meta["weights_crc32"])


@pytest.mark.usefixtures("subset")
def test_images_are_padded_right_and_bottom():
    images = golden_data.load_case("dino/dino_r50_4scale").images()
    assert images.pixels.shape == (2, 3, 304, 320)
    assert images.padding[0].nonzero()[:, 0].min() == 256
    assert images.padding[1].nonzero()[:, 1].min() == 224
    assert (images.pixels.abs().sum(dim=1)[images.padding] == 0).all()


@pytest.mark.parametrize(
    ("ending", "arguments", "passes"),
    [
        ("", ["-n", "1"], True),  # what workers prove reaches the gate
        ("pytest.skip()", [], False),
    ],
    ids=["all proven", "one skipped"],
)
def test_a_case_without_a_passing_test_fails_the_suite(tmp_path, ending, arguments, passes):
    tests, data = tmp_path / "tests", tmp_path / "data"
    for case in ("ops/a", "boxes/b"):
        (data / case).parent.mkdir(parents=True)
        (data / f"{case}.json").write_text("{}")
    tests.mkdir()
    for name in ("conftest.py", "golden_data.py", "parity.py"):
        shutil.copyfile(HERE / name, tests / name)
    (tests / "test_it.py").write_text(SUITE.format(ending=ending))
    shutil.copyfile(HERE.parent / "pyproject.toml", tmp_path / "pyproject.toml")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env={**os.environ, "LEANDETR_GOLDEN": str(data), "LEANDETR_REQUIRE_GOLDEN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    assert ("not proven" in done.stdout and "boxes/b" in done.stdout) == (not passes)
