"""How long a fresh process takes to the first help text and to the first picture.

    python -m benchmarks.startup                     # a minute
    python -m benchmarks.startup --write docs/benchmarks.md

The works take turns, and of each the fastest round counts. Processor time is told beside wall time,
because it does not depend on what else the machine does.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.page import put

CELL = Path(__file__).parent.parent / "examples" / "cells" / "images" / "test"
MODEL = "lite-dino-nano-cells"


def works(out: Path) -> dict[str, list[str]]:
    """Command lines by what they do."""
    picture = str(sorted(CELL.iterdir())[0])
    run = ["-m", "leandetr"]
    predict = [*run, "predict", MODEL, picture, "--out", str(out), "--overwrite"]
    return {
        "`import torch`, the floor": ["-c", "import torch"],
        "`import leandetr`": ["-c", "import leandetr"],
        "`leandetr --help`": [*run, "--help"],
        "`leandetr.load`, imported": ["-c", "import leandetr; leandetr.load"],
        "first picture of `leandetr predict`, nano model": predict,
    }


def spent(words: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(rounds: int) -> str:
    """A Markdown table: a line a work."""
    with tempfile.TemporaryDirectory() as folder:
        lines = works(Path(folder, "out"))
        best = {name: (float("inf"), float("inf")) for name in lines}
        for turn in range(rounds + 1):
            for name, words in lines.items():
                wall, processor = spent(words)
                if turn:  # the first round fills caches and compiles
                    best[name] = min(best[name][0], wall), min(best[name][1], processor)
    rows = "\n".join(f"| {name} | {w:.2f} | {p:.2f} |" for name, (w, p) in best.items())
    return (
        f"Measured by `python -m benchmarks.startup` on {describe()}; fastest of {rounds} "
        "rounds.\n\n"
        f"| | wall s | processor s |\n|---|---:|---:|\n{rows}"
    )


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    text = report(options.rounds)
    print(text)
    if options.write:
        put(options.write, "startup", text)


if __name__ == "__main__":
    main()
