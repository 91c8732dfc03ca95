"""Published weights become the preset's detector, or one sentence says what is wrong."""

import zipfile
from dataclasses import replace

import pytest
import torch

import leandetr
from file_server import FileServer, serving
from leandetr.checkpoints import released
from leandetr.checkpoints.convert import export_official
from leandetr.checkpoints.load_official import load_official, unpacked
from leandetr.checkpoints.released import Released
from leandetr.errors import CheckpointError, CheckpointMismatch, NetworkUnavailable, RecipeError
from leandetr.models.backbones import ResNetConfig
from leandetr.recipes import assemble

BACKBONE = ResNetConfig(18, outputs=(3,))


def tiny(preset, **changes):
    """A preset of a paper, small."""
    made = assemble.PRESETS[preset]()
    sizes = {"layers": 1, "hidden": 64}
    return made.with_model(
        backbone=BACKBONE,
        encoder=replace(made.model.encoder, **sizes),
        decoder=replace(made.model.decoder, **sizes),
        queries=replace(made.model.queries, count=7),
        dim=64,
        **changes,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A detector under the name tiny-detr, and the file that its paper would publish."""
    torch.manual_seed(3)
    detector = assemble.build(tiny("detr-r50", classes=91))
    path = tmp_path_factory.mktemp("published") / "tiny.pth"
    export_official(detector, path)
    return detector, path


@pytest.fixture
def server(written, monkeypatch, tmp_path):
    monkeypatch.setenv("LEANDETR_CACHE", str(tmp_path / "cache"))
    dilated = replace(BACKBONE, dilate_last=True)
    for name, made in {
        "tiny-detr": tiny("detr-r50"),
        "tiny-detr-dc5": tiny("detr-r50").with_model(backbone=dilated),
        "tiny-conditional": tiny("conditional-detr-r50"),
        "tiny-wide": tiny("detr-r50").with_model(shared_heads=True, dim=128),
    }.items():
        monkeypatch.setitem(assemble.PRESETS, name, lambda made=made: made)
    with serving(FileServer(written[1].read_bytes(), "tiny.pth")) as running:
        entry = Released(running.url, "https://paper.example", 12.3)
        monkeypatch.setitem(released.RELEASED, "tiny-detr", entry)
        yield running


def test_published_weights_are_fetched_once_and_loaded(server, written):
    for _ in range(2):
        detector = load_official("tiny-detr")
    assert len(server.asked) == 1
    assert detector.recipe.name == "tiny-detr"
    assert not detector.training
    assert len(detector.names) == 80
    before, after = written[0].state_dict(), detector.state_dict()
    same = [key for key in before if before[key].shape == after[key].shape]
    assert len(before) - len(same) == 2  # the rows of ids without a name are cut off
    assert all(torch.equal(before[key], after[key]) for key in same)


def test_a_file_may_be_given_instead(server, written):
    assert load_official("tiny-detr", written[1]).recipe.name == "tiny-detr"
    assert load_official("tiny-detr", str(written[1])).recipe.model.classes == 80
    assert server.asked == []


def test_what_keys_do_not_tell_is_taken_from_the_preset(server, written):
    assert load_official("tiny-detr-dc5", written[1]).recipe.model.backbone.dilate_last
    assert not load_official("tiny-detr", written[1]).recipe.model.backbone.dilate_last


def test_another_model_is_refused_in_words(server, written):
    with pytest.raises(CheckpointMismatch) as caught:
        load_official("tiny-wide", written[1])
    message = str(caught.value)
    assert f"{written[1]} does not hold tiny-wide: dim is 64 there, 128 in the preset" in message
    assert f"type: leandetr convert {written[1]} --out FOLDER" in message
    with pytest.raises(
        CheckpointMismatch, match=r"not hold tiny-conditional: .*type is detr there"
    ):
        load_official("tiny-conditional", written[1])
    with pytest.raises(
        CheckpointMismatch, match=r"does not hold lite-dino-r50-h3l1-2p1x3: no sett"
    ):
        load_official("lite-dino-r50-h3l1-2p1x3", written[1])


def test_settings_that_published_weights_are_known_to_have_are_taken(server, written, monkeypatch):
    other = replace(released.RELEASED["tiny-detr"], differs=("encoder.heads",))
    preset = tiny("detr-r50")
    preset = preset.with_model(encoder=replace(preset.model.encoder, heads=4))
    monkeypatch.setitem(assemble.PRESETS, "tiny-heads", lambda: preset)
    with pytest.raises(CheckpointMismatch, match=r"encoder\.heads is 8 there, 4 in the preset"):
        load_official("tiny-heads", written[1])
    monkeypatch.setitem(released.RELEASED, "tiny-heads", other)
    assert load_official("tiny-heads", written[1]).recipe.model.encoder.heads == 8


def test_without_network_the_file_and_the_argument_are_named(server, monkeypatch, tmp_path):
    gone = replace(released.RELEASED["tiny-detr"], url="http://127.0.0.1:9/tiny.pth")
    monkeypatch.setitem(released.RELEASED, "tiny-detr", gone)
    with pytest.raises(NetworkUnavailable) as caught:
        load_official("tiny-detr")
    message = str(caught.value)
    assert "fetch http://127.0.0.1:9/tiny.pth by hand" in message
    assert f"put it at {tmp_path / 'cache' / 'tiny.pth'}, or give its path: " in message
    assert message.endswith("leandetr.load_official('tiny-detr', 'FILE')")


def test_a_file_that_is_gone_names_the_page(server):
    server.status = 404
    with pytest.raises(NetworkUnavailable, match=r"HTTP 404.*tiny.pth at https://paper.example"):
        load_official("tiny-detr")


def test_unpublished_and_unknown_names_say_what_to_do(server):
    with pytest.raises(CheckpointError, match=r"nobody has published weights of dino-nano .*train"):
        load_official("dino-nano")
    with pytest.raises(RecipeError, match="did you mean tiny-detr"):
        load_official("tiny-det")


def test_a_missing_file_is_named(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        load_official("tiny-detr", tmp_path / "none.pth")


def archive(path, *names, content=b"-"):
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, content)
    return path


def test_a_checkpoint_in_an_archive_is_unpacked(server, written, tmp_path):
    content = written[1].read_bytes()
    path = archive(tmp_path / "tiny_v3.zip", "x/tiny.pth", "__MACOSX/._tiny.pth", content=content)
    assert load_official("tiny-detr", path).recipe.name == "tiny-detr"
    assert unpacked(path) == tmp_path / "cache" / "tiny_v3.pth"
    assert unpacked(path).read_bytes() == content


def test_other_archives_are_refused(server, tmp_path):
    with pytest.raises(CheckpointError, match="one checkpoint in it, got 2; unpack it and give"):
        unpacked(archive(tmp_path / "two.zip", "a.pth", "b.pth"))
    with pytest.raises(CheckpointError, match="one checkpoint in it, got 0"):
        unpacked(archive(tmp_path / "none.zip", "readme.txt"))
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"broken\.zip cannot be unpacked"):
        unpacked(tmp_path / "broken.zip")
    with pytest.raises(CheckpointError, match=r"nowhere\.zip cannot be unpacked"):
        unpacked(tmp_path / "nowhere.zip")


def test_the_public_name_is_the_same_function():
    assert leandetr.load_official is load_official
