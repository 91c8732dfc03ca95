"""The picture of a profile: where everything goes, and how fast each part is."""

import textwrap
from pathlib import Path
from typing import Any

from leandetr.errors import MissingExtra, RecipeError
from leandetr.evaluation.profile import PartProfile, Profile
from leandetr.evaluation.profile_text import counted
from leandetr.files import whole

INK, GREY = "#1f2937", "#6b7280"
STAGE_COLOURS = {
    "backbone": "#64748b",
    "neck": "#94a3b8",
    "queries": "#2a9d8f",
    "decoder": "#e9862d",
    "heads": "#b5458f",
}
ENCODER_COLOURS = ("#1d4e89", "#3f86c9", "#86b8e4", "#bcd7ef")
"""Of the encoder's kinds of layers, in order; its rest has the last."""
OTHER = "#cbd5e1"
NARROW = 0.045
"""Share of a bar below which there is no room for a number."""
LINE = 150
"""Characters of the subtitle that fit beside each other."""


def format_of(path: Path) -> str:
    """The format of a picture of this name, PNG where it has no ending.

    Raises `MissingExtra` without matplotlib, `RecipeError` for an ending that it cannot draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise MissingExtra("drawing a profile", "matplotlib", "train") from error
    ending = path.suffix.lstrip(".").lower() or "png"
    if ending not in FigureCanvasAgg.get_supported_filetypes():
        raise RecipeError(
            f"expected a picture that ends in .png, .svg or .pdf; got '{path}'; "
            f"type --picture {path.with_suffix('.png')}"
        )
    return ending


def draw(profile: Profile, path: Path) -> None:
    """Write the picture as PNG, SVG or PDF, by the ending of `path`; raises what `format_of` does.

    Its folder is there.
    """
    ending = format_of(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in profile.rows if row.latency.median or row.gmacs]
    colours = colours_of(shown)
    figure = Figure(figsize=(12, 2.3 + 0.36 * max(len(shown), 6)), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1, 2, width_ratios=(1.5, 1), left=0.115, right=0.98, bottom=0.1, top=0.75, wspace=0.58
    )
    _bars(figure.add_subplot(grid[0]), profile, shown, colours)
    _speeds(figure.add_subplot(grid[1]), profile, shown, colours)
    _titles(figure, profile)
    with whole(path) as partial:
        figure.savefig(partial, format=ending)


def colours_of(rows: list[PartProfile]) -> list[str]:
    """A colour a part; the kinds of layers of an encoder are shades of one."""
    kinds = [row.kind for row in rows if row.stage == "encoder" and row.kind != "rest"]
    colours = []
    for row in rows:
        if row.stage != "encoder":
            colours.append(STAGE_COLOURS.get(row.stage, OTHER))
        elif row.kind in kinds:
            colours.append(ENCODER_COLOURS[min(kinds.index(row.kind), 2)])
        else:
            colours.append(ENCODER_COLOURS[-1])
    return colours


def _titles(figure: Any, profile: Profile) -> None:
    height, width = profile.size
    figure.text(0.02, 0.93, profile.model, fontsize=16, weight="bold", color=INK)
    said = (
        f"one image of {height} x {width}"
        if profile.how.batch == 1
        else f"{profile.how.batch} images of {height} x {width}"
    )
    about = f"{said}, {profile.how.dtype}; counted: {counted(profile.tally)}"
    lines = textwrap.fill(about, LINE)
    figure.text(0.02, 0.905, lines, fontsize=9.5, color=GREY, verticalalignment="top")
    figure.text(0.02, 0.02, profile.machine, fontsize=7.5, color=GREY)


def _bars(axes: Any, profile: Profile, rows: list[PartProfile], colours: list[str]) -> None:
    """Three bars of the same length in percent, with the whole beside each."""
    latency = 1000 * profile.latency.median
    bars = (
        ("parameters", [row.parameters for row in rows], f"{profile.parameters / 1e6:.1f} M"),
        ("multiply-adds", [row.gmacs for row in rows], f"{_three(profile.gmacs)} G"),
        ("time", [row.latency.median for row in rows], f"{_three(latency)} ms"),
    )
    for height, (name, values, written) in enumerate(reversed(bars)):
        left = 0.0
        for value, colour in zip(values, colours, strict=True):
            share = value / (sum(values) or 1.0)
            axes.barh(height, share, left=left, height=0.66, color=colour, edgecolor="white")
            if share > NARROW:
                axes.text(
                    *(left + share / 2, height, f"{share:.0%}"),
                    color=_readable(colour),
                    fontsize=10,
                    horizontalalignment="center",
                    verticalalignment="center",
                )
            left += share
        axes.text(-0.015, height + 0.12, name, fontsize=11, color=INK, ha="right", va="center")
        axes.text(-0.015, height - 0.15, written, fontsize=10, color=GREY, ha="right", va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(bars) - 0.5)
    axes.set_title("where it goes", fontsize=11, color=INK, loc="left", pad=24)
    axes.axis("off")


def _speeds(axes: Any, profile: Profile, rows: list[PartProfile], colours: list[str]) -> None:
    """A bar a part, which is the legend too: how fast it multiplies."""
    from matplotlib.patheffects import withStroke

    shares = [row.share_of_peak for row in rows]
    most = max([1.0, *(share for share in shares if share is not None)])
    halo = [withStroke(linewidth=3, foreground="white")]
    for place, (row, share, colour) in enumerate(zip(rows, shares, colours, strict=True)):
        axes.barh(place, share or 0.0, height=0.66, color=colour, zorder=3)
        axes.text(-0.08 * most, place, row.name, fontsize=10, color=INK, ha="right", va="center")
        axes.plot(-0.045 * most, place, "s", markersize=9, color=colour, clip_on=False)
        axes.text(
            *((share or 0.0) + 0.015 * most, place, "" if share is None else f"{share:.0%}"),
            fontsize=10,
            color=INK,
            va="center",
            path_effects=halo,
            zorder=4,
        )
    _mark(axes, profile.share_of_peak, f"whole {profile.share_of_peak:.0%}", (0, (3, 3)))
    _mark(axes, 1.0, f"{_three(profile.matmul_peak)} GMACs/s", "-")
    axes.set_xlim(0, 1.12 * most)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    title = "how fast, beside one large matrix product"
    axes.set_title(title, fontsize=11, color=INK, loc="left", pad=24, x=-0.04)
    axes.axis("off")


def _mark(axes: Any, share: float, text: str, style: Any) -> None:
    """A line down all bars, with its meaning on top."""
    axes.axvline(share, color=GREY, linewidth=1.0, linestyle=style, zorder=2)
    axes.text(share, -0.62, text, fontsize=9, color=GREY, ha="center", va="bottom")


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _readable(colour: str) -> str:
    """White or ink, whatever stands out against `colour`."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 150 else "white"
