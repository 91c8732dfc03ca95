"""The picture of a comparison: accuracy over multiply-adds, and over time."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leandetr.errors import MissingExtra
from leandetr.evaluation.compare import Compared, Comparison
from leandetr.evaluation.label_places import Box, Point, place
from leandetr.files import whole

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d"),
    *("#7570b3", "#e6ab02", "#1f2937", "#e31a1c", "#66a61e", "#8c8c8c"),
)
"""One a model; the first eight can be told apart by the colour-blind. Then they begin again."""

INK, GREY, FAINT = "#1f2937", "#6b7280", "#e5e7eb"
PANELS = (("gmacs", "billions of multiply-adds an image"), ("ms", "milliseconds an image"))
WIDE = 6.0
"""Costs that differ by more than this factor are drawn on a logarithmic axis."""

LONG_BAR = 1.4
"""How far a bar may reach beyond the point that is farthest to the right, as a factor."""

FAR = 0.16
"""Inches between a point and its name from which on a hair joins them."""


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG, SVG or PDF, by the ending of `path`.

    Models on a front are filled, the others hollow; random weights stand at the foot, where only
    the cost can be read. Raises `MissingExtra` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing a comparison", "matplotlib", "train") from error
    figure = Figure(figsize=(12, 5.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.15, top=0.84, wspace=0.08)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (cost, label) in zip(panels, PANELS, strict=True):
        _panel(axes, comparison, cost)
        axes.set_xlabel(label, fontsize=11, labelpad=8)
    panels[0].set_ylabel("AP (COCO, 0.50 to 0.95)", fontsize=11, labelpad=8)
    _titles(figure, comparison)
    figure.canvas.draw()  # fixes the axes, so that names can be placed in pixels
    for axes, (cost, _) in zip(panels, PANELS, strict=True):
        _names(axes, comparison, cost)
    with whole(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png")


def _titles(figure: Any, comparison: Comparison) -> None:
    images = f"{comparison.images} image{'s' * (comparison.images != 1)}"
    figure.text(0.06, 0.935, f"Accuracy and cost on {comparison.data}", fontsize=15, weight="bold")
    figure.text(
        0.06,
        0.885,
        f"{images}, {comparison.boxes} boxes; batch 1, median over images, bars from p10 to p90; "
        "filled and joined: nothing cheaper is as accurate",
        fontsize=9.5,
        color=GREY,
    )
    figure.text(0.06, 0.022, comparison.machine, fontsize=7.5, color=GREY)


def _panel(axes: Any, comparison: Comparison, cost: str) -> None:
    """Points, bars and the front of one panel."""
    costs = [getattr(model, cost) for model in comparison.models]
    if min(costs) > 0 and max(costs) / min(costs) > WIDE:
        _logarithmic(axes)
    front = comparison.front(cost)
    axes.plot(
        [getattr(model, cost) for model in front],
        [_ap(model) for model in front],
        color=INK,
        linewidth=1.3,
        alpha=0.6,
        zorder=2,
    )
    for model, colour in zip(comparison.models, _colours(comparison.models), strict=True):
        _point(axes, model, cost, colour, filled=model in front)
    _limits(axes, comparison.models, cost)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=9.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c4c8ce")


def _logarithmic(axes: Any) -> None:
    """A logarithmic cost axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _point(axes: Any, model: Compared, cost: str, colour: str, *, filled: bool) -> None:
    """A model: a disc, a ring off the front, a triangle at the foot without an AP."""
    x, y = getattr(model, cost), _ap(model)
    if math.isnan(y):
        foot = axes.get_xaxis_transform()
        axes.plot([x], [0.025], marker="^", color=GREY, markersize=7, transform=foot, zorder=3)
        return
    if cost == "ms":
        axes.plot([model.ms_low, model.ms_high], [y, y], color=colour, alpha=0.45, linewidth=2)
    face = colour if filled else "white"
    axes.plot(
        [x],
        [y],
        "o",
        markersize=10,
        color=face,
        markeredgecolor=colour,
        markeredgewidth=2,
        zorder=4,
    )


def _limits(axes: Any, models: Sequence[Compared], cost: str) -> None:
    """Room around points and bars for their names; a bar that is very long leaves the picture."""
    known = [_ap(model) for model in models if not math.isnan(_ap(model))] or [0.0]
    room = max(max(known) - min(known), 2.0)
    axes.set_ylim(max(min(known) - 0.28 * room, -0.04 * room), max(known) + 0.22 * room)
    fields = ("ms", "ms_low", "ms_high") if cost == "ms" else (cost,)
    costs = [getattr(model, name) for model in models for name in fields]
    low, high = min(costs), min(max(costs), LONG_BAR * max(getattr(m, cost) for m in models))
    if axes.get_xscale() == "log":
        axes.set_xlim(low / (high / low) ** 0.14, high * (high / low) ** 0.2)
    else:
        room = max(high - low, 0.2 * high)
        axes.set_xlim(max(low - 0.22 * room, 0), high + 0.28 * room)


def _names(axes: Any, comparison: Comparison, cost: str) -> None:
    """The name of each model, beside its point, over no other name and no line."""
    from matplotlib.patheffects import withStroke

    models, front = comparison.models, comparison.front(cost)
    halo = [withStroke(linewidth=3, foreground="white")]
    drawn = [
        axes.text(
            *(0, 0, name),
            fontsize=9.5,
            color=INK if model in front else GREY,
            path_effects=halo,
            verticalalignment="center",
            zorder=5,
        )
        for name, model in zip(short_names(models), models, strict=True)
    ]
    renderer = axes.figure.canvas.get_renderer()
    sizes = [text.get_window_extent(renderer) for text in drawn]
    edge = axes.get_window_extent(renderer)
    points = [_pixel(axes, model, cost) for model in models]
    boxes = place(
        points,
        [(size.width, size.height) for size in sizes],
        Box(edge.x0, edge.y0, edge.x1, edge.y1),
        gap=0.055 * axes.figure.dpi,
        lines=_lines(axes, comparison, cost),
    )
    back = axes.transData.inverted()
    for text, box, point in zip(drawn, boxes, points, strict=True):
        text.set_position(back.transform((box.left, (box.bottom + box.top) / 2)))
        _lead(axes, point, box.nearest(point))


def _lead(axes: Any, point: Point, end: Point) -> None:
    """A hair from a point to its name, where that is not right beside it."""
    if math.dist(point, end) > FAR * axes.figure.dpi:
        xs, ys = zip(*axes.transData.inverted().transform([point, end]), strict=True)
        axes.plot(xs, ys, color=GREY, linewidth=0.7, zorder=3)


def _lines(axes: Any, comparison: Comparison, cost: str) -> list[tuple[Point, Point]]:
    """The front and the bars, in pixels."""
    corners = [_pixel(axes, model, cost) for model in comparison.front(cost)]
    front = list(zip(corners, corners[1:], strict=False))
    if cost != "ms":
        return front
    scored = [model for model in comparison.models if not math.isnan(_ap(model))]
    ends = [[(m.ms_low, _ap(m)), (m.ms_high, _ap(m))] for m in scored]
    bars = [axes.transData.transform(pair).tolist() for pair in ends]
    return front + [((a[0], a[1]), (b[0], b[1])) for a, b in bars]


def _pixel(axes: Any, model: Compared, cost: str) -> tuple[float, float]:
    """Where a model's point is in the picture."""
    y = _ap(model)
    low, high = axes.get_ylim()
    inside = low + 0.025 * (high - low) if math.isnan(y) else y
    x, y = axes.transData.transform((getattr(model, cost), inside))
    return float(x), float(y)


def short_names(models: Sequence[Compared]) -> list[str]:
    """Names without the folders that all of them share, and a remark on random weights."""
    parts = [model.name.rstrip("/").split("/") for model in models]
    while len(parts) > 1 and all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    plain = ["/".join(p) for p in parts]
    return [
        name if model.scores is not None else f"{name} (random weights)"
        for name, model in zip(plain, models, strict=True)
    ]


def _colours(models: Sequence[Compared]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(models))]


def _ap(model: Compared) -> float:
    """AP in percent; NaN where there is none."""
    return math.nan if model.scores is None else 100 * model.scores.ap
