"""Who may import whom, how long things may be, and what `import leandetr` may load."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "accelerate",
    "cv2",
    "faster_coco_eval",
    "huggingface_hub",
    "matplotlib",
    "pycocotools",
    "rich",
    "scipy",
    "supervision",
    "tensorboard",
    "timm",
    "torchvision",
    "transformers",
    "typer",
)


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "tools" / "check_house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_go_down_only():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; lint_imports()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_functions_and_constructors_are_short(house):
    assert list(house.sizes()) == []


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, leandetr; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(set(HEAVY) & set(done.stdout.split())) == []


def test_every_extra_a_message_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"raise MissingExtra\([^)]*\"(\w+)\"\s*\)", path.read_text())
    }
    assert named <= set(extras["optional-dependencies"])
