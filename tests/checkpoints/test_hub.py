"""`hf:owner/name` loads from a stand-in of the hub that runs on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hub_server import HubServer, serving
from leandetr.checkpoints import hub
from leandetr.checkpoints.store import find, load, recipe_of, save
from leandetr.cli import app
from leandetr.cli_training import _recipe_or_model
from leandetr.errors import CheckpointError, MissingExtra, NetworkUnavailable
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
TINY = ("dim=32", "queries.count=12", "top=12")


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(2)
    model = create_model("dino-nano", num_classes=2, overrides=TINY)
    model.names, model.category_ids = ("red", "blue"), (1, 2)
    return model


@pytest.fixture(scope="module")
def files(model: Detector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    save(model, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    repositories = {
        "me/cells": {"main": files | {"README.md": b"# cells"}, "v1": files},
        "me/other": {"main": {"config.json": b"{}", "model.safetensors": b"", "more.bin": b"-"}},
        "me/empty": {"main": {"picture.png": b"-"}},
    }
    running = HubServer(repositories, gated={"me/gated"})
    with serving(running):
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        huggingface_hub.close_session()
        yield running
    huggingface_hub.close_session()


@pytest.mark.parametrize("name", ["hf:me/cells", "hf:me/cells@v1"])
def test_a_model_loads_from_the_hub(server, model, name):
    again = load(name)
    assert again.names == model.names
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert recipe_of(name) == model.recipe
    fetched = {path.name for path in find(name).iterdir()}
    assert fetched == {"labels.json", "model.safetensors", "recipe.yaml"}


def test_the_real_variable_leads_to_another_hub(server, tmp_path):
    code = "import leandetr; print(leandetr.load('hf:me/cells').names)"
    variables = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_me"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "('red', 'blue')\n"


def test_the_command_line_takes_the_name_for_a_model(server):
    shown = CliRunner().invoke(app, ["show", "hf:me/cells"])
    assert shown.exit_code == 0
    assert "name: dino-nano" in shown.stdout
    assert isinstance(_recipe_or_model("hf:me/cells"), Detector)  # what `train` starts from


def test_the_cache_works_without_network(server, monkeypatch):
    before = load("hf:me/cells")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    count = len(server.asked)
    again = load("hf:me/cells")
    assert again.recipe == before.recipe
    assert len(server.asked) == count
    with pytest.raises(NetworkUnavailable) as caught:
        load("hf:me/cells@v1")
    message = str(caught.value)
    assert message.startswith("cannot reach hf:me/cells@v1 (")
    assert "fetch model.safetensors, recipe.yaml, labels.json by hand into a folder" in message
    assert message.endswith("from https://huggingface.co/me/cells/tree/v1")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:me/nothing", "there is no model me/nothing on the Hugging Face hub, or it is private"),
        ("hf:me/cells@v9", "me/cells has no revision 'v9'; leave out @v9 for the newest"),
        ("hf:me/gated", "hf:me/gated asks for permission; accept its terms at https://hugg"),
        ("hf:me/other", "hf:me/other is not a LeanDETR model: it has no recipe.yaml, labels.json;"),
        ("hf:me/empty", "it has no model.safetensors, recipe.yaml, labels.json; if it is of"),
        ("hf:cells", "expected hf:owner/name or hf:owner/name@revision, got 'hf:cells'"),
        ("hf:a/b/c", "expected hf:owner/name"),
        ("hf:../b", "hf:../b cannot be a name on the hub (Repo id must use alphanumeric chars,"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(server, name, says):
    with pytest.raises(CheckpointError) as caught:
        load(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_network_the_files_are_named(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkUnavailable, match=r"cannot reach hf:me/cells .*by hand into a fold"):
        load("hf:me/cells")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"hub needs huggingface-hub.*leandetr\[hub\]"):
        load("hf:me/cells")


def test_a_reference_is_written_as_it_is_read():
    for text in ("hf:me/cells", "hf:me/cells@refs/pr/1"):
        assert hub.is_reference(text)
        assert str(hub.parse(text)) == text
    assert not hub.is_reference(Path("runs/cells"))
