"""Reports go between the markers of a page."""

from pathlib import Path


def put(page: Path, section: str, text: str) -> None:
    """Replace what is between `<!-- section: begin -->` and `<!-- section: end -->`."""
    head, _, tail = _parts(page, section)
    page.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")


def held(page: Path, section: str) -> str:
    """What is there now."""
    return _parts(page, section)[1].strip()


def _parts(page: Path, section: str) -> tuple[str, str, str]:
    """A page up to the end of the first marker, what is between both, and the rest."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    between, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page}: expected the lines {begin} and {end}; add them")
    return head + begin, between, end + tail
