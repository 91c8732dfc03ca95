"""What is wrong with a data set: counts, findings with advice, and whether training would work.

report = check("data/cells")
report.ok, report.errors, report.warnings
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leandetr.data import suspicion, twins
from leandetr.data.advice import ADVICE, COUNTED_FROM
from leandetr.data.census import Numbers, Part, count
from leandetr.data.findings import SHOWN, Finding, How, unwatched
from leandetr.data.sources import Given, each, own_splits, recognise
from leandetr.data.splits import in_order
from leandetr.data.twins import Watch
from leandetr.errors import DataError
from leandetr.images import IMAGE_SUFFIXES, Preprocess

PIXELS = 5000
"""Up to so many images their pixels are looked at unasked."""

_ORDER = ("error", "warning", "note")


@dataclass(frozen=True)
class Report:
    """What `check` found; findings go from errors to notes."""

    parts: tuple[Part, ...]
    numbers: tuple[Numbers, ...]
    findings: tuple[Finding, ...]
    pixels: bool

    @property
    def errors(self) -> int:
        """Kinds of things that stop training or make its scores wrong."""
        return sum(one.level == "error" for one in self.findings)

    @property
    def warnings(self) -> int:
        """Kinds of things that training works around."""
        return sum(one.level == "warning" for one in self.findings)

    def ok(self, *, strict: bool = False) -> bool:
        """Whether there is no error and, if `strict`, no warning."""
        return not (self.errors or (strict and self.warnings))

    def classes(self) -> dict[str, dict[str, int]]:
        """Boxes of each class by split, parts of one split added up."""
        counts: dict[str, dict[str, int]] = {}
        for part, numbers in zip(self.parts, self.numbers, strict=True):
            found = counts.setdefault(part.usual, {})
            for name, number in numbers.classes.items():
                found[name] = found.get(name, 0) + number
        return counts

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        splits = [
            {"source": part.source, "format": part.format, "split": part.split} | asdict(numbers)
            for part, numbers in zip(self.parts, self.numbers, strict=True)
        ]
        counts = {"errors": self.errors, "warnings": self.warnings}
        found = [asdict(one) for one in self.findings]
        return {"ok": self.ok(), **counts, "splits": splits, "findings": found}


def check(
    data: Given,
    *,
    queries: int | None = None,
    preprocess: Preprocess | None = None,
    pixels: bool | None = None,
    watch: Watch = unwatched,
) -> Report:
    """Look at every split of a data set, or of several as one.

    `queries` and `preprocess` are those of the model to be trained. With `pixels` every image is
    decoded, to find damaged files and near copies; by default up to `PIXELS` images. `watch` is
    handed long lists and yields their elements. What is wrong is in the report; raises `DataError`
    only if no data set is recognised.
    """
    parts, findings = [], []
    for source in [recognise(root) for root in each(data)]:
        for split in own_splits(source):
            try:
                read = source.read(split, How(strict=False, watch=watch))
            except DataError as error:
                name = f"{source.root.resolve().name}/{split}"
                findings.append(
                    Finding("split-unreadable", "error", name, "cannot be read", 1, (str(error),))
                )
                continue
            findings += suspicion.fractions(read) if source.kind != "YOLO" else ()
            findings += suspicion.corners(read) if source.kind == "COCO" else ()
            part = Part(str(source.root), source.kind, split, read.data())
            findings += _shifted(read.log.findings, part)
            parts.append(part)
    parts = sorted(parts, key=lambda part: (in_order(part.split), part.data.name))
    numbers = [count(part.data) for part in parts]
    for part, counted in zip(parts, numbers, strict=True):
        findings += suspicion.images(part, counted)
        findings += suspicion.boxes(part)
        findings += suspicion.crowded(part, queries) if queries else ()
        findings += suspicion.lost(part, preprocess) if preprocess else ()
    many = sum(counted.images for counted in numbers)
    looked = many <= PIXELS if pixels is None else pixels
    findings += [*_splits(parts), *_copies(parts, looked, watch), *_unlisted(parts)]
    report = Report(tuple(parts), tuple(numbers), (), looked)
    findings += suspicion.classes(report.classes())
    return replace(report, findings=tuple(sorted(map(_advised, findings), key=_rank)))


def _advised(one: Finding) -> Finding:
    return one if one.advice else replace(one, advice=ADVICE.get(one.kind, ""))


def _rank(one: Finding) -> tuple[int, int]:
    return _ORDER.index(one.level), -one.count


def _shifted(found: Sequence[Finding], part: Part) -> Iterator[Finding]:
    """The findings of a reading; where class ids seem off by one, this is the advice."""
    used = {label for one in part.data.samples for label in one.labels.tolist()} if found else ()
    last = len(part.data.categories) - 1
    for one in found:
        named = one.kind == "class-unknown" or any("category_id" in text for text in one.places)
        if named and last > 0 and (0 in used) != (last in used):
            first = 0 not in used
            words = ("first", 1, "take one away from") if first else ("last", 0, "add one to")
            advice = COUNTED_FROM.format(end=words[0], start=words[1], shift=words[2])
            yield replace(one, source=part.data.name, advice=advice)
        else:
            yield replace(one, source=part.data.name)


def _splits(parts: Sequence[Part]) -> Iterator[Finding]:
    there = {part.usual for part in parts}
    for kind, name in (("train-none", "train"), ("val-none", "val")):
        if parts and name not in there:
            what = f"no split for {'training' if name == 'train' else 'validation'}"
            found = ", ".join(sorted(there))
            yield Finding(kind, "warning", "all splits", what, 1, (f"splits found: {found}",))


def _copies(parts: Sequence[Part], pixels: bool, watch: Watch) -> Iterator[Finding]:
    """Images that are there twice, in one split or in two; and files that cannot be decoded."""
    samples = [(part, sample) for part in parts for sample in part.data.samples]
    paths = [sample.path for _, sample in samples]
    split = [part.usual for part, _ in samples]
    within, across, known = [], defaultdict(list), set()
    for group in twins.same_bytes(paths):
        first = group[0]
        for other in group[1:]:
            pair = f"{_short(paths[first])} = {_short(paths[other])}"
            if split[first] != split[other]:
                across[split[first], split[other]].append(pair)
                known |= {(first, other), (other, first)}
            elif paths[first] != paths[other]:
                within.append(pair)
    for (one, other), pairs in across.items():
        what = f"images of {one} that are in {other} too"
        yield suspicion.finding("leak", "error", f"{one} and {other}", what, pairs)
    if within:
        yield suspicion.finding("image-copies", "warning", "one split", "copies of images", within)
    if pixels:
        small = twins.thumbnails(paths, [sample.size for _, sample in samples], watch)
        broken = [f"{_short(paths[index])}: {why}" for index, why in small.broken.items()]
        if broken:
            what = "images that cannot be decoded"
            yield suspicion.finding("image-broken", "error", "all splits", what, broken)
        yield from _near(small, split, paths, known)
    yield from _origins(split, paths)


def _near(
    small: twins.Thumbnails, split: Sequence[str], paths: Sequence[Path], known: set
) -> Iterator[Finding]:
    """Nearly the same image in two splits."""
    names = list(dict.fromkeys(split))
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            sides = [[i for i, name in enumerate(split) if name == side] for side in (one, other)]
            alike = [pair for pair in small.alike(*sides) if pair not in known]
            pairs = [f"{_short(paths[i])} ~ {_short(paths[j])}" for i, j in alike]
            if pairs:
                what = f"images of {one} nearly the same as one of {other}"
                yield suspicion.finding("leak-near", "warning", f"{one} and {other}", what, pairs)


def _origins(split: Sequence[str], paths: Sequence[Path]) -> Iterator[Finding]:
    """Augmented copies of one picture in several splits."""
    where = defaultdict(set)
    for name, path in zip(split, paths, strict=True):
        if (made_from := twins.origin(path)) is not None:
            where[made_from].add(name)
    several = [f"{name} in {', '.join(sorted(at))}" for name, at in where.items() if len(at) > 1]
    if several:
        what = "pictures whose augmented copies are in several splits"
        yield suspicion.finding("leak-origin", "error", "all splits", what, several)


def _unlisted(parts: Sequence[Part]) -> Iterator[Finding]:
    """Images beside those that are used, of which no annotation speaks."""
    used = {sample.path for part in parts for sample in part.data.samples}
    folders = sorted({path.parent for path in used})
    files = (path for folder in folders for path in sorted(folder.iterdir()))
    left = [
        _short(path) for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path not in used
    ]
    if left:
        what = "images without annotations"
        yield Finding("image-unlisted", "note", "folders", what, len(left), tuple(left[:SHOWN]))


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
