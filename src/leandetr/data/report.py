"""A doctor's report for people: tables of splits and classes, findings with advice."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leandetr.data.doctor import Report
from leandetr.data.findings import Finding
from leandetr.data.sheet import Heading, Tile, choose

LISTED = 40
"""Classes in the table at most; JSON has all of them."""

_MARKS = {
    "error": ("✗ error  ", "bold red"),
    "warning": ("! warning", "yellow"),
    "note": ("· note   ", "cyan"),
}


def show(report: Report, console: Console) -> None:
    """Print a report."""
    console.print(_splits(report))
    console.print(_classes(report))
    for one in report.findings:
        _print_finding(one, console)
    if not report.pixels:
        words = "Pixels were not looked at: --pixels finds damaged files and near copies."
        _say(console, f"\n{words}")
    _say(console, f"\n{verdict(report)}")


def verdict(report: Report) -> str:
    """The last line."""
    if not report.findings:
        return "Nothing to complain about."
    counts = f"{_many(report.errors, 'error')}, {_many(report.warnings, 'warning')}"
    return f"{counts}. " + (
        "Correct the errors before training." if report.errors else "Training can start."
    )


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _say(console: Console, words: str) -> None:
    console.print(Text(words), soft_wrap=True)


def _print_finding(one: Finding, console: Console) -> None:
    mark, style = _MARKS[one.level]
    if one.places == () or one.count == len(one.places) == 1:
        text = one.places[0] if one.places else ""
        line = f"{one.source}: {one.what}" + (f": {text}" if text else "")
    else:
        line = f"{one.source}: {one.count:,} {one.what}"
    console.print()
    console.print(Text.assemble((mark, style), "  ", line), soft_wrap=True)
    if one.count > 1:
        for place in one.places:
            console.print(Text(f"             {place}", style="dim"), soft_wrap=True)
        if one.count > len(one.places):
            rest = f"             and {one.count - len(one.places):,} more"
            console.print(Text(rest, style="dim"))
    if one.advice:
        console.print(Padding(Text(f"→ {one.advice}", style="italic"), (0, 0, 0, 11)))


def _splits(report: Report) -> Table:
    """A row for each split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("split")
    heads = ("images", "empty", "boxes", "per image", "most", "small", "medium", "large", "pixels")
    for head in heads:
        table.add_column(head, justify="right")
    several = len({part.source for part in report.parts}) > 1
    for part, one in zip(report.parts, report.numbers, strict=True):
        name = f"{part.data.name}" if several else part.split
        shares = (_share(count, one.boxes) for count in (one.small, one.medium, one.large))
        low, high = (f"{width} x {height}" for height, width in (one.smallest, one.largest))
        table.add_row(
            Text(f"{name} ({part.format})"),
            *(f"{one.images:,}", f"{one.empty:,}", f"{one.boxes:,}", f"{one.median:g}"),
            *(f"{one.most:,}", *shares, low if low == high else f"{low} .. {high}"),
        )
    return table


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "-"


def _classes(report: Report) -> Table:
    """A row for each class, the most frequent first."""
    counts = report.classes()
    names = list(dict.fromkeys(name for found in counts.values() for name in found))
    total = {name: sum(found.get(name, 0) for found in counts.values()) for name in names}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    table.add_column("share", justify="right")
    everything = sum(total.values())
    for name in sorted(names, key=lambda one: -total[one])[:LISTED]:
        numbers = (f"{found.get(name, 0):,}" for found in counts.values())
        table.add_row(Text(name), *numbers, _share(total[name], everything))
    if len(names) > LISTED:
        table.add_row(f"and {len(names) - LISTED} more", *("" for _ in counts), "")
    return table


def contact(report: Report, title: str, count: int, seed: int) -> tuple[Sequence[Tile], Heading]:
    """What a contact sheet of the training split shows; of the first split if there is none."""
    first = next((part.usual for part in report.parts if part.usual == "train"), None)
    first = first or report.parts[0].usual
    shown = [part for part in report.parts if part.usual == first]
    pairs = zip(report.parts, report.numbers, strict=True)
    numbers = [one for part, one in pairs if part.usual == first]
    names = list(dict.fromkeys(name for part in shown for name in part.data.names))
    samples = [(part, sample) for part in shown for sample in part.data.samples]
    tiles = []
    for index in choose([sample for _, sample in samples], count, seed=seed):
        part, sample = samples[index]
        boxes = f"{len(sample.boxes)} box{'' if len(sample.boxes) == 1 else 'es'}"
        tiles.append(Tile(sample, part.data.names, f"{sample.path.name}  ·  {boxes}"))
    totals = {name: sum(one.classes.get(name, 0) for one in numbers) for name in names}
    images, boxes = sum(one.images for one in numbers), sum(one.boxes for one in numbers)
    about = f"{first}: {images:,} images, {boxes:,} boxes, {len(tiles)} shown"
    return tiles, Heading(title, about, list(totals.items()))
