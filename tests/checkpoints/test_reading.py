"""Weights files of every form give the same tensors back."""

import argparse
import collections
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leandetr.checkpoints.reading import Official, read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -2.0])}
OTHER = {key: tensor + 1 for key, tensor in STATE.items()}


def same(official: Official, state: dict[str, torch.Tensor] = STATE) -> bool:
    return list(official.state) == list(state) and all(
        torch.equal(official.state[key], tensor) for key, tensor in state.items()
    )


def read(path: Path, content: object, *, part: str | None = None, **options: object) -> Official:
    torch.save(content, path, **options)
    return read_checkpoint(path, part=part)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE},
        {"state_dict": STATE, "epoch": 3, "best": 0.5},
        {"model": collections.OrderedDict(STATE), "optimizer": {"state": {0: torch.ones(1)}}},
        {"model": {f"module.{key}": tensor for key, tensor in STATE.items()}},
        {"model": {f"module._orig_mod.{key}": tensor for key, tensor in STATE.items()}},
        {"model": {key: torch.nn.Parameter(tensor) for key, tensor in STATE.items()}},
    ],
)
def test_files_of_torch(tmp_path, content, legacy):
    official = read(tmp_path / "x.pth", content, _use_new_zipfile_serialization=not legacy)
    assert same(official)


def test_arguments_come_along(tmp_path):
    args = argparse.Namespace(nheads=8, lr=1e-4, backbone="resnet50", output_dir=Path("runs"))
    official = read(tmp_path / "x.pth", {"model": STATE, "args": args})
    assert (official.args["nheads"], official.args["backbone"]) == (8, "resnet50")
    assert read(tmp_path / "x.pth", {"model": STATE, "args": {"nheads": 4}}).args == {"nheads": 4}
    assert read(tmp_path / "x.pth", {"model": STATE}).args == {}


def test_plain_weights_are_preferred_and_the_average_can_be_asked_for(tmp_path):
    path = tmp_path / "x.pth"
    content = {"ema_model": OTHER, "model": STATE}
    official = read(path, content)
    assert same(official)
    assert official.notes == ("weights taken from 'model'; the file also holds ema_model (--part)",)
    assert same(read(path, content, part="ema"), OTHER)
    assert same(read(path, content, part="ema_model"), OTHER)
    assert same(
        read(path, {"ema": {"module": OTHER, "updates": 3}, "model": STATE}, part="ema"), OTHER
    )
    assert same(read(path, {"ema_state_dict": OTHER}), OTHER)


def test_averaged_models_of_torch_lose_their_counter(tmp_path):
    averaged = {"n_averaged": torch.tensor(3)} | {f"module.{k}": t for k, t in STATE.items()}
    assert same(read(tmp_path / "x.pth", {"model": averaged}))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays(tmp_path, protocol):
    arrays = {key: tensor.numpy() for key, tensor in STATE.items()}
    path = tmp_path / "model_final.pkl"
    if protocol < 2:
        protocol = pickle.HIGHEST_PROTOCOL
        arrays["a.weight"] = np.asfortranarray(arrays["a.weight"])
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "them"}, protocol=protocol))
    assert same(read_checkpoint(path))


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "<i8", "|u1", "|b1"])
def test_arrays_of_every_kind_of_number(tmp_path, kind):
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype=kind)
    path = tmp_path / "model.pkl"
    for content in (array, np.asfortranarray(array), array[:, :2].copy()):
        path.write_bytes(pickle.dumps({"a": content}, protocol=2))
        tensor = read_checkpoint(path).state["a"]
        assert torch.equal(tensor, torch.from_numpy(content.astype(array.dtype.newbyteorder("="))))
    path.write_bytes(pickle.dumps({"a": np.ones((), kind)}, protocol=4))
    assert read_checkpoint(path).state["a"].shape == ()


def test_arrays_within_files_of_torch(tmp_path):
    arrays = {key: tensor.numpy() for key, tensor in STATE.items()}
    official = read(tmp_path / "x.pth", {"model": arrays, "best": np.float64(0.5)})
    assert same(official)


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert same(
        Official(
            dict(sorted(read_checkpoint(tmp_path / "x.safetensors").state.items(), reverse=True))
        )
    )


def test_folders_of_transformers_bring_their_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr"}))
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    official = read_checkpoint(tmp_path)
    assert same(official)
    assert official.args == {"model_type": "detr"}
    save_file(OTHER, tmp_path / "model.safetensors")  # preferred
    assert torch.equal(read_checkpoint(tmp_path).state["a.bias"], OTHER["a.bias"])


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_shards(tmp_path, form):
    table = {}
    for number, (key, tensor) in enumerate(STATE.items()):
        name = f"part-{number}.{form}"
        table[key] = name
        (save_file if form == "safetensors" else torch.save)({key: tensor}, tmp_path / name)
    index = ("model.safetensors" if form == "safetensors" else "pytorch_model.bin") + ".index.json"
    (tmp_path / index).write_text(json.dumps({"weight_map": table}, indent=1))
    assert same(read_checkpoint(tmp_path))
    assert same(read_checkpoint(tmp_path / index))
