"""Data sets recognised by looking, whatever their format, and several of them as one.

load_data("data/cells", "train")                    # COCO, YOLO or Pascal VOC
load_data(["data/cells", "more/data.yaml"], "val")  # classes united by name
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from leandetr.data.coco_folder import CocoFolder
from leandetr.data.combine import combine
from leandetr.data.dataset import DetectionData
from leandetr.data.findings import How
from leandetr.data.reading import Reading, loud
from leandetr.data.splits import match, no_split
from leandetr.data.voc_folder import VocFolder
from leandetr.data.yolo_folder import YoloFolder
from leandetr.errors import DataError

Given = str | Path | Sequence[str | Path]
"""A data set's folder or file, or several."""


@runtime_checkable
class Source(Protocol):
    """A data set on disk: `kind` names its format, `looked` says how it is recognised."""

    kind: ClassVar[str]
    looked: ClassVar[str]

    @property
    def root(self) -> Path:
        """The folder or file that was given."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits as the source calls them."""
        ...

    def read(self, split: str, how: How) -> Reading:
        """A split by its own name."""
        ...


FORMATS = (CocoFolder, YoloFolder, VocFolder)
"""In the order in which they are looked for."""


def recognise(root: str | Path) -> Source:
    """What kind of data set a folder or file is. Raises `DataError` saying what was looked for."""
    root = Path(root)
    if not root.exists():
        raise DataError(
            f"{root}: no such folder; expected a data set in COCO, YOLO or Pascal VOC format"
        )
    for kind in FORMATS:
        found = kind.find(root)
        if found is not None:
            return found
    looked = "; ".join(f"{kind.kind}: {kind.looked}" for kind in FORMATS)
    raise DataError(f"{root}: no data set recognised (looked for {looked}); {_there(root)}")


def own_splits(source: Source) -> list[str]:
    """The splits of a source, without trainval where both of its halves are there too."""
    halves = {"train", "val"} <= set(source.splits)
    return [name for name in source.splits if not (halves and name == "trainval")]


def find_splits(data: Given) -> list[str]:
    """Names of the splits of a data set, sorted; of several all that occur."""
    return sorted({name for root in each(data) for name in recognise(root).splits})


def has_split(data: Given, split: str) -> bool:
    """Whether at least one of the data sets has a split of this or a like name."""
    return any(match(split, recognise(root).splits) for root in each(data))


def load_data(data: Given, split: str, *, skip_missing: bool = False) -> DetectionData:
    """Read a split of a data set in any format, or of several as one.

    val also finds valid and val2017, and so on. Of several data sets those without the split are
    left out with a warning. Raises `DataError`.
    """
    how = How(skip_missing=skip_missing)
    sources = [recognise(root) for root in each(data)]
    having = [(source, match(split, source.splits)) for source in sources]
    parts = [source.read(name, how).data() for source, name in having if name is not None]
    if not parts:
        known = {name for source in sources for name in source.splits}
        raise no_split(sources[0].root, split, known, _looked(sources))
    without = [str(source.root) for source, name in having if name is None]
    return loud(combine(parts, without=without, split=split))


def each(data: Given) -> list[Path]:
    """The data sets that are meant. Raises `DataError` for an empty list."""
    roots = [data] if isinstance(data, str | Path) else list(data)
    if not roots:
        raise DataError("expected at least one data set, got none; add --data FOLDER")
    return [Path(root) for root in roots]


def _looked(sources: Sequence[Source]) -> str:
    return "; ".join(dict.fromkeys(f"{one.kind}: {one.looked}" for one in sources))


def _there(root: Path) -> str:
    """What is in a folder instead, and a data set one or two levels below if there is one."""
    if root.is_file():
        return "this is a file; give a COCO JSON file, a YOLO data.yaml or a folder"
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    folders = sorted(path for path in (*root.glob("*"), *root.glob("*/*")) if path.is_dir())
    below = next((path for path in folders[:200] if _is_data(path)), None)
    hint = f"; did you mean {below}?" if below else ""
    return f"it holds {found or 'nothing'}{hint}"


def _is_data(path: Path) -> bool:
    try:
        return any(kind.find(path) for kind in FORMATS)
    except DataError:
        return False
