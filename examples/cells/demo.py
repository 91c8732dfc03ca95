"""The shipped blood-cell model on photographs it has never seen, then a short fine-tuning.

`make demo` runs this. Everything it writes goes into one new folder under runs/.
"""

import argparse
import csv
import time
from collections import Counter
from pathlib import Path

import leandetr
from leandetr.data import load_data, write_scenes
from leandetr.models.detector import Detector

HERE = Path(__file__).resolve().parent
MODEL = "lite-dino-nano-cells"
THRESHOLD = 0.4
EPOCHS, MINUTES = 16, 2.5


def main() -> None:
    """Evaluate, predict, fine-tune, and say where to look."""
    options = _options()
    began, out = time.monotonic(), _free(options.out)
    out.mkdir(parents=True)
    model = leandetr.load(options.model)

    _title(f"1. Scores of {options.model} on the photographs of {_shown(options.data)}")
    scores = leandetr.evaluate(model, options.data, split="test", batch=4, workers=0)
    print(scores.table())

    _title("2. What it finds")
    pictures = _predict(model, options.data, out / "pictures")

    _title(f"3. Fine-tuning on other objects, for {options.minutes:g} minutes at most")
    first, last = _fine_tune(model, out, options.minutes)

    _title(f"Done in {(time.monotonic() - began) / 60:.1f} minutes")
    print(f"AP50 on the photographs    {scores.ap50:.3f}")
    print(f"loss while fine-tuning     {first:.2f} -> {last:.2f}")
    print(f"pictures to look at        {pictures}")
    print(f"the fine-tuned model       {out / 'fine-tuned' / 'last'}")
    print("the same by hand:")
    print(f"  .venv/bin/leandetr evaluate {options.model} --data {_shown(HERE)} --split test")
    print(f"  .venv/bin/leandetr predict {options.model} {_shown(HERE)}/images/test --out found")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL, help="a shipped model or a model folder")
    parser.add_argument("--data", type=Path, default=HERE, help="COCO folder with a test split")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where to write")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of fine-tuning at most")
    return parser.parse_args()


def _free(wanted: Path) -> Path:
    """`wanted`, or `wanted-2`, `wanted-3`, ... so that no earlier result is touched."""
    out, number = wanted, 1
    while out.exists():
        number += 1
        out = wanted.with_name(f"{wanted.name}-{number}")
    return out


def _predict(model: Detector, data: Path, out: Path) -> Path:
    """Draw what is found in each photograph of the test split; returns the folder."""
    out.mkdir()
    photos = [sample.path for sample in load_data(data, "test").samples]
    began = time.monotonic()
    found = model.predict(photos, threshold=THRESHOLD, batch=4)
    seconds = (time.monotonic() - began) / len(photos)
    for photo, detections in zip(photos, found, strict=True):
        leandetr.draw(photo, detections).save(out / f"{photo.stem}.png")
        counts = Counter(detections.name(index) for index in range(len(detections)))
        print(f"{photo.name:<24}", ", ".join(f"{counts[name]} {name}" for name in model.names))
    print(f"{len(photos)} photographs, {seconds:.2f} s each")
    return out


def _fine_tune(model: Detector, out: Path, minutes: float) -> tuple[float, float]:
    """Teach the model synthetic shapes; returns the mean loss of its first and last epoch."""
    print("The objects are synthetic scenes with classes that the model has never seen.")
    scenes = write_scenes(out / "scenes", train=32, val=8, seed=0)
    settings = [f"train.epochs={EPOCHS}", "train.batch=4", "train.workers=0"]
    run = leandetr.train(model, scenes, out / "fine-tuned", overrides=settings, minutes=minutes)
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    for epoch, loss in enumerate(losses, start=1):
        print(f"epoch {epoch:>3}  loss {loss:7.3f}  {'#' * round(40 * loss / max(losses))}")
    return losses[0], losses[-1]


def _title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def _shown(path: Path) -> str:
    """A path as one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    main()
