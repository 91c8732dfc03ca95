"""Write docs/parity.md from a run of all golden tests: `make parity`.

Needs the full golden set (`LEANDETR_GOLDEN`, or `shared/golden` beside the repository); every
number in the table was measured in that run.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "parity.md"
sys.path.insert(0, str(ROOT / "tests"))

import golden_data  # noqa: E402

HEAD = """# Parity with the official code

Every row is a case whose numbers were computed by the official implementation: operators,
modules, losses, gradients, whole detectors. A test builds the same thing here, loads the same
weights through the key map of `checkpoints/official/`, feeds the same input and compares. This
page is written by `make parity` from what the tests measured, never by hand; continuous
integration runs the same tests.

*Numbers* is how many numbers were compared. *Difference* and *tolerance* belong to the one of them
that came nearest to its tolerance (absolute tolerance plus relative tolerance times the value).
Cases that are compared exactly (indices, matches, names) say so.
"""


def main() -> None:
    """Run the golden tests and write the page."""
    if not golden_data.is_full():
        sys.exit("the full golden set was not found; set LEANDETR_GOLDEN to its folder")
    measured = run()
    names = golden_data.cases("*/*")
    missing = [name for name in names if name not in measured["cases"]]
    if missing:
        sys.exit(f"{len(missing)} cases were not proven by any passing test: {missing}")
    PAGE.write_text(page(names, measured), encoding="utf-8")
    sys.stdout.write(f"{len(names)} cases written to {PAGE.relative_to(ROOT)}\n")


def run() -> dict:
    """What one run of the golden tests measured; stops when a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "parity.json"
        environment = os.environ | {"LEANDETR_PARITY": str(report), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-m", "golden and not gpu", "-n", "2"]
        hook = "--jaxtyping-packages=leandetr,beartype.beartype"
        done = subprocess.run([*command, hook], cwd=ROOT, env=environment, check=False)
        if done.returncode:
            sys.exit("not written: a golden test failed")
        return json.loads(report.read_text())


def page(names: list[str], measured: dict) -> str:
    """The whole page: a table for each folder of cases."""
    import torch

    folders = sorted({name.split("/")[0] for name in names})
    others = [name for name in measured["cases"] if name not in names]
    made = f"\n{len(names)} cases, PyTorch {torch.__version__.split('+')[0]} on a CPU.\n"
    parts = [HEAD + made]
    for folder in folders:
        inside = [name for name in names if name.split("/")[0] == folder]
        parts.append(table(folder, inside, measured["numbers"]))
    if others:
        parts.append(table("other implementations", others, measured["numbers"]))
    return "\n".join(parts)


def table(title: str, names: list[str], numbers: dict) -> str:
    """One table: a row a case."""
    lines = [
        f"## {title}\n",
        "| case | official code | what is compared | numbers | difference | tolerance |",
        "|---|---|---|--:|--:|--:|",
    ]
    lines += [row(name, numbers.get(name)) for name in names]
    return "\n".join(lines) + "\n"


def row(name: str, near: dict | None) -> str:
    """The case, where its numbers come from, what it is about, and how near we came."""
    repository, what = about(name)
    cells = ["exact", "0", "0"]
    if near is not None:
        cells = [f"{near['numbers']}", f"{near['difference']:.1e}", f"{near['allowed']:.1e}"]
    return f"| {name.split('/', 1)[1]} | {repository} | {what} | " + " | ".join(cells) + " |"


def about(name: str) -> tuple[str, str]:
    """The official repository of a case and what it holds, in the words of the case itself."""
    path = golden_data.golden_root() / f"{name}.json"
    if not path.exists():
        return name.split("/")[0], "the same weights and images through both models"
    meta = json.loads(path.read_text(encoding="utf-8"))
    repository = meta.get("official_repo") or meta.get("repo") or meta.get("source") or "-"
    what = str(meta["what"])
    return repository.replace("|", "/"), what.replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    main()
