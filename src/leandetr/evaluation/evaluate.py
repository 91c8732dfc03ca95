"""Run a detector over a data set and score what it finds.

`evaluate` is the whole; `detect` and `write` are its halves, for those who want the detections too.
"""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from leandetr.batching import arrange
from leandetr.boxes import xyxy_to_xywh
from leandetr.data.dataset import DetectionData, to_coco
from leandetr.data.loader import Batch, DetectionSet, collate
from leandetr.data.sources import Given, load_data
from leandetr.data.workers import reading_told
from leandetr.errors import DataError
from leandetr.evaluation.coco import CocoScores, score
from leandetr.files import refuse_existing, write_json, write_text
from leandetr.lanes import Lanes
from leandetr.models.detector import Detector
from leandetr.registry import did_you_mean
from leandetr.types import Detections

OUTPUTS = ("metrics.json", "detections.json", "classes.csv", "metrics.md")
"""What `write` makes: all scores; COCO results; one row a class; the scores as a Markdown table."""


def evaluate(
    model: Detector,
    data: Given | DetectionData,
    *,
    split: str = "val",
    batch: int = 8,
    workers: int = 2,
    limit: int | None = None,
    max_detections: int | None = None,
    progress: bool = False,
) -> CocoScores:
    """COCO scores of `model` on a data set: folders with `split` in them, or one already read.

    Classes are matched by name, so a model may be scored on data whose ids differ. `limit` takes
    the first images only. `max_detections` keeps an image's best; by default everything that the
    model's post-processing gives, as official evaluations do (COCO itself counts 100 a class).
    Raises `DataError` for data without images or with classes that the model lacks.
    """
    chosen = choose(data, split=split, limit=limit)
    found = detect(
        model,
        chosen,
        batch=batch,
        workers=workers,
        max_detections=max_detections,
        progress=progress,
    )
    return score(to_coco(chosen), found)


def choose(
    data: Given | DetectionData, *, split: str = "val", limit: int | None = None
) -> DetectionData:
    """The data set to score on. Raises `DataError` if it has no images."""
    if not isinstance(data, DetectionData):
        data = load_data(data, split)
    if limit is not None:
        data = replace(data, samples=data.samples[:limit])
    if not data.samples:
        raise DataError(f"expected images to evaluate on, but {data.name} has none")
    if not data.boxes:
        logging.getLogger(__name__).warning("%s has no boxes: AP is undefined there", data.name)
    return data


def detect(
    model: Detector,
    data: DetectionData,
    *,
    batch: int = 8,
    workers: int = 2,
    max_detections: int | None = None,
    coarse: bool = False,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """What `model` finds on every image, as COCO results with the image and class ids of `data`.

    Boxes are xywh in pixels of the original image, not clipped; results are in the order of `data`.
    Images of one shape share a batch: without padding, `batch` changes no score. `coarse` decodes
    huge JPEG files only to what the network needs. Raises `DataError` naming the file for one
    that cannot be read.
    """
    from rich.console import Console
    from rich.progress import track

    categories = category_of(model, data)
    dataset = DetectionSet(data, model.preprocess, coarse=coarse)
    sizes = [model.preprocess.resized(*one.size) for one in data.samples]
    device = next(model.parameters()).device
    results = []

    def look(one: Batch) -> list[dict[str, Any]]:
        found = model.detect(one.images.to(device), one.sizes)
        return coco_results(found, one.image_ids, categories, max_detections)

    with reading_told("add --workers 0, or fewer than there are"), Lanes(model, batch) as lanes:
        batches = arrange(sizes, lanes.share)
        loader = DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate)
        console = Console(stderr=True)
        for some in track(
            lanes.map(look, loader),
            "evaluating",
            len(batches),
            console=console,
            disable=not progress,
            transient=True,
        ):
            results += some
    order = {sample.image_id: place for place, sample in enumerate(data.samples)}
    return sorted(results, key=lambda result: order[result["image_id"]])


def category_of(model: Detector, data: DetectionData) -> dict[int, int]:
    """The category id in `data` of each label of the model, by name.

    Labels that `data` does not have are left out. Raises `DataError` when the model lacks a class.
    """
    ids = {category.name: category.id for category in data.categories}
    missing = [name for name in ids if name not in model.names]
    if missing:
        hints = [f"'{name}': {did_you_mean(name, model.names)}" for name in missing]
        near = "; ".join(hint for hint in hints if "did you mean" in hint)
        raise DataError(
            f"expected a model that knows the classes of {data.name} ({_listed(ids)}), but it "
            f"lacks {_listed(missing)}; it knows {_listed(model.names)}. Train on this data, or "
            f"rename its categories{f' ({near})' if near else ''}"
        )
    return {label: ids[name] for label, name in enumerate(model.names) if name in ids}


def write(
    scores: CocoScores,
    detections: list[dict[str, Any]],
    out: str | Path,
    *,
    overwrite: bool = False,
) -> None:
    """Write scores and detections into the folder `out` (see `OUTPUTS`), each file whole.

    Raises `OutputExists` if one of them is there already, unless `overwrite`.
    """
    folder = Path(out)
    refuse_existing([folder / name for name in OUTPUTS], overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", scores.to_dict())
    write_json(folder / "detections.json", detections, indent=None)
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["class", "ap", "ap50", "boxes"])
    for one in scores.to_dict()["classes"]:
        table.writerow(one.values())
    write_text(folder / "classes.csv", rows.getvalue())
    write_text(folder / "metrics.md", scores.markdown())


def coco_results(
    found: Sequence[Detections],
    image_ids: Sequence[int],
    categories: Mapping[int, int],
    most: int | None = None,
) -> list[dict[str, Any]]:
    """COCO results of what was found in each image, at most the `most` best of one.

    `categories` are the ids by label, as `category_of` gives them; labels it lacks are left out.
    """
    results = []
    for image_id, one in zip(image_ids, found, strict=True):
        boxes = xyxy_to_xywh(one.boxes[:most]).tolist()
        for box, value, label in zip(
            boxes, one.scores[:most].tolist(), one.labels[:most].tolist(), strict=True
        ):
            if label in categories:
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": categories[label],
                        "bbox": box,
                        "score": value,
                    }
                )
    return results


def _listed(names: Iterable[str]) -> str:
    """Names for a message, at most ten."""
    shown = list(names)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ", ".join(map(str, shown[:10])) + more if shown else "none"
