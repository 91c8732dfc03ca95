"""Recognise COCO data sets: where the annotation file and the images of each split are."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from leandetr.data import coco
from leandetr.data.findings import How
from leandetr.data.reading import Reading
from leandetr.data.splits import usual
from leandetr.errors import DataError

ROBOFLOW = "_annotations.coco.json"
WHOLE = (ROBOFLOW, "annotations.json", "instances.json", "coco.json", "labels.json")
"""A single file at the root: a data set without splits."""

_OTHER = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_PREFIX = "instances_"


@dataclass(frozen=True)
class CocoFolder:
    """A data set with the annotation file of each split."""

    kind: ClassVar[str] = "COCO"
    looked: ClassVar[str] = (
        f"annotations/instances_<split>.json, <split>/{ROBOFLOW} or <split>.json"
    )

    root: Path
    files: dict[str, Path]

    @staticmethod
    def find(root: Path) -> "CocoFolder | None":
        """The data set at `root`, None if there is none; a JSON file is one of its own."""
        if root.is_file():
            return CocoFolder(root, {"train": root}) if root.suffix.lower() == ".json" else None
        files = {path.parent.name: path for path in sorted(root.glob(f"*/{ROBOFLOW}"))}
        files |= _named(root / "annotations")
        if not files:
            files = {path.stem: path for path in root.glob("*.json") if _is_split(path.stem)}
        if not files:
            whole = next((root / name for name in WHOLE if (root / name).is_file()), None)
            files = {"train": whole} if whole else {}
        return CocoFolder(root, dict(sorted(files.items()))) if files else None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.files)

    def read(self, split: str, how: How) -> Reading:
        """One split. Raises `DataError`."""
        name = f"{self.root.resolve().name}/{split}"
        return coco.reading(self.files[split], self._folders(split), name, how)

    def _folders(self, split: str) -> list[Path]:
        """Folders the images may be in, the likeliest first."""
        file = self.files[split]
        if file.name == ROBOFLOW:
            return [file.parent]
        home = file.parent.parent if file.parent.name == "annotations" else file.parent
        stem = file.stem.removeprefix(_PREFIX)
        choices = (home / "images" / stem, home / stem, home / "images")
        there = [folder for folder in choices if folder.is_dir()]
        if not there and file.parent.name == "annotations":
            looked = ", ".join(str(folder.relative_to(home)) for folder in choices)
            raise DataError(
                f"{self.root}: split '{split}' has annotations but no image folder; make {looked}"
            )
        return [*there, home]


def _named(folder: Path) -> dict[str, Path]:
    """Files of an annotations folder by split; those of other tasks are left alone."""
    paths = sorted(folder.glob("*.json"))
    boxes = [path for path in paths if path.stem.startswith(_PREFIX)]
    boxes = boxes or [path for path in paths if not path.stem.startswith(_OTHER)]
    return {path.stem.removeprefix(_PREFIX): path for path in boxes}


def _is_split(stem: str) -> bool:
    return usual(stem) in ("train", "val", "test")
