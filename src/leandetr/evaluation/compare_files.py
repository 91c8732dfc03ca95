"""What `leandetr compare --out` leaves behind."""

from pathlib import Path

from leandetr.evaluation.compare import Comparison
from leandetr.evaluation.compare_picture import draw
from leandetr.evaluation.compare_text import as_csv, markdown, to_dict
from leandetr.files import refuse_existing, write_json, write_text

OUTPUTS = ("compare.json", "compare.csv", "compare.md", "compare.png")
"""Everything with all digits; a row a model; the table of the terminal; the picture."""


def write(comparison: Comparison, out: str | Path, *, overwrite: bool = False) -> None:
    """Write a comparison into the folder `out` (see `OUTPUTS`), each file whole.

    Raises `OutputExists` if one of them is there already, unless `overwrite`, and `MissingExtra`
    without matplotlib; the other files are there then.
    """
    folder = Path(out)
    refuse_existing([folder / name for name in OUTPUTS], overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", to_dict(comparison))
    write_text(folder / "compare.csv", as_csv(comparison))
    write_text(folder / "compare.md", markdown(comparison))
    draw(comparison, folder / "compare.png")
