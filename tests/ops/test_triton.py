"""The GPU kernels, in processes of their own: Triton reads at its import how it shall run.

The table of checks is in `checks_triton.py`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from leandetr.errors import LeanDetrError
from leandetr.ops import gpu
from sampling import Sizes
from sampling_calls import KINDS, draw, operator

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "ops" / "checks_triton.py"
has_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run(*arguments, **environment):
    """What a fresh Python says, which must be content."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def table(*options, **environment):
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(TABLE), **environment)


@pytest.mark.slow
@has_triton
def test_kernels_equal_the_reference_in_the_interpreter():
    assert " passed" in table(TRITON_INTERPRET="1")


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@has_triton
def test_kernels_equal_the_reference_in_the_interpreter_at_more_sizes():
    assert " passed" in table("-m", "exhaustive", TRITON_INTERPRET="1")


@pytest.mark.gpu
@has_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_equal_the_reference_on_a_gpu():
    assert " passed" in table("-m", "", TRITON_INTERPRET="0")


@pytest.mark.parametrize("name", gpu.KERNELS)
def test_a_kernel_is_called_only_with_tensors_that_fit(monkeypatch, name):
    """A GPU reads past the end of a tensor without a word, or dies of it."""
    seen = []
    fake = SimpleNamespace(**{gpu.KERNELS[name][1]: lambda *inputs: seen.append(inputs)})
    monkeypatch.setattr(gpu, "import_module", lambda module: fake)
    kinds = [kind for kind in KINDS if name.startswith(operator_name(kind))]
    at, run = Sizes(images=2, queries=3), gpu.kernel(name)
    kind = max(kinds, key=lambda kind: len(operator_name(kind)))
    _, given = operator(kind, at.shapes, *draw(kind, at))
    if name.endswith("_backward"):
        grad = torch.zeros(at.images, at.queries, at.heads * at.width)
        given = [grad, *given, *([True] if kind.endswith("-at") else [])]
    run(*given)
    assert len(seen) == 1
    assert at.shapes in seen[0]
    for index, one in enumerate(given):
        if isinstance(one, bool | None):
            continue
        wrong = [one[0] + 1, *one[1:]] if isinstance(one, list) else one[:, :-1]
        with pytest.raises(LeanDetrError, match="expected"):
            run(*given[:index], wrong, *given[index + 1 :])
    assert len(seen) == 1


def operator_name(kind):
    drawn = draw(kind, Sizes())
    return operator(kind, Sizes().shapes, *drawn)[0]


def test_importing_the_library_leaves_the_kernels_alone():
    code = """
import sys, leandetr
assert "triton" not in sys.modules
import leandetr.ops, leandetr.ops.gpu  # PyTorch's FLOP counter may import Triton, we do not
assert not [name for name in sys.modules if name.startswith("leandetr.ops.triton")]
"""
    run("-c", code)


def test_without_cuda_nothing_is_registered_and_without_triton_it_is_said():
    code = """
import importlib.util, torch
from leandetr.ops import backend, gpu
backend.KERNEL_DEVICES.clear()
torch.version.cuda = None
assert not gpu.register()
assert "cuda" not in backend.KERNEL_DEVICES | set(backend.MISSING)
torch.version.cuda = "13.0"
importlib.util.find_spec = lambda name: None
assert not gpu.register()
assert "cuda" not in backend.KERNEL_DEVICES
assert "pip install triton" in backend.MISSING["cuda"]
"""
    run("-c", code)


def test_with_both_every_operator_gets_its_kernel():
    code = """
import importlib.util, sys, torch
from leandetr.ops import backend, gpu
backend.KERNEL_DEVICES.clear()
torch.version.cuda = "13.0"
importlib.util.find_spec = lambda name: name
assert gpu.register()
assert "cuda" in backend.KERNEL_DEVICES
assert not [name for name in sys.modules if name.startswith("leandetr.ops.triton")]
registered = [
    name for name in gpu.KERNELS
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"leandetr::{name}", "CUDA")
]
assert set(registered) == set(gpu.KERNELS), registered
"""
    run("-c", code)
