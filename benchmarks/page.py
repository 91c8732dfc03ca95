"""Reports go between the markers of a page."""

from pathlib import Path


def put(page: Path, section: str, text: str) -> None:
    """Replace what is between `<!-- section: begin -->` and `<!-- section: end -->`."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page}: expected the lines {begin} and {end}; add them")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
