"""The ways in which papers of the family count, by name: picture sizes, and what is counted.

convention("800x1066")                       # Lite DETR, table 4
convention("coco:annotations/instances_val2017.json", preprocess)
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leandetr.errors import DataError, RecipeError
from leandetr.evaluation.counting import Counts, Row, Tally, count
from leandetr.images import Preprocess
from leandetr.models.detector import Detector
from leandetr.recipes.recipe import Recipe

FIRST = 100
"""Images of an annotation file that papers average over (facebookresearch/detr#110)."""

COCO = "coco:"
"""What a convention over an annotation file starts with."""


Sizes = tuple[tuple[tuple[int, int], int], ...]
"""(height, width) of network inputs, and how many images have each."""


@dataclass(frozen=True)
class Convention:
    """Network inputs of which `sizes`, and what of the work on them is counted."""

    name: str
    sizes: Sizes
    tally: Tally
    about: str


SPARSE = Tally(sampling="grid", norms=True, unread=True)
"""fvcore over code whose sampling runs in plain PyTorch: Sparse DETR, Lite DETR's table 3."""
LITE = Tally(sampling="key-aware", norms=True, unread=True)
"""fvcore over compiled sampling; key-aware attention is plain PyTorch: Lite DETR's table 4."""
DINO = Tally(sampling="none", norms=True, elementwise=True, unread=True)
"""The counter in DINO's repository, which ignores sampling and counts elementwise work."""

CONVENTIONS = {
    one.name: one
    for one in (
        Convention(
            "850x1040", (((850, 1040), 1),), SPARSE, "Sparse DETR; Lite DETR, table 3; DETR nearly"
        ),
        Convention("800x1066", (((800, 1066), 1),), LITE, "Lite DETR, table 4"),
        Convention("800x1280", (((800, 1280), 1),), DINO, "DINO, table 1"),
    )
}
"""Published totals are reproduced by these to 1 %; see the page on the tables of the papers."""


def convention(name: str, preprocess: Preprocess) -> Convention:
    """The convention called `name`, or `coco:FILE` with the sizes of the first images in a file.

    These are resized by `preprocess`. Raises `RecipeError` for another name, `DataError` for a
    file that does not list images.
    """
    if name.startswith(COCO):
        sizes = tuple(sorted(Counter(_sizes(Path(name[len(COCO) :]), preprocess)).items()))
        return Convention(name, sizes, SPARSE, f"mean of the first {FIRST} images, as in DETR")
    return _known(name)


def _known(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise RecipeError(
            f"expected a convention of {', '.join(CONVENTIONS)} or coco:ANNOTATIONS.json; "
            f"got '{name}'; for any other size type --size HEIGHTxWIDTH"
        )
    return CONVENTIONS[name]


def tally_of(name: str | None) -> Tally:
    """What the convention called `name` counts; without one, all that this package multiplies."""
    if name is None:
        return Tally()
    return SPARSE if name.startswith(COCO) else _known(name).tally


def mean_counts(model: Detector | Recipe, sizes: Sizes) -> Counts:
    """The mean of the counts of several sizes, each weighed by how many images have it."""
    images = sum(number for _, number in sizes)
    total: dict[tuple, float] = {}
    for size, number in sizes:
        for row in count(model, size).rows:
            key = (row.part, row.kind)
            total[key] = total.get(key, 0.0) + row.gmacs * number / images
    rows = tuple(Row(part, kind, gmacs) for (part, kind), gmacs in total.items())
    return Counts(rows, sizes[0][0])


def _sizes(annotations: Path, preprocess: Preprocess) -> Iterator[tuple[int, int]]:
    """Network input sizes of the first images by id, as the official data set orders them."""
    try:
        listed = json.loads(annotations.read_text(encoding="utf-8"))["images"]
        images = sorted((int(one["id"]), int(one["height"]), int(one["width"])) for one in listed)
    except OSError as error:
        raise DataError(
            f"expected a COCO annotation file after coco:, and '{annotations}' cannot be read "
            f"({error.strerror}); type --convention coco:annotations/instances_val2017.json, say"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{annotations}: expected a COCO file whose images have id, height and width; "
            f"got {type(error).__name__}: {error}"
        ) from error
    if not images or min(min(height, width) for _, height, width in images) < 1:
        raise DataError(
            f"{annotations}: expected images of at least one pixel, "
            f"got {'an empty one' if images else 'none'}"
        )
    for _, height, width in images[:FIRST]:
        yield preprocess.resized(height, width)
