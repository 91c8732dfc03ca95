"""Whether pictures reach the model as fast as it takes them: prediction and training.

    python -m benchmarks.feeding                     # some minutes on two cores
    python -m benchmarks.feeding --write docs/benchmarks.md

The bare model gets batches that were prepared before the clock started, one after the other on all
threads; `leandetr predict` starts from the same pictures as files. The two take turns, and of each
the fastest round counts. A second table compares one lane of batches with two of half the size.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

import leandetr
from benchmarks.machine import describe
from benchmarks.page import put
from leandetr.data import load_data
from leandetr.data.loader import DetectionSet
from leandetr.deploy.predict import PredictOptions, predict
from leandetr.images import Preprocess, read_image, resize
from leandetr.lanes import Lanes
from leandetr.models.detector import Detector
from leandetr.training.batches import Batches, EpochBatches
from leandetr.training.build import build_criterion
from leandetr.training.optim import build_optimiser
from leandetr.types import Images

CELLS = Path(__file__).parent.parent / "examples" / "cells"
NANO = "lite-dino-nano-cells"
RESNET = "lite-dino-r50-h3l1-2p1x3"


class Case(NamedTuple):
    """A model, the files it looks at (width, height) and how many."""

    name: str
    preprocess: Preprocess | None
    files: tuple[int, int]
    count: int
    batch: int
    coarse: bool = False

    def model(self) -> Detector:
        """A shipped model as it is, a recipe with random weights."""
        shipped = self.name in leandetr.shipped_models()
        model = (leandetr.load if shipped else leandetr.create_model)(self.name)
        if self.preprocess is not None:
            model.preprocess = self.preprocess
        return model.eval()


CASES = (
    Case(NANO, None, (640, 480), 96, 8),
    Case(NANO, None, (1920, 1440), 48, 8),
    Case(NANO, None, (1920, 1440), 48, 8, coarse=True),
    Case(NANO, None, (4032, 3024), 16, 8),
    Case(NANO, None, (4032, 3024), 16, 8, coarse=True),
    Case(RESNET, Preprocess(320, 544), (640, 480), 8, 4),
)


def make_files(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Photos of blood cells as JPEG files, enlarged where larger ones are asked for."""
    folder.mkdir(parents=True)
    originals = sorted((CELLS / "images" / "test").iterdir())
    paths = []
    for index in range(count):
        path = folder / f"{index:03}.jpg"
        original = originals[index % len(originals)]
        with Image.open(original) as image:
            if image.size == size:
                shutil.copyfile(original, path)
            else:
                image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


class Spent(NamedTuple):
    """Seconds of the fastest call: on the wall, and of all processors together."""

    wall: float = float("inf")
    processor: float = float("inf")


def fastest(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Spent]:
    """The fastest call of each; they take turns after a call that does not count."""
    best = {name: Spent() for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            wall, processor = time.perf_counter(), time.process_time()
            work()
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            if turn:
                best[name] = Spent(*map(min, best[name], (wall, processor)))
    return best


def prediction_row(case: Case, folder: Path, rounds: int) -> str:
    """Images a second of the bare model, of prediction, and of prediction with pictures."""
    model = case.model()
    paths = make_files(folder, case.files, case.count)
    photos = [read_image(path) for path in paths]
    small = [resize(p.pixels, *model.preprocess.resized(*p.size)) for p in photos]
    sizes = [photo.size for photo in photos]
    starts = range(0, case.count, case.batch)
    batches = [model.preprocess.batch(small[i : i + case.batch]) for i in starts]

    def bare() -> None:
        for start, images in zip(starts, batches, strict=True):
            model.detect(images, sizes[start : start + case.batch])

    def files(*, pictures: bool) -> None:
        options = PredictOptions(
            batch=case.batch, pictures=pictures, coarse=case.coarse, overwrite=True
        )
        predict(model, [folder], folder.parent / "out", options)

    works: dict[str, Callable[[], object]] = {"bare": bare, "files": lambda: files(pictures=False)}
    if not case.coarse:
        works["pictures"] = lambda: files(pictures=True)
    spent = fastest(works, rounds)
    read = f"{case.files[0]}x{case.files[1]}{', --coarse' if case.coarse else ''}"
    inside = "x".join(map(str, batches[0].pixels.shape[2:]))
    cells = [case.name, read, inside, str(case.batch), f"{case.count / spent['bare'].wall:.1f}"]
    for name in ("files", "pictures"):
        if name not in spent:
            cells += ["-"] * 3
            continue
        cells.append(f"{case.count / spent[name].wall:.1f}")
        cells.append(f"{spent['bare'].wall / spent[name].wall:.2f}")
        cells.append(f"{spent['bare'].processor / spent[name].processor:.2f}")
    return f"| {' | '.join(cells)} |"


class Share(NamedTuple):
    """A model, the (height, width) of the images it gets, how many of them are under way."""

    name: str
    size: tuple[int, int]
    batch: int
    dtype: torch.dtype | None = None

    def model(self) -> Detector:
        """The model, optimised where a precision is named."""
        shipped = self.name in leandetr.shipped_models()
        model = (leandetr.load if shipped else leandetr.create_model)(self.name).eval()
        return model if self.dtype is None else model.optimise(dtype=self.dtype)


SHARES = (
    Share(NANO, (240, 320), 8),
    Share(NANO, (240, 320), 8, torch.float32),
    Share(NANO, (240, 320), 8, torch.bfloat16),
    Share(RESNET, (800, 1066), 2),
    Share("dino-r50", (800, 1066), 2),
    Share("dino-r50", (800, 1066), 2, torch.bfloat16),
    Share("detr-r50", (400, 533), 8),
)


def lanes_row(share: Share, rounds: int) -> str:
    """Images a second of batches one after the other, and of smaller ones side by side."""
    model = share.model()
    images = [(torch.rand(3, *share.size) * 255).byte() for _ in range(2 * share.batch)]

    def batches(size: int) -> list[Images]:
        starts = range(0, len(images), size)
        return [model.preprocess.batch(images[start : start + size]) for start in starts]

    def look(batch: Images) -> object:
        return model.detect(batch, [share.size] * len(batch.pixels))

    with Lanes(model, share.batch) as lanes:
        alone, beside = batches(share.batch), batches(lanes.share)
        works: dict[str, Callable[[], object]] = {
            "alone": lambda: list(map(look, alone)),
            "beside": lambda: list(lanes.map(look, beside)),
        }
        spent = fastest(works, rounds)
    rates = {name: len(images) / one.wall for name, one in spent.items()}
    cells = [
        share.name,
        "as it is" if share.dtype is None else f"optimised, {share.dtype}".replace("torch.", ""),
        "x".join(map(str, share.size)),
        f"{share.batch}",
        f"{rates['alone']:.2f}",
        f"{lanes.count} x {lanes.share}",
        f"{rates['beside']:.2f}",
        f"{rates['beside'] / rates['alone']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def training_row(rounds: int) -> str:
    """Images a second of the loader, augmenting as the recipe says, against a training step's."""
    recipe = leandetr.recipe("lite-dino-nano")
    how = recipe.train
    data = load_data(CELLS, "test")
    model = leandetr.create_model("lite-dino-nano", num_classes=len(data.names)).train()
    items = DetectionSet(data, recipe.preprocess, augment=how.augment, seed=0)
    one = next(_epochs(items, how.batch, 0))
    criterion = build_criterion(model.recipe)
    optimiser = build_optimiser(model, lr=1e-5, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        criterion(model(one.images, one.targets), one.targets).total.backward()
        optimiser.step()

    sources = {workers: _epochs(items, how.batch, workers) for workers in (0, 1, 2)}

    def load(workers: int) -> Callable[[], None]:
        def some() -> None:
            for _ in range(8):
                next(sources[workers])

        return some

    works = {"step": step} | {str(workers): load(workers) for workers in sources}
    spent = fastest(works, rounds)
    step_rate = len(one) / spent.pop("step").wall
    rates = [8 * len(one) / value.wall for value in spent.values()]
    cells = " | ".join(f"{rate:.0f}" for rate in rates)
    return (
        f"| lite-dino-nano | {len(one)} | {step_rate:.1f} | {cells} | {rates[0] / step_rate:.1f} |"
    )


def _epochs(items: DetectionSet, batch: int, workers: int) -> Iterator:
    """Batches without end."""
    batches = Batches(items, EpochBatches(len(items), batch, seed=0), workers=workers)
    epoch = 0
    while True:
        yield from batches.epoch(epoch)
        epoch += 1


def report(rounds: int) -> str:
    """Everything, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            prediction_row(case, Path(folder, str(index), "in"), rounds)
            for index, case in enumerate(CASES)
        ]
    lanes = "\n".join(lanes_row(share, rounds) for share in SHARES)
    return (
        f"Measured by `python -m benchmarks.feeding` on {describe()}; fastest of {rounds} rounds, "
        f"images a second.\n\n"
        "| model | files | network size | batch | bare model | predict | of the bare model's "
        "| by processor time | drawing pictures too | of the bare model's | by processor time |\n"
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows) + "\n\n"
        "| model | | network size | batch | one after the other | lanes x batch | side by side "
        "| ratio |\n|---|---|---|---:|---:|---|---:|---:|\n" + lanes + "\n\n"
        "| recipe | images a step | training step | loader, no workers | 1 worker | 2 workers "
        "| no workers over step |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n" + training_row(rounds)
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the model")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = report(options.rounds)
    print(text)
    if options.write:
        put(options.write, "feeding", text)


if __name__ == "__main__":
    main()
