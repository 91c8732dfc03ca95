"""A profile as text: a table for the terminal, Markdown for a page."""

from typing import TYPE_CHECKING

from leandetr.evaluation.counting import Tally
from leandetr.evaluation.profile import PartProfile, Profile
from leandetr.evaluation.timing import Spread

if TYPE_CHECKING:
    from rich.table import Table

TITLES = ("part", "params", "GMACs", "%", "ms", "p10 to p90", "%", "of peak")
NONE = "-"
SAMPLING = {
    "all": "all of sampling",
    "grid": "of sampling what fvcore sees of plain PyTorch",
    "key-aware": "of sampling what fvcore sees of key-aware attention in plain PyTorch",
    "none": "",
}


def heading(profile: Profile) -> str:
    """What was profiled, and how."""
    height, width = profile.size
    under = f" (convention {profile.convention})" if profile.convention else ""
    fast = ", optimised" if profile.how.fast or profile.how.dtype != "float32" else ""
    return (
        f"{profile.model} at {height}x{width}{under}, batch {profile.how.batch}, "
        f"{profile.how.dtype}{fast}, {profile.how.device}"
    )


def rows(profile: Profile) -> list[tuple[str, ...]]:
    """A row of text a part."""
    return [
        (
            part.name,
            _millions(part.parameters),
            f"{part.gmacs:.2f}" if part.gmacs else NONE,
            _percent(part.gmacs, profile.gmacs),
            *_times(part, profile),
            NONE if part.share_of_peak is None else f"{part.share_of_peak:.0%}",
        )
        for part in profile.rows
    ]


def total(profile: Profile) -> tuple[str, ...]:
    """The row of the whole."""
    return (
        "whole",
        _millions(profile.parameters),
        f"{profile.gmacs:.2f}",
        "100",
        _milliseconds(profile.latency.median),
        _range(profile.latency),
        "100",
        f"{profile.share_of_peak:.0%}",
    )


def table(profile: Profile) -> "Table":
    """The parts as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold", pad_edge=False, show_footer=True)
    for title, foot in zip(TITLES, total(profile), strict=True):
        side = "left" if title == "part" else "right"
        drawn.add_column(title, Text(foot, style="bold"), justify=side, no_wrap=True)
    for row in rows(profile):
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def notes(profile: Profile) -> list[str]:
    """What was counted, what memory it takes, and the machine."""
    weights = profile.parameters * (2 if profile.how.dtype == "bfloat16" else 4)
    held = ""
    if profile.process_memory is not None:
        held = f"; the process held {_mebibytes(profile.process_memory)} more than before a pass"
    return [
        f"GMACs: billions of multiply-adds of one image. Counted: {counted(profile.tally)}.",
        f"Memory: {_mebibytes(profile.peak_memory)} of tensors at most, beside "
        f"{_mebibytes(weights)} of weights{held}.",
        f"Peak: one large matrix product does {profile.matmul_peak:.1f} GMACs a second here, "
        "measured after every pass.",
        f"Times: {profile.how.passes} passes after a warm-up, {profile.machine}.",
    ]


def counted(tally: Tally) -> str:
    """What a tally counts, in words."""
    more = [
        SAMPLING[tally.sampling],
        "norms" if tally.norms else "",
        "elementwise work" if tally.elementwise else "",
        "what official code works out and nobody reads" if tally.unread else "",
    ]
    return ", ".join(["convolutions", "matrix products", "attention", *filter(None, more)])


def markdown(profile: Profile) -> str:
    """The same as a Markdown page."""
    lines = [
        f"**{heading(profile)}**",
        "",
        f"| {' | '.join(TITLES)} |",
        f"|---|{'---:|' * (len(TITLES) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows(profile)),
        f"| {' | '.join(f'**{cell}**' for cell in total(profile))} |",
        "",
        *(f"{note}  " for note in notes(profile)),
    ]
    return "\n".join(lines) + "\n"


def _times(part: PartProfile, profile: Profile) -> tuple[str, str, str]:
    if not part.latency.median:
        return NONE, NONE, NONE
    return (
        _milliseconds(part.latency.median),
        _range(part.latency),
        _percent(part.latency.median, sum(row.latency.median for row in profile.rows)),
    )


def _range(spread: Spread) -> str:
    return f"{_milliseconds(spread.p10)} to {_milliseconds(spread.p90)}"


def _milliseconds(seconds: float) -> str:
    """Three digits, as far as they are before the point."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f}M" if parameters else NONE


def _percent(value: float, whole: float) -> str:
    return f"{100 * value / whole:.1f}" if value and whole else NONE


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
