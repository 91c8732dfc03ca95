"""What is no weights file is refused in one sentence, and nothing in it is ever run."""

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leandetr.checkpoints.reading import read_checkpoint
from leandetr.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Touch:
    """Writes a file when it is unpickled the usual way."""

    def __init__(self, path: Path, call: Callable = os.system) -> None:
        self.path = path
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call, (f"touch {self.path}",)


class Late:
    """The same by setting the state of an object that files may name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return argparse.Namespace, (), {"lr": Touch(self.path)}


def refused(path: Path, match: str, **options: str) -> str:
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path, **options)
    sentence = str(caught.value)
    assert str(path.parent) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400 + 2 * len(str(path))
    return sentence


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("victim", [Touch, Late])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "plain-protocol-4", "beside-weights"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, form, victim):
    harm = tmp_path / "harm"
    path = tmp_path / "model.pth"
    evil = victim(harm)
    if form.startswith("plain"):
        path.write_bytes(pickle.dumps({"model": evil}, protocol=4 if "4" in form else 2))
    elif form == "beside-weights":
        saved(path, {"model": STATE, "note": evil})
    else:
        saved(path, {"model": evil}, _use_new_zipfile_serialization=form == "zip")
    sentence = refused(path, "wants to run code")
    assert "'posix.system'" in sentence or "'os.system'" in sentence
    assert not harm.exists()
    pickle.loads(pickle.dumps(evil))
    assert harm.exists()


@pytest.mark.parametrize("call", [eval, exec, getattr, print])
def test_no_function_of_python_is_called(tmp_path, call):
    path = written(tmp_path / "model.pkl", pickle.dumps({"model": Touch(tmp_path / "harm", call)}))
    assert f"'builtins.{call.__name__}'" in refused(path, "wants to run code")


def test_stand_ins_themselves_cannot_be_changed(tmp_path):
    """A pickle may try to set attributes of a class it is allowed to name."""
    order = b"\x80\x02cargparse\nNamespace\n}X\x01\x00\x00\x00aK\x01sb."
    refused(written(tmp_path / "model.pkl", order), "cut off or damaged")


def test_a_whole_module_is_refused_with_its_name(tmp_path):
    path = saved(tmp_path / "model.pth", {"model": torch.nn.Linear(2, 2)})
    assert "'torch.nn.modules.linear.Linear'" in refused(path, "build an object")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ".pkl"])
def test_an_empty_file(tmp_path, suffix):
    refused(written(tmp_path / f"model{suffix}", b""), r"is empty \(0 bytes\)")


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>404", b"\n  <html>", b"\xef\xbb\xbf<?xml "]
)
def test_a_web_page_saved_as_weights(tmp_path, page):
    refused(written(tmp_path / "model.pth", page), "is a web page, not weights")


def test_a_git_lfs_pointer(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n"
    refused(written(tmp_path / "model.safetensors", pointer), "git lfs pull")


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08gzip", b"hello world, no weights", b"[1, 2]"])
def test_an_unknown_format(tmp_path, content):
    refused(written(tmp_path / "model.pth", content), "got a file that begins with")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_of_torch(tmp_path, share, legacy):
    path = saved(
        tmp_path / "model.pth", {"model": STATE}, _use_new_zipfile_serialization=not legacy
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "cut off|damaged")


def test_a_truncated_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    whole = path.read_bytes()
    for length in (9, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "cut off, damaged or no safetensors")


def test_a_truncated_plain_pickle(tmp_path):
    whole = pickle.dumps({"model": {"a": np.arange(100.0)}}, protocol=4)
    for length in (2, 10, len(whole) // 2, len(whole) - 1):
        refused(written(tmp_path / "model.pkl", whole[:length]), "cut off or damaged")


def test_a_flipped_bit_in_a_file_of_torch(tmp_path):
    path = saved(tmp_path / "model.pth", {"model": {"a": torch.full((1000,), 7.0)}})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    refused(written(path, bytes(content)), "is damaged")


def test_a_flood_of_bad_bytes_always_ends_in_a_sentence(tmp_path):
    """Any single byte of a plain pickle may be wrong: a sentence, or the file still reads."""
    good = pickle.dumps({"model": {"a": np.arange(3.0)}}, protocol=2)
    reasons = set()
    for place in range(len(good)):
        for value in (0, 0x28, 0x62, 0x80, 0xFF):
            bad = good[:place] + bytes([value]) + good[place + 1 :]
            try:
                read_checkpoint(written(tmp_path / "model.pkl", bad))
            except CheckpointError as error:
                reasons.add(str(error).split(": ", 1)[1].split(" (")[0])
    assert len(reasons) > 3


def test_a_zip_of_something_else(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "another zip archive")


def test_a_torchscript_program(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", "x")
    refused(path, "is a TorchScript program, which holds code")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "nothing.pth", "No such file")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "model.pth", {"model": STATE})

    def forbidden(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", forbidden)
    refused(path, "cannot be read .Permission denied.")


def test_a_folder_without_weights(tmp_path):
    saved(tmp_path / "epoch1.pth", STATE)
    assert "epoch1.pth" in refused(tmp_path, "expected a weights file, or a folder with")


def test_a_folder_of_our_own(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "recipe.yaml").write_text("format: 1\n")
    refused(tmp_path, "is a LeanDETR model already")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "expected a table of tensors, got list"),
        (torch.zeros(2), "expected a table of tensors, got Tensor"),
        ({}, "holds no tensors"),
        ({"model": {}}, "holds no tensors"),
        ({"model": STATE | {"epoch": 3}}, "got int under 'epoch'"),
        ({"best": 0.4, "epoch": 3}, "got float under 'best'"),
        ({"model": {3: torch.zeros(1)}}, "got Tensor under 3"),
    ],
)
def test_values_that_are_no_tensors(tmp_path, content, match):
    refused(saved(tmp_path / "model.pth", content), match)


def test_arrays_that_are_no_numbers(tmp_path):
    texts = {"model": {"a": np.array(["x", "y"])}}
    refused(written(tmp_path / "model.pkl", pickle.dumps(texts)), "no numbers")


def test_a_part_that_is_not_there(tmp_path):
    path = saved(tmp_path / "model.pth", {"model": STATE})
    refused(path, "has no part 'ema'; it has model", part="ema")


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ("{", "expected JSON"),
        ("[]", "begins with|expected a JSON object"),
        ('{"weight_map": {}}', "expected an index of shards"),
        ('{"weight_map": {"a": "../outside.safetensors"}}', "names files outside its folder"),
        ('{"weight_map": {"a": "x.safetensors"}}', "1 of 1 shards are not beside it"),
        ('{"weight_map": {"a": "shard.safetensors"}}', "no shard holds a"),
    ],
)
def test_a_bad_index_of_shards(tmp_path, index, match):
    save_file(STATE, tmp_path / "shard.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    refused(path, match)


def test_a_damaged_config_beside_weights(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps([1]))
    refused(tmp_path, "expected a JSON object")
