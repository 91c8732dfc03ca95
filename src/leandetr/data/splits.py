"""Where the annotations and images of a split lie inside a data set's folder."""

from pathlib import Path

from leandetr.errors import DataError
from leandetr.registry import did_you_mean

ROBOFLOW = "_annotations.coco.json"


def find_split(root: Path, split: str) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split, in one of three layouts.

    - `annotations/instances_<split>.json` with `images/<split>/`, or just `images/`
    - the same file with `<split>/` (COCO's own)
    - `<split>/_annotations.coco.json` beside its images (Roboflow's)

    Raises `DataError` listing what was looked for and the splits that are there.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data set with annotations/ and images/"
        )
    annotations = root / "annotations" / f"instances_{split}.json"
    roboflow = root / split / ROBOFLOW
    if annotations.is_file():
        return annotations, _image_folder(root, split)
    if roboflow.is_file():
        return roboflow, roboflow.parent
    splits = find_splits(root)
    near = f"{did_you_mean(split, splits)} " if splits else ""
    raise DataError(
        f"{root}: no split '{split}'; {near}"
        f"(looked for {annotations.relative_to(root)} and {roboflow.relative_to(root)}; "
        f"splits found: {', '.join(splits) or 'none'})"
    )


def find_splits(root: Path) -> list[str]:
    """Names of the splits whose annotations are in a data set's folder, sorted."""
    prefix = "instances_"
    files = Path(root).glob(f"annotations/{prefix}*.json")
    found = {file.stem.removeprefix(prefix) for file in files}
    return sorted(found | {file.parent.name for file in Path(root).glob(f"*/{ROBOFLOW}")})


def _image_folder(root: Path, split: str) -> Path:
    choices = (root / "images" / split, root / split, root / "images")
    for folder in choices:
        if folder.is_dir():
            return folder
    looked = ", ".join(str(folder.relative_to(root)) for folder in choices)
    raise DataError(f"{root}: split '{split}' has annotations but no image folder; make {looked}")
