"""The names people type are a promise: changing this file is changing the promise."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import leandetr

NAMES = [
    "CocoScores",
    "Detections",
    "Detector",
    "LeanDetrError",
    "__version__",
    "create_model",
    "draw",
    "evaluate",
    "list_models",
    "load",
    "load_official",
    "profile",
    "publish",
    "recipe",
    "save",
    "shipped_models",
    "train",
]
VERBS = [
    *("compare", "convert", "doctor", "evaluate", "list", "predict", "profile", "publish"),
    *("runs", "scenes", "show", "tables", "train"),
]
ROOT = Path(__file__).resolve().parent.parent


def test_public_names_are_these() -> None:
    assert sorted(leandetr.__all__) == NAMES
    assert set(NAMES) <= set(dir(leandetr))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_can_be_imported(name: str) -> None:
    value = getattr(leandetr, name)
    assert isinstance(value, str) or value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        leandetr.trian  # noqa: B018


def test_verbs_are_these() -> None:
    from leandetr.cli import app

    assert sorted(command.name or "" for command in app.registered_commands) == VERBS


def test_the_version_is_the_package_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert leandetr.__version__ == project["version"]


def test_the_package_and_the_command_line_start_without_torch() -> None:
    code = (
        "import sys, leandetr, leandetr.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
