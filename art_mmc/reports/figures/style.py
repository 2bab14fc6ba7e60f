"""
What all pictures share: matplotlib figures that no global state knows, their colours and their manners.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from art_mmc.reports.tables import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

#: ten colours after Paul Tol's "muted" scheme, two of them changed: under every kind of colour vision no two are nearer
#: than 15 in CIELAB
COLOURS = (
    "#332288", "#CC6677", "#117733", "#D9B23A", "#4FA8D8", "#882255", "#8A8A2B", "#44AA99", "#AA4499", "#1A1A1A",
)  # fmt: skip
INK, FAINT, GRID, SPINE = "#2b2b2b", "#c4c4c4", "#ececec", "#9a9a9a"
DASHES, DOTS = (0, (3.2, 1.6)), (0, (1, 1.3))


def colour(i: int) -> str:
    """The colour of the i-th of several, from the first again after the last."""
    return COLOURS[i % len(COLOURS)]


def new_figure(width: float, height: float, title: str = "", gaps: tuple[float, float] = (0.02, 0.03)) -> Figure:
    """
    An empty figure of so many inches, laid out so that nothing overlaps; gaps between panels as shares of a panel,
    across and down.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07, wspace=gaps[0], hspace=gaps[1]))
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", color=INK)
    return figure


def figure_png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def grid(figure: Figure, count: int, columns: int, **kwargs: Any) -> list[Axes]:
    """As many panels as are needed, row by row; the empty places of the last row are off."""
    panels = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False, **kwargs).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels[max(0, count - columns) : count]:  # the lowest of their columns, if they share an axis
        panel.tick_params(labelbottom=True)
    return panels[:count]


def style_panel(
    panel: Axes,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    grid: Literal["x", "y", "both"] = "y",
    size: float = 9.5,
) -> None:
    """Spines, grid, ticks and words as in all pictures of this package; words that are not given stay as they are."""
    if title:
        panel.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
    if xlabel:
        panel.set_xlabel(xlabel, fontsize=size, color=INK)
    if ylabel:
        panel.set_ylabel(ylabel, fontsize=size, color=INK)
    panel.tick_params(labelsize=8.5, colors=INK, length=3)
    panel.grid(axis=grid, color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(SPINE)


def percent_axis(panel: Axes, top: float, low: float = 0.0) -> None:
    """A vertical axis of percent, with room up to `top` and, for lines at 0, down to `low`."""
    panel.set_ylim(low, top)
    panel.set_yticks(range(0, 101, 25))


def named_panels(
    figure: Figure,
    names: Sequence[str],
    columns: int,
    xlabel: str = "",
    ylabel: str = "",
    size: float = 9.5,
    **kwargs: Any,
) -> list[Axes]:
    """A panel for each name, see :func:`grid`; the words of the axes stand at the lower and the left edge."""
    panels = grid(figure, len(names), columns, **kwargs)
    for i, (panel, name) in enumerate(zip(panels, names, strict=True)):
        style_panel(panel, name, xlabel if i + columns >= len(names) else "", "" if i % columns else ylabel, size=size)
    return panels


def entry(label: str, **look: Any) -> Any:
    """An entry of a legend: a line, or points where `linestyle` is ""."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **({"color": INK} | look))


def legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """A legend below the panels, in rows of about equal length and of so many entries at most."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=math.ceil(len(handles) / math.ceil(len(handles) / columns)),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
    )


def radius_labels(eps: Sequence[float]) -> list[str]:
    """
    Radii, ascending, the first one 0, in words; empty where one would run into its neighbour to the right, or into the
    zero.
    """
    labels: list[str] = []
    right = math.inf
    for each in reversed(eps[1:]):
        fits = right - each > 0.15 * eps[-1] and each > 0.08 * eps[-1]
        labels.append(format_eps(each) if fits else "")
        right = each if fits else right
    return ["0", *reversed(labels)]
