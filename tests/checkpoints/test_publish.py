"""Publishing hands a whole model folder and a card to the hub's own client, here a stand-in."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

import leandetr
from leandetr.checkpoints import hub
from leandetr.checkpoints.publish import card, publish
from leandetr.checkpoints.store import load, save
from leandetr.cli import app
from leandetr.errors import CheckpointError, MissingExtra, NetworkUnavailable
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
TINY = ("dim=32", "queries.count=12", "top=12")


@pytest.fixture(scope="module")
def model() -> Detector:
    model = create_model("dino-nano", num_classes=2, overrides=TINY)
    model.names, model.category_ids = ("red", "weiß 白"), (1, 2)
    return model


@pytest.fixture
def api(monkeypatch):
    """What is called of the hub's client; `fails` is raised by the upload."""
    calls = SimpleNamespace(created=None, uploaded=None, files={}, has_card=False, fails=None)

    class HfApi:
        def __init__(self, *, library_name):
            assert library_name == "leandetr"

        def create_repo(self, repo_id, *, private, exist_ok):
            calls.created = (repo_id, private, exist_ok)
            if calls.fails is not None:
                raise calls.fails
            return f"https://huggingface.co/{repo_id}"

        def file_exists(self, repo_id, name):
            assert name == "README.md"
            return calls.has_card

        def upload_folder(self, *, repo_id, folder_path, commit_message, ignore_patterns):
            calls.uploaded = (repo_id, commit_message)
            calls.files = {
                path.name: path.read_bytes()
                for path in Path(folder_path).iterdir()
                if path.name not in ignore_patterns
            }

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    return calls


def test_a_detector_is_published_whole(api, model, tmp_path):
    address = publish(model, "hf:me/cells", private=True, message="first")
    assert address == "https://huggingface.co/me/cells"
    assert api.created == ("me/cells", True, True)
    assert api.uploaded == ("me/cells", "first")
    assert sorted(api.files) == ["README.md", "labels.json", "model.safetensors", "recipe.yaml"]
    for name, content in api.files.items():
        (tmp_path / name).write_bytes(content)
    assert load(tmp_path).names == model.names


def test_a_folder_is_published_and_the_card_of_its_owner_kept(api, model, tmp_path):
    save(model, tmp_path / "run" / "best")
    api.has_card = True
    publish(tmp_path / "run", "hf:me/cells")
    assert sorted(api.files) == ["labels.json", "model.safetensors", "recipe.yaml"]


def test_the_card_says_what_it_is_and_how_to_load_it(model):
    text = card(model, hub.parse("hf:me/cells"))
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "leandetr"
    assert head["pipeline_tag"] == "object-detection"
    assert "# cells\n" in text
    assert 'model = leandetr.load("hf:me/cells")' in text
    assert "recipe `dino-nano`" in text
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"{millions:.1f} million parameters" in text
    assert "red, weiß 白\n" in text


def test_a_card_counts_what_it_does_not_list():
    model = create_model("dino-nano", num_classes=150, overrides=TINY)
    reference = hub.parse("hf:me/cells")
    assert "150 classes without names." in card(model, reference)
    model.names = tuple(f"class {k}" for k in range(150))
    assert "class 99, and 50 more" in card(model, reference)


def refusal(status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return errors.HfHubHTTPError("no\nmore", response=response)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (refusal(403), CheckpointError, "you may not do this with me/cells; log in with a token"),
        (refusal(401), CheckpointError, "hf auth login"),
        (
            errors.LocalTokenNotFoundError("no token"),
            CheckpointError,
            "log in with a token that may",
        ),
        (refusal(500), NetworkUnavailable, "cannot reach hf:me/cells (no); upload the files of"),
        (ConnectionError("no route"), NetworkUnavailable, "(no route); upload the files of"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(api, model, error, kind, says):
    api.fails = error
    with pytest.raises(kind) as caught:
        publish(model, "hf:me/cells")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "says"),
    [("me/cells", "expected hf:owner/name"), ("hf:me/cells@v1", "type hf:me/cells")],
)
def test_only_a_repository_can_be_published_to(api, model, target, says):
    with pytest.raises(CheckpointError, match=says):
        publish(model, target)
    assert api.created is None


def test_without_the_library_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"leandetr\[hub\]"):
        publish(model, "hf:me/cells")


def test_the_public_name_is_the_same_function():
    assert leandetr.publish is publish


def test_the_verb_refuses_what_is_no_repository(tmp_path):
    result = CliRunner().invoke(app, ["publish", str(tmp_path), "me/cells"])
    assert result.exit_code == 2
    assert "hf:" in result.output
