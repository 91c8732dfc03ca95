"""Recognise a Pascal VOC data set: Annotations/ with JPEGImages/, or XML files beside images."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from leandetr.data import voc
from leandetr.data.findings import How
from leandetr.data.reading import Reading

ANNOTATIONS = ("Annotations", "annotations")
IMAGES = ("JPEGImages", "images", "Images", "")


@dataclass(frozen=True)
class VocFolder:
    """A data set with its XML files by split."""

    kind: ClassVar[str] = "Pascal VOC"
    looked: ClassVar[str] = "Annotations/*.xml with JPEGImages/, or *.xml beside the images"

    root: Path
    pages: voc.Pages

    @staticmethod
    def find(root: Path) -> "VocFolder | None":
        """The data set at `root`, None if there is none."""
        if not root.is_dir():
            return None
        for name in ANNOTATIONS:
            files = tuple(voc.xml_files(root / name))
            if files and voc.is_page(files[0]):
                return VocFolder(root, _of_lists(root, files))
        beside = {"train": tuple(voc.xml_files(root))} | {
            folder.name: tuple(voc.xml_files(folder))
            for folder in sorted(root.iterdir())
            if folder.is_dir()
        }
        beside = {name: files for name, files in beside.items() if files and voc.is_page(files[0])}
        if not beside:
            return None
        folders = tuple(dict.fromkeys(files[0].parent for files in beside.values()))
        return VocFolder(root, voc.Pages(root, folders, beside))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.pages.files)

    def read(self, split: str, how: How) -> Reading:
        """One split. Raises `DataError`."""
        return voc.reading(self.pages, split, f"{self.root.resolve().name}/{split}", how)


def _of_lists(root: Path, files: tuple[Path, ...]) -> voc.Pages:
    """Splits by the lists under ImageSets/Main; without them all files are `train`."""
    folders = tuple(root / name for name in IMAGES if (root / name).is_dir())
    splits: dict[str, tuple[Path, ...]] = {}
    for path in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        names = voc.listed(path)
        if names is not None:
            splits[path.stem] = tuple(files[0].with_name(f"{name}.xml") for name in names)
    return voc.Pages(root, folders, splits or {"train": files})
