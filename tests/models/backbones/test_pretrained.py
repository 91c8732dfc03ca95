import hashlib
import io
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch

from file_server import FileServer, serving
from leandetr.errors import CheckpointError, CheckpointMismatch, NetworkUnavailable, RecipeError
from leandetr.models.backbones import NanoResNetConfig, ResNetConfig, SwinConfig, load_pretrained
from leandetr.models.backbones.pretrained import KNOWN, check_known
from leandetr.models.backbones.swin import Swin

RESNET = ("resnet18", "imagenet")
CONFIG = ResNetConfig(18, outputs=(0,), weights="imagenet")  # few stages: tests stay quick


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no way to the network but to this machine."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LEANDETR_CACHE", str(folder))
    opened = urllib.request.urlopen

    def here(request, timeout):
        if request.host.startswith("127.0.0.1"):
            return opened(request, timeout=timeout)
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", here)
    return folder


@pytest.fixture
def published(monkeypatch):
    """Publish a state dict as the file of some weights: `published(key, content) -> its server`."""
    with ExitStack() as servers:

        def publish(key, content, sha256="right"):
            if not isinstance(content, bytes):
                file = io.BytesIO()
                torch.save(content, file)
                content = file.getvalue()
            if sha256 == "right":
                sha256 = hashlib.sha256(content).hexdigest()[:8]
            server = servers.enter_context(serving(FileServer(content, KNOWN[key].filename)))
            changed = replace(KNOWN[key], url=server.url, sha256=sha256)
            monkeypatch.setitem(KNOWN, key, changed)
            return server

        yield publish


def kept(cache):
    """Names of what lies in the cache, but for locks."""
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


def classifier(outputs=(0,)):
    """A state dict like torchvision's: a ResNet-18, here with few stages, and a class head."""
    state = ResNetConfig(18, outputs=outputs, norm="batch", frozen_stages=0).build().state_dict()
    state = {key: torch.rand_like(value.float()) for key, value in state.items()}
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_every_tensor_is_loaded_and_the_class_head_dropped(published, cache, norm):
    state = classifier(outputs=(3,))
    published(RESNET, state)
    config = replace(CONFIG, outputs=(3,), norm=norm)
    backbone = config.build()
    said = load_pretrained(backbone, config)
    assert said == "ImageNet-1k weights resnet18-f37072fd.pth"
    for key, value in backbone.state_dict().items():
        assert torch.equal(value.float(), state[key].to(value.dtype).float()), key
    assert kept(cache) == ["resnet18-f37072fd.pth"]


def test_old_files_without_batch_counts_fit_a_trained_norm(published):
    state = {k: v for k, v in classifier().items() if "num_batches_tracked" not in k}
    published(RESNET, state)
    config = replace(CONFIG, norm="batch", frozen_stages=0)
    assert load_pretrained(config.build(), config)


def test_the_second_time_comes_from_the_cache(published):
    server = published(RESNET, classifier())
    load_pretrained(CONFIG.build(), CONFIG)
    load_pretrained(CONFIG.build(), CONFIG)
    assert len(server.asked) == 1


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
    assert kept(cache) == []


def test_a_file_put_there_by_hand_is_used(published, cache):
    server = published(RESNET, classifier())
    cache.mkdir()
    (cache / server.name).write_bytes(server.content)
    assert load_pretrained(CONFIG.build(), CONFIG)
    assert server.asked == []


def test_a_file_with_another_hash_is_refused(published, cache):
    published(RESNET, classifier(), sha256="f37072fd")
    with pytest.raises(CheckpointError, match=r"sha256 begins with .{8}, expected f37072fd"):
        load_pretrained(CONFIG.build(), CONFIG)
    assert kept(cache) == []


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_weights_file_is_named(published, cache, content):
    published(RESNET, content)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd.pth is not a weights file"):
        load_pretrained(CONFIG.build(), CONFIG)


def test_objects_in_a_weights_file_are_never_made(published):
    published(RESNET, {"fc.weight": io.BytesIO})
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


def test_torchvision_names_carry_the_hash():
    for (architecture, _), weights in KNOWN.items():
        if architecture.startswith("resnet"):
            assert weights.filename == f"{architecture}-{weights.sha256}.pth"


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_every_resnet_has_weights_by_name(depth):
    assert KNOWN[ResNetConfig(depth, weights="imagenet").architecture, "imagenet"].url.startswith(
        f"https://download.pytorch.org/models/resnet{depth}-"
    )


@pytest.mark.parametrize(
    ("variant", "window", "weights"),
    [
        ("tiny", 7, "imagenet"),
        ("tiny", 7, "imagenet-22k"),
        ("small", 7, "imagenet"),
        ("small", 7, "imagenet-22k"),
        ("base", 7, "imagenet"),
        ("base", 12, "imagenet"),
        ("base", 7, "imagenet-22k"),
        ("base", 12, "imagenet-22k"),
        ("large", 7, "imagenet-22k"),
        ("large", 12, "imagenet-22k"),
    ],
)
def test_every_swin_has_weights_by_name(variant, window, weights):
    config = SwinConfig(variant, window=window, weights=weights)
    name = KNOWN[config.architecture, weights].filename
    assert name.startswith(f"swin_{variant}_patch4_window{window}_")
    assert ("22k" in name) == (weights == "imagenet-22k")
