"""Pickles read as data: what an official file may name, and what stands in for it here.

A pickle names the functions it wants called. Nothing it names is ever looked up: the few names
that honest weights files hold (numpy arrays, the arguments of a training script) are answered with
the stand-ins below, which only keep what they are given. Any other name raises
`pickle.UnpicklingError`.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

NUMBERS = "biuf"
"""Kinds of numpy types that can be tensors: booleans, integers, floats."""


class StoredType:
    """Stands in for `numpy.dtype`: the name of an element type and its byte order."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    @property
    def numpy(self) -> np.dtype:
        """The type itself. Raises `ValueError` for anything but numbers."""
        found = np.dtype((self.order if self.order in "<>" else "") + self.name)
        if found.kind not in NUMBERS:
            raise ValueError(f"an array of {found}, which are no numbers")
        return found


class StoredArray:
    """Stands in for `numpy.ndarray` and for the functions that make arrays and single numbers.

    An array is made empty and then given its contents; pickle protocol 5 makes it in one go, and a
    single number (a metric kept beside the weights) comes as its type and bytes.
    """

    def __init__(self, *given: Any) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.kind = StoredType("f4")
        self.columns_first = False
        self.data: bytes = b""
        match given:
            case (StoredType() as kind, data):
                self.__setstate__((1, (), kind, False, data))
            case (data, StoredType() as kind, shape, order):
                self.__setstate__((1, shape, kind, order == "F", bytes(data)))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.columns_first, data = state
        self.data = data.encode("latin1") if isinstance(data, str) else data

    def tensor(self) -> Tensor:
        """The numbers as a tensor. Raises `ValueError` where they do not make up the array."""
        flat = np.frombuffer(self.data, dtype=self.kind.numpy)
        if flat.size != math.prod(self.shape):
            raise ValueError(f"{flat.size} numbers for an array of shape {self.shape}")
        array = flat.reshape(self.shape, order="F" if self.columns_first else "C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


class Latin1(bytes):
    """Stands in for `_codecs.encode`, by which old pickles write bytes."""

    def __new__(cls, text: str, encoding: str = "latin1") -> "Latin1":
        """The bytes of a text, in the one encoding that pickles use."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes written as {encoding}")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("bytes that want to be changed")


class Settings:
    """Stands in for `argparse.Namespace`: the arguments of the script that trained the model."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("arguments that are no dictionary")
        self.values = state


class StoredPath:
    """Stands in for a `pathlib` path among those arguments."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("a path that wants to be changed")


class StoredDict(dict):
    """Stands in for `collections.OrderedDict` in plain pickles."""

    def __setstate__(self, state: Any) -> None:
        """Attributes beside the items (`_metadata` of a state dict) are not kept."""


STAND_INS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": Settings,
    "numpy.ndarray": StoredArray,
    "numpy.dtype": StoredType,
    **{
        f"numpy.{core}.{name}": StoredArray
        for core in ("core", "_core")  # before numpy 2, and since
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    },
    **{
        f"{module}.{name}": StoredPath
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}
"""What a weights file may name besides tensors."""

PLAIN = STAND_INS | {"_codecs.encode": Latin1, "collections.OrderedDict": StoredDict}
"""What a pickle that is no PyTorch file may name: nothing of PyTorch."""


class PlainUnpickler(pickle.Unpickler):
    """Reads pickles that detectron2 writes: dictionaries of numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of that name. Raises `UnpicklingError` for every other one."""
        path = f"{module}.{name}"
        if path not in PLAIN:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {path} was not allowed")
        return PLAIN[path]


def read_plain_pickle(path: Path) -> Any:
    """What a plain pickle holds, stand-ins included; nothing in it is run."""
    with path.open("rb") as file:
        return PlainUnpickler(file, encoding="latin1").load()


def read_torch_file(path: Path) -> Any:
    """What a file of `torch.save` holds, stand-ins included; nothing in it is run."""
    allowed: list[Any] = [(made, name) for name, made in STAND_INS.items()]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)
