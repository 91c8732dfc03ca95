"""Weights files of other repositories, opened without ever running what is in them.

    official = read_checkpoint("checkpoint0011.pth")
    official.state                                # tensors by their official names
    official.args                                 # what the training script was started with

Reads files of `torch.save`, pickles of numpy arrays (detectron2), safetensors, and folders of
transformers, in shards too. Whatever else a file holds is refused in one sentence.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from leandetr.checkpoints.inert import Settings, StoredArray, read_plain_pickle, read_torch_file
from leandetr.errors import CheckpointError

PARTS = ("model", "state_dict", "model_state_dict", "module", "net")
"""Keys under which training scripts keep the weights, in the order in which they are tried."""

AVERAGES = ("ema", "ema_model", "model_ema", "ema_state", "ema_state_dict", "state_dict_ema")
"""Keys under which they keep averaged weights; asked for as `ema`."""

ARGUMENTS = ("args", "hyper_parameters")
"""Keys under which they keep the arguments they were started with."""

WRAPPERS = ("module.", "_orig_mod.")
"""What data-parallel, averaged and compiled models put before every key."""

FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights of a folder of transformers, in the order of preference; `config.json` lies beside."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of `torch.save` before PyTorch 1.6 begin."""

HEADER_BYTES = 1 << 32
"""More than the header of a safetensors file has; its length is what such a file begins with."""

AGAIN = "download or copy it again"


@dataclass(frozen=True)
class Official:
    """What a weights file holds. `notes` say which part was taken and what was left."""

    state: dict[str, Tensor]
    args: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, *, part: str | None = None) -> Official:
    """The tensors of a weights file, by their official names.

    `part` says where in the file they are: `ema` for averaged weights, or the key itself. Without
    it the plain weights are taken, and `notes` name the others. Raises `CheckpointError`, one
    sentence, for anything that is not a weights file or cannot be read.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            path = _inside(path)
        content = _content(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check its path and permissions"
        ) from error
    official = _unwrapped(content, path, part)
    config = path.parent / "config.json"
    if path.name in FOLDER and config.is_file():
        official = replace(official, args=_json(config))
    return official


def _inside(folder: Path) -> Path:
    """The weights file of a folder of transformers."""
    for name in FOLDER:
        if (folder / name).is_file():
            if (folder / "recipe.yaml").is_file():
                raise CheckpointError(
                    f"{folder}: is a LeanDETR model already; use it as it is, by leandetr.load"
                )
            return folder / name
    files = sorted(file.name for file in folder.iterdir() if file.is_file())[:5]
    raise CheckpointError(
        f"{folder}: expected a weights file, or a folder with {FOLDER[0]} or {FOLDER[2]}; "
        f"got a folder with {', '.join(files) or 'no files'}; give the weights file itself"
    )


def _content(path: Path) -> Any:
    """What the file holds, by what it begins with and not by its name."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path}: is empty (0 bytes); {AGAIN}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < HEADER_BYTES:
        return _safetensors(path)
    if head.startswith(LEGACY):
        return _pickled(path, read_torch_file)
    if head.startswith(b"\x80"):
        return _pickled(path, read_plain_pickle)
    if path.name.endswith(".index.json"):
        return _shards(path)
    if text.startswith(b"<"):
        raise CheckpointError(
            f"{path}: is a web page, not weights (a link that is gone, or one that wants a login); "
            "open the link in a browser and save the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: is a git-lfs pointer, not the weights; type: git lfs pull, in its repository"
        )
    raise CheckpointError(
        f"{path}: expected weights (a PyTorch, pickle or safetensors file), "
        f"got a file that begins with {head[:12]!r}; {AGAIN}"
    )


def _zipped(path: Path) -> Any:
    """A file of `torch.save`, after a look at whether it is whole and what kind it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{path}: is cut off or damaged ({error}); {AGAIN}") from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: is a TorchScript program, which holds code; "
            "expected the weights it was made from, saved by torch.save(model.state_dict(), ...)"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: expected weights of PyTorch, got another zip archive")
    if damaged is not None:
        raise CheckpointError(f"{path}: is damaged (at {damaged}); {AGAIN}")
    return _pickled(path, read_torch_file)


def _pickled(path: Path, read: Any) -> Any:
    """What a pickle holds; `read` runs nothing that is in it."""
    try:
        return read(path)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise CheckpointError(f"{path}: is cut off or damaged; {AGAIN}") from error
        raise CheckpointError(
            f"{path}: wants to run code or build an object ('{found.group(1)}'), which weights "
            "never need, and was not opened; ask its authors for a file with tensors only"
        ) from error
    except OSError:
        raise
    except Exception as error:  # bytes out of order raise whatever they like
        reason = " ".join(str(error).split())[:80]
        raise CheckpointError(f"{path}: is cut off or damaged ({reason}); {AGAIN}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: is cut off, damaged or no safetensors file ({error}); {AGAIN}"
        ) from error


def _shards(index: Path) -> dict[str, Tensor]:
    """All tensors of the files that an index names, which lie beside it."""
    table = _json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f'{index}: expected an index of shards with a "weight_map"')
    names = sorted({str(name) for name in table.values()})
    strange = [name for name in names if Path(name).name != name]
    if strange:
        raise CheckpointError(f"{index}: names files outside its folder, such as {strange[0]}")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index}: {len(absent)} of {len(names)} shards are not beside it, "
            f"such as {absent[0]}; download them too"
        )
    state: dict[str, Tensor] = {}
    for name in names:
        state |= _tensors(_content(index.parent / name), index.parent / name)
    lacking = sorted(table.keys() - state.keys())
    if lacking:
        raise CheckpointError(f"{index}: no shard holds {lacking[0]}; {AGAIN}")
    return state


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: expected JSON ({error}); {AGAIN}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {values!r:.40}")
    return values


def _unwrapped(content: Any, path: Path, part: str | None) -> Official:
    """The table of tensors within what a training script saved."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a table of tensors, got {type(content).__name__}; "
            "save model.state_dict()"
        )
    args = next((_plain(content[key]) for key in ARGUMENTS if key in content), {})
    there = [key for key in (*PARTS, *AVERAGES) if isinstance(content.get(key), dict)]
    notes: list[str] = []
    wanted = _wanted(content, part, there, path)
    while wanted is not None:
        others = [key for key in there if key != wanted]
        left = f"; the file also holds {', '.join(others)} (--part)" if others else ""
        notes.append(f"weights taken from '{wanted}'{left}")
        content = content[wanted]
        there = [key for key in PARTS if isinstance(content.get(key), dict)]
        wanted = there[0] if there else None
    state = _tensors(content, path)
    for wrapper in WRAPPERS:
        counted = state.keys() - {"n_averaged"}
        if counted and all(key.startswith(wrapper) for key in counted):
            state = {key.removeprefix(wrapper): state[key] for key in state if key in counted}
            notes.append(f"'{wrapper}' left out before every key")
    return Official(state, args, tuple(notes))


def _wanted(
    content: Mapping[str, Any], part: str | None, there: list[str], path: Path
) -> str | None:
    """The key to descend to; None where the table of tensors is here already."""
    if part is None:
        return there[0] if there else None
    names = AVERAGES if part == "ema" else (part,)
    found = next((name for name in names if isinstance(content.get(name), dict)), None)
    if found is None:
        raise CheckpointError(
            f"{path}: has no part '{part}'; it has {', '.join(there) or 'none'}; "
            "choose one of these with --part, or leave it out"
        )
    return found


def _tensors(table: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The table with numpy arrays made tensors. Raises `CheckpointError` for other values."""
    if not table:
        raise CheckpointError(f"{path}: holds no tensors; is it the right file?")
    state: dict[str, Tensor] = {}
    for key, value in table.items():
        try:
            tensor = value.tensor() if isinstance(value, StoredArray) else value
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: {key} holds {error}; {AGAIN}") from error
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: expected only tensors by name, got {_kind(value)} under {key!r}; "
                f"the keys are {_some(table)}"
            )
        state[key] = tensor
    return state


def _plain(value: Any) -> dict[str, Any]:
    """Arguments as a dictionary, whatever kept them."""
    values = value.values if isinstance(value, Settings) else value
    return dict(values) if isinstance(values, dict) else {}


def _kind(value: Any) -> str:
    return type(value).__name__


def _some(keys: Iterable[Any]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
