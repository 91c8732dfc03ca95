import hashlib
import io
import urllib.request
from dataclasses import replace

import pytest
import torch

from leandetr.errors import CheckpointError, CheckpointMismatch, NetworkUnavailable, RecipeError
from leandetr.models.backbones import NanoResNetConfig, ResNetConfig, SwinConfig, load_pretrained
from leandetr.models.backbones.pretrained import KNOWN, cache_folder, check_known, fetch
from leandetr.models.backbones.swin import Swin

RESNET = ("resnet18", "imagenet")
CONFIG = ResNetConfig(18, outputs=(0,), weights="imagenet")  # few stages: tests stay quick


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no way to the network."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LEANDETR_CACHE", str(folder))
    opener = urllib.request.build_opener(urllib.request.FileHandler)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: opener.open(url))
    return folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish a state dict as the file of some weights: `published(key, content) -> its path`."""

    def publish(key, content, sha256="right"):
        path = tmp_path / "server" / KNOWN[key].filename
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path)
        if sha256 == "right":
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        monkeypatch.setitem(KNOWN, key, replace(KNOWN[key], url=path.as_uri(), sha256=sha256))
        return path

    return publish


def classifier(outputs=(0,)):
    """A state dict like torchvision's: a ResNet-18, here with few stages, and a class head."""
    state = ResNetConfig(18, outputs=outputs, norm="batch", frozen_stages=0).build().state_dict()
    state = {key: torch.rand_like(value.float()) for key, value in state.items()}
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_every_tensor_is_loaded_and_the_class_head_dropped(published, cache, norm):
    state = classifier(outputs=(3,))
    path = published(RESNET, state)
    config = replace(CONFIG, outputs=(3,), norm=norm)
    backbone = config.build()
    said = load_pretrained(backbone, config)
    assert said == "ImageNet-1k weights resnet18-f37072fd.pth"
    for key, value in backbone.state_dict().items():
        assert torch.equal(value.float(), state[key].to(value.dtype).float()), key
    assert [file.name for file in cache.iterdir()] == [path.name]


def test_old_files_without_batch_counts_fit_a_trained_norm(published):
    state = {k: v for k, v in classifier().items() if "num_batches_tracked" not in k}
    published(RESNET, state)
    config = replace(CONFIG, norm="batch", frozen_stages=0)
    assert load_pretrained(config.build(), config)


def test_the_second_time_comes_from_the_cache(published):
    path = published(RESNET, classifier())
    load_pretrained(CONFIG.build(), CONFIG)
    path.unlink()
    load_pretrained(CONFIG.build(), CONFIG)


def test_stages_that_are_not_built_stay_in_the_file(published):
    published(RESNET, classifier(outputs=(2,)))
    assert load_pretrained(CONFIG.build(), CONFIG)


def test_swin_weights_lie_under_model_and_leave_the_output_norms(published):
    key = ("swin-tiny-w7", "imagenet")
    arguments = {"heads": (2, 4, 8), "window": 3, "drop_path": 0.0}
    whole = Swin(8, (2, 2, 2), outputs=(2,), **arguments).state_dict()
    extra = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 9, 9), "norm.weight": torch.zeros(32)}
    head = {"head.weight": torch.zeros(10, 32)}
    file = {name: value for name, value in whole.items() if not name.startswith("norm")}
    published(key, {"model": {**file, **extra, **head}}, sha256=None)
    backbone = Swin(8, (2, 2, 2), outputs=(0, 1), **arguments)
    said = load_pretrained(backbone, SwinConfig(weights="imagenet"))
    assert said == "ImageNet-1k weights swin_tiny_patch4_window7_224.pth"
    state = backbone.state_dict()
    assert all(torch.equal(state[name], whole[name]) for name in state if name in file)
    assert (state["norm1.weight"] == 1).all()


def test_without_weights_nothing_is_fetched(cache):
    assert load_pretrained(ResNetConfig(18).build(), ResNetConfig(18)) == "no pretrained weights"
    nano = NanoResNetConfig(widths=(8, 8, 8, 8))
    assert load_pretrained(nano.build(), nano) == "no pretrained weights"
    assert not cache.exists()


def test_without_network_one_sentence_names_url_and_place(cache):
    with pytest.raises(NetworkUnavailable) as caught:
        load_pretrained(CONFIG.build(), CONFIG)
    message = str(caught.value)
    assert "fetch https://download.pytorch.org/models/resnet18-f37072fd.pth by hand" in message
    assert str(cache / "resnet18-f37072fd.pth") in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_a_file_put_there_by_hand_is_used(published, cache):
    path = published(RESNET, classifier())
    cache.mkdir()
    (cache / path.name).write_bytes(path.read_bytes())
    path.unlink()
    assert load_pretrained(CONFIG.build(), CONFIG)


def test_a_wrong_download_is_not_kept(published, cache):
    published(RESNET, classifier(), sha256="f37072fd")
    with pytest.raises(CheckpointError, match=r"sha256 begins with .{8}, expected f37072fd"):
        fetch(KNOWN[RESNET])
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named(cache):
    cache.mkdir()
    (cache / "resnet18-f37072fd.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd.pth is damaged.*delete it"):
        fetch(KNOWN[RESNET])


class Answer(io.BytesIO):
    """What a server sends, less than it promised."""

    headers = {"Content-Length": "100"}  # noqa: RUF012


class Timeout(Answer):
    def read(self, *_):
        raise TimeoutError("timed out")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(b"x" * 60), "broke off after 60 of 100 bytes; try again, or fetch https"),
        (Timeout(), "cannot download the weights .timed out.; fetch https"),
    ],
)
def test_a_download_that_breaks_off_leaves_nothing(cache, monkeypatch, answer, message):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: answer)
    with pytest.raises(NetworkUnavailable, match=message):
        fetch(KNOWN[RESNET])
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(cache, monkeypatch):
    class Stopped(Answer):
        def read(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Stopped())
    with pytest.raises(KeyboardInterrupt):
        fetch(KNOWN[RESNET])
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_weights_file_is_named(published, cache, content):
    path = published(RESNET, {})
    path.write_bytes(content)
    KNOWN[RESNET] = replace(KNOWN[RESNET], sha256=None)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd.pth is not a weights file"):
        load_pretrained(CONFIG.build(), CONFIG)


def test_objects_in_a_weights_file_are_never_made(published):
    published(RESNET, {"fc.weight": Answer})
    with pytest.raises(CheckpointError, match="is not a weights file"):
        load_pretrained(CONFIG.build(), CONFIG)


def test_a_file_without_the_table_is_named(published):
    published(("swin-tiny-w7", "imagenet"), {"state": {}}, sha256=None)
    config = SwinConfig(weights="imagenet")
    with pytest.raises(CheckpointError, match="expected a table of tensors under 'model'"):
        load_pretrained(config.build(), config)


def test_weights_that_do_not_fit_list_both_sides(published):
    state = classifier()
    del state["layer1.0.conv1.weight"]
    state["bn1.weight"] = torch.zeros(3)
    published(RESNET, {**state, "surprise": torch.zeros(1)})
    with pytest.raises(CheckpointMismatch) as caught:
        load_pretrained(CONFIG.build(), CONFIG)
    message = str(caught.value)
    assert "not in the backbone: surprise;" in message
    assert "not in the file: layer1.0.conv1.weight;" in message
    assert "of another shape: bn1.weight;" in message


def test_unknown_weights_list_the_known():
    with pytest.raises(RecipeError, match="type one of: imagenet, imagenet-22k, null"):
        check_known("swin-base-w12", "coco")


def test_the_cache_lies_in_the_home_folder_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("LEANDETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "leandetr"


def test_torchvision_names_carry_the_hash():
    for (architecture, _), weights in KNOWN.items():
        if architecture.startswith("resnet"):
            assert weights.filename == f"{architecture}-{weights.sha256}.pth"
