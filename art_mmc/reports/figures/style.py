"""
What all pictures share: matplotlib figures that no global state knows, their colours and their manners.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from art_mmc.reports.tables import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: after Paul Tol's "muted" scheme, which people with any colour vision can tell apart; its two pale colours darker
COLOURS = ("#332288", "#CC6677", "#117733", "#AA4499", "#4FA8D8", "#999933", "#882255", "#44AA99", "#D9A441")
INK, FAINT, GRID, SPINE = "#2b2b2b", "#c4c4c4", "#ececec", "#9a9a9a"
DASHES = (0, (3.2, 1.6))


def new_figure(width: float, height: float) -> Figure:
    """
    :param width: Width in inches.
    :param height: Height in inches.
    :return: An empty figure, laid out so that nothing overlaps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07, wspace=0.02, hspace=0.03))
    return figure


def figure_png(figure: Figure) -> bytes:
    """
    :param figure: A figure.
    :return: It as a PNG file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def style_panel(panel: Axes) -> None:
    """
    Spines, grid and ticks as in all pictures of this package.

    :param panel: The panel.
    """
    panel.tick_params(labelsize=8.5, colors=INK, length=3)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(SPINE)


def radius_labels(eps: Sequence[float]) -> list[str]:
    """
    :param eps: Radii, ascending, the first one 0.
    :return: The radii in words, empty where one would run into its neighbour to the right, or into the zero.
    """
    labels: list[str] = []
    right = math.inf
    for each in reversed(eps[1:]):
        fits = right - each > 0.15 * eps[-1] and each > 0.08 * eps[-1]
        labels.append(format_eps(each) if fits else "")
        right = each if fits else right
    return ["0", *reversed(labels)]
