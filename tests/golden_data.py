"""Numbers of the official implementations: where they lie, how their weights and images come back.

The full set is looked for in `LEANDETR_GOLDEN`, then in `shared/golden` beside the repository; a
small subset is part of the repository (`tests/golden`, whose README tells where they come from).
"""

import importlib.util
import json
import os
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from leandetr.types import Images

HERE = Path(__file__).parent
SUBSET = HERE / "golden"
PICTURES = "images/"
"""Not cases but the pictures that cases name."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

loaded: set[str] = set()
"""Names of all cases that the running test loaded; conftest notes which test loaded what."""
opened: list[str] = []
"""The same in the order in which they were loaded first: the first is what the test is about."""


def golden_root() -> Path:
    """The full set if there is one, else the subset of the repository."""
    named = os.environ.get("LEANDETR_GOLDEN")
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"LEANDETR_GOLDEN={named} is not a folder")
        return Path(named)
    beside = HERE.parent.parent / "shared" / "golden"
    return beside if beside.is_dir() else SUBSET


def is_full() -> bool:
    """Whether the full set is in use."""
    return golden_root() != SUBSET


def cases(*patterns: str) -> list[str]:
    """Names of the matching cases, e.g. `cases("lite_detr/kda_*")`, sorted, to parametrise with."""
    root = golden_root()
    found = {path for pattern in patterns for path in root.glob(f"{pattern}.json")}
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in found)
    return [name for name in names if not name.startswith(PICTURES)]


@dataclass(frozen=True)
class Case:
    """One golden case: `meta` is its json, `tensors` its arrays (empty where it has none)."""

    name: str
    root: Path
    meta: dict[str, Any]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor by name."""
        path = self.root / f"{self.name}.safetensors"
        return load_file(path) if path.exists() else {}

    def weights(self) -> dict[str, Tensor]:
        """The official state dict, made again from keys, shapes and seed; its crc is checked."""
        meta = self.meta
        arrays = rules().fill(
            meta["key_shapes"], meta["seed"], meta.get("tied"), meta.get("seed_overrides")
        )
        if "weights_crc32" in meta:
            crc = 0
            for key in sorted(arrays):
                crc = zlib.crc32(arrays[key].tobytes(), crc)
            expected = int(meta["weights_crc32"])
            assert crc == expected, f"{self.name}: crc32 of the weights is {crc}, not {expected}"
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    def images(self) -> "Images":
        """The input batch of a full-model case: normalised, padded at the right and bottom."""
        batch = _batch(self._pictures())
        if "input_head" in self.tensors:
            head = self.tensors["input_head"]
            corner = batch.pixels[:, :, : head.shape[2], : head.shape[3]]
            assert torch.equal(corner, head), f"{self.name}: the images came back differently"
        return batch

    def _pictures(self) -> list[Tensor]:
        source = self.meta["images"]
        if isinstance(source, str):
            return _stored(self.root, source)
        return [
            torch.from_numpy(rules().image(one["height"], one["width"], one["seed"]))
            for one in source
        ]


def load_case(name: str) -> Case:
    """The case called `folder/name`. Skips the test where only the subset is there and lacks it."""
    root = golden_root()
    path = root / f"{name}.json"
    if not path.exists():
        if root == SUBSET and os.environ.get("LEANDETR_REQUIRE_GOLDEN") != "1":
            pytest.skip(f"{name} is not in the repository's subset of the golden data")
        raise FileNotFoundError(f"no golden case '{name}' under {root}")
    loaded.add(name)
    opened.append(name)
    return Case(name, root, json.loads(path.read_text(encoding="utf-8")))


def name_row(name: str) -> None:
    """Give docs/parity.md a row for a comparison without stored numbers: with another library."""
    loaded.add(name)
    opened.append(name)


@lru_cache(maxsize=1)
def rules() -> ModuleType:
    """`tests/golden/weights.py`, which turns keys, shapes and seeds into weights and images."""
    spec = importlib.util.spec_from_file_location("golden_weights", SUBSET / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stored(root: Path, source: str) -> list[Tensor]:
    """Normalised pictures of `images/pair_x.safetensors`, or of the ones it says in brackets."""
    path, _, only = source.partition(" ")
    pictures = load_file(root / path)
    wanted = [key for key in sorted(pictures) if not only or key in only]
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return [(pictures[key].float() / 255 - mean) / std for key in wanted]


def _batch(pictures: list[Tensor]) -> "Images":
    # Imported late: the shape checker must be set up before the package is first imported.
    from leandetr.types import Images

    height = max(picture.shape[1] for picture in pictures)
    width = max(picture.shape[2] for picture in pictures)
    pixels = torch.zeros(len(pictures), 3, height, width)
    padding = torch.ones(len(pictures), height, width, dtype=torch.bool)
    for row, picture in enumerate(pictures):
        _, h, w = picture.shape
        pixels[row, :, :h, :w] = picture
        padding[row, :h, :w] = False
    return Images(pixels, padding)
