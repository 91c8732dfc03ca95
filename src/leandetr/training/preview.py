"""What the model is going to see: pictures as augmentation makes them, with their boxes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from leandetr.data.loader import DetectionSet
from leandetr.data.sheet import Heading, Tile, choose, sheet
from leandetr.files import whole

PREVIEW = "preview.png"
SHOWN = 15
"""Pictures of a preview."""


def write_preview(images: DetectionSet, path: Path) -> None:
    """Draw pictures of the first epoch into the PNG `path`: every class, the fullest, and others.

    Raises `DataError` naming a picture that cannot be read.
    """
    data, tiles, counts = images.data, [], Counter[int]()
    for index in choose(data.samples, SHOWN, seed=images.seed):
        view, sample = images.view(index), data.samples[index]
        height, width = view.size
        counts.update(view.labels.tolist())
        seen = replace(
            sample,
            size=view.size,
            boxes=view.boxes,
            labels=view.labels,
            crowd=view.crowd,
            areas=(view.boxes[:, 2:] - view.boxes[:, :2]).prod(dim=1),
        )
        caption = f"{sample.path.name}, {width} x {height}"
        tiles.append(Tile(seen, data.names, caption, view.pixels))
    heading = Heading(
        title=f"What the model sees of {data.name}",
        about=f"{len(tiles)} of {len(data)} images, augmented as in the first epoch",
        classes=[(name, counts[label]) for label, name in enumerate(data.names)],
    )
    with whole(path) as partial:
        sheet(tiles, heading).save(partial, format="PNG", compress_level=1)
