"""Data sets made of data sets: in another format, split anew, or a small part.

The files that are read are never changed, and nothing is overwritten. What cannot be read is left
out, counted and told; the rest is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leandetr.data import deal
from leandetr.data.combine import combine
from leandetr.data.dataset import DetectionData, subset
from leandetr.data.findings import Finding, How, unwatched
from leandetr.data.sources import Given, Source, each, own_splits, recognise
from leandetr.data.splits import in_order, usual
from leandetr.data.twins import Watch
from leandetr.data.write import WRITERS, Bearer, new_folder
from leandetr.errors import DataError

NAMES = {"COCO": "coco", "YOLO": "yolo", "Pascal VOC": "voc"}
"""What formats are called on the command line."""


@dataclass(frozen=True)
class Written:
    """What was written to `out`: images and boxes by split, and what was met on the way."""

    out: Path
    format: str
    splits: Mapping[str, tuple[int, int]]
    findings: tuple[Finding, ...]

    @property
    def skipped(self) -> int:
        """Entries and files that could not be used."""
        return sum(one.count for one in self.findings if one.level == "error")


def convert(
    data: Given, out: str | Path, *, to: str, link: bool = False, watch: Watch = unwatched
) -> Written:
    """Write all splits of a data set, or of several as one, in another format.

    Class names, and for COCO the ids of classes and images, stay. With `link`, images become
    symbolic links. Raises `DataError` and `OutputExists`.
    """
    splits, findings, _ = _read(data, watch)
    return _write(splits, Path(out), to, Bearer(link, watch), findings)


def split(
    data: Given,
    out: str | Path,
    *,
    val: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
    to: str | None = None,
    link: bool = False,
    watch: Watch = unwatched,
) -> Written:
    """Deal all images anew into train, val and test, each class in the same shares.

    Copies of one image (the same bytes, or augmented copies as Roboflow names them) stay
    together. The same seed deals the same way. Raises `DataError` and `OutputExists`.
    """
    splits, findings, form = _read(data, watch)
    whole = combine(list(splits.values()))
    shares = {"train": 1 - val - test, "val": val, "test": test}
    asked = {name: share for name, share in shares.items() if share or name == "train"}
    dealt = deal.split(whole, asked, seed)
    parts = {name: subset(whole, sorted(indices)) for name, indices in dealt.items()}
    return _write(parts, Path(out), to or form, Bearer(link, watch), findings)


def sample(
    data: Given,
    out: str | Path,
    count: int,
    *,
    seed: int = 0,
    to: str | None = None,
    link: bool = False,
    watch: Watch = unwatched,
) -> Written:
    """Write `count` images, from each split its share, each class about as often as before.

    Raises `DataError` and `OutputExists`.
    """
    splits, findings, form = _read(data, watch)
    total = sum(len(part) for part in splits.values())
    if not 1 <= count <= total:
        raise DataError(f"expected 1 to {total} images, as many as there are, got {count}")
    counts = deal.shared(count, {name: len(part) for name, part in splits.items()})
    parts = {
        name: subset(part, sorted(deal.pick(part, counts[name], seed)))
        for name, part in splits.items()
        if counts[name]
    }
    return _write(parts, Path(out), to or form, Bearer(link, watch), findings)


def _read(data: Given, watch: Watch) -> tuple[dict[str, DetectionData], list[Finding], str]:
    """All splits under their usual names, what was met, and the format of the first source."""
    sources = [recognise(root) for root in each(data)]
    parts: dict[str, list[DetectionData]] = {}
    findings: list[Finding] = []
    for source in sources:
        called = _called(source)
        for name in own_splits(source):
            try:
                read = source.read(name, How(strict=False, watch=watch))
            except DataError as error:
                label = f"{source.root.resolve().name}/{name}"
                findings.append(
                    Finding("split-unreadable", "error", label, "cannot be read", 1, (str(error),))
                )
                continue
            one = read.data()
            findings += [replace(found, source=one.name) for found in read.log.findings]
            parts.setdefault(called[name], []).append(one)
    if not parts:
        raise DataError("; ".join(text for one in findings for text in one.places))
    ordered = {name: parts[name] for name in sorted(parts, key=in_order)}
    return _of_one_kind(ordered), findings, NAMES[sources[0].kind]


def _called(source: Source) -> dict[str, str]:
    """The usual name of each split, unless two would share it."""
    names = [usual(name) for name in source.splits]
    return {
        name: new if names.count(new) == 1 else name
        for name, new in zip(source.splits, names, strict=True)
    }


def _of_one_kind(parts: Mapping[str, Sequence[DetectionData]]) -> dict[str, DetectionData]:
    """Each split as one data set, all with the same classes."""
    everything = [one for some in parts.values() for one in some]
    if len({one.categories for one in everything}) == 1:
        return {name: combine(list(some)) for name, some in parts.items()}
    empty = [replace(one, samples=()) for one in everything]
    # classes of all splits, in every split: the first of each list brings them
    return {name: combine([*empty, *some]) for name, some in parts.items()}


def _write(
    splits: Mapping[str, DetectionData],
    out: Path,
    to: str,
    bearer: Bearer,
    findings: Sequence[Finding],
) -> Written:
    if to not in WRITERS:
        raise DataError(f"expected --to {', '.join(WRITERS)}, got '{to}'")
    with new_folder(out) as folder:
        WRITERS[to](folder, splits, bearer)
    lost, samples = list(findings), [one for part in splits.values() for one in part.samples]
    crowds = sum(int(one.crowd.sum()) for one in samples)
    if to == "yolo" and crowds:
        what = "boxes around many objects left out, YOLO has none"
        lost.append(Finding("crowd-lost", "warning", out.name, what, crowds))
    used = {label for one in samples for label in one.labels.tolist()}
    names = next(iter(splits.values())).names
    if to == "voc" and len(used) < len(names):
        unused = tuple(name for label, name in enumerate(names) if label not in used)
        what = "classes without a box, which Pascal VOC cannot keep"
        lost.append(Finding("class-lost", "warning", out.name, what, len(unused), unused[:5]))
    counts = {
        name: (len(part), sum(len(s.boxes) for s in part.samples)) for name, part in splits.items()
    }
    return Written(out, to, counts, tuple(lost))
