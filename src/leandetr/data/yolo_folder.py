"""Recognise a YOLO data set: its YAML file or list of names, its splits, its images.

Paths in the YAML file are looked for as they stand, and then as exports write them: relative to
the YAML file, with `../` too many, or from another machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml

from leandetr.data import yolo
from leandetr.data.dataset import Category
from leandetr.data.findings import How
from leandetr.data.reading import Reading
from leandetr.errors import DataError, ImageError
from leandetr.images import list_images

SPLITS = ("train", "val", "valid", "validation", "test")
"""Keys of the YAML file that name images."""

NAMES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels/classes.txt")
"""Lists of class names, a line each, for folders without a YAML file."""


@dataclass(frozen=True)
class YoloFolder:
    """A data set whose `root` is a folder or its YAML file; `parts` are its splits as written."""

    kind: ClassVar[str] = "YOLO"
    looked: ClassVar[str] = "data.yaml with names and train, or classes.txt beside labels/"

    root: Path
    about: Path
    categories: tuple[Category, ...]
    parts: dict[str, tuple[str, ...]]
    base: str = ""
    keypoints: int = 0

    @staticmethod
    def find(root: Path) -> "YoloFolder | None":
        """The data set at `root`, None if there is none. Raises `DataError` for a broken one."""
        if root.is_file():
            return _of_yaml(root, root) if root.suffix.lower() in (".yaml", ".yml") else None
        for path in sorted((*root.glob("*.yaml"), *root.glob("*.yml")), key=_data_first):
            found = _of_yaml(root, path)
            if found is not None:
                return found
        return _of_list(root)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.parts)

    def read(self, split: str, how: How) -> Reading:
        """One split. Raises `DataError`."""
        images = [path for part in self.parts[split] for path in self._images(split, part)]
        images = list(dict.fromkeys(images))
        home = self.about.parent
        files = [yolo.find_labels(path) for path in images]
        labels = yolo.Labels(home, images, files, self.categories, self.keypoints)
        return yolo.reading(labels, f"{_stem(self.root)}/{split}", how)

    def _images(self, split: str, part: str) -> list[Path]:
        """The images of a folder, or those in a list file."""
        looked = list(dict.fromkeys(self._places(part)))
        place = next((path for path in looked if path.exists()), None)
        if place is None:
            tried = ", ".join(str(path) for path in looked[:4])
            raise DataError(
                f"{self.about}: {split}: no such folder or list '{part}' (looked for {tried}); "
                "correct the path"
            )
        if place.is_dir():
            try:
                return list_images([place])
            except ImageError as error:
                raise DataError(f"{self.about}: {split}: {error}") from None
        if place.suffix.lower() != ".txt":
            return [place]
        lines = place.read_text(encoding="utf-8-sig").splitlines()
        return [_listed(line.strip(), place.parent, self.about.parent) for line in lines if line]

    def _places(self, part: str) -> Iterator[Path]:
        """Where a path of the YAML file may be, the likeliest first."""
        home, written = self.about.parent, Path(part)
        yield home / self.base / written
        yield home / written
        parts = [one for one in written.parts if one not in ("..", ".", written.anchor)]
        for index in range(len(parts)):  # from another machine: the end of the path still fits
            yield home.joinpath(*parts[index:])


def _stem(root: Path) -> str:
    return root.resolve().name


def _data_first(path: Path) -> tuple[bool, str]:
    return path.stem != "data", path.name


def _listed(line: str, beside: Path, home: Path) -> Path:
    """An image of a list file: relative to it, or to the data set."""
    places = (beside / line, home / line)
    return next((path for path in places if path.exists()), places[0])


def _of_yaml(root: Path, path: Path) -> YoloFolder | None:
    """The data set a YAML file is about; None for a file about something else."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        if path.stem != "data" and root != path:
            return None
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{path}: broken YAML at line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({error})") from None
    named = isinstance(value, dict) and ("names" in value or "nc" in value)
    if not named or not any(value.get(split) for split in SPLITS):
        if root == path:
            raise DataError(
                f"{path}: expected names and at least one of {', '.join(SPLITS)}, "
                f"got {', '.join(map(str, value)) if isinstance(value, dict) else 'no mapping'}"
            )
        return None
    parts = {split: _paths(path, split, value[split]) for split in SPLITS if value.get(split)}
    base = value.get("path") or ""
    points = value.get("kpt_shape")
    keypoints = points[0] * points[1] if isinstance(points, list) and len(points) == 2 else 0
    names = _names(path, value.get("names"), value.get("nc"))
    return YoloFolder(root, path, names, parts, str(base), keypoints)


def _paths(path: Path, split: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise DataError(f"{path}: {split}: expected a path or a list of paths, got {value!r}")
    return tuple(values)


def _names(path: Path, names: Any, count: Any) -> tuple[Category, ...]:
    """The classes by id, from a list or a map of the YAML file."""

    def fail(got: str) -> NoReturn:
        raise DataError(f"{path}: names: expected a list of class names, or ids with names; {got}")

    if not isinstance(names, list | dict) or not names:
        fail(f"got {'nothing' if names is None else repr(names)[:60]}")
    found = {}
    for key, name in dict(enumerate(names) if isinstance(names, list) else names).items():
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name):
            fail(f"got {name!r} for {key}: put it in quotes")
        if not str(key).isdigit():
            fail(f"got the id {key!r}: ids are 0, 1, 2, ...")
        found[int(key)] = str(name)
    twice = {name for name in found.values() if list(found.values()).count(name) > 1}
    if twice:
        fail(f"got {sorted(twice)[0]!r} twice")
    if isinstance(count, int) and count != len(found):
        fail(f"got {len(found)} names but nc: {count}; make them agree")
    return tuple(Category(key, found[key]) for key in sorted(found))


def _of_list(root: Path) -> YoloFolder | None:
    """A data set without YAML file: a list of names, and text files with boxes."""
    about = next((root / name for name in NAMES if (root / name).is_file()), None)
    if about is None:
        return None
    names = [line.strip() for line in about.read_text(encoding="utf-8-sig").splitlines()]
    while names and not names[-1]:
        names.pop()
    splits = {
        split: (folder,)
        for split in SPLITS
        for folder in (split, f"{split}/images", f"images/{split}")
        if (root / folder).is_dir()
    }
    lists = {split: (f"{split}.txt",) for split in SPLITS if (root / f"{split}.txt").is_file()}
    whole = "images" if (root / "images").is_dir() else "."
    if not (root / "labels").is_dir() and not any(root.rglob("*.txt")):
        return None
    parts = splits or lists or {"train": (whole,)}
    return YoloFolder(root, root / about.name, _names(about, names, None), parts)
