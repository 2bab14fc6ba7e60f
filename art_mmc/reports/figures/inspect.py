"""
The measurements as matplotlib figures that no global state knows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from art_mmc.reports.figures.style import (
    DASHES,
    DOTS,
    FAINT,
    INK,
    SPINE,
    colour,
    grid,
    legend,
    new_figure,
    style_panel,
)
from art_mmc.reports.tables import format_eps
from art_mmc.theory.density import binned
from art_mmc.theory.embedding import FeatureMap
from art_mmc.theory.ranks import RankStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: one hue from dark to light: ranks have an order
_RANK_COLOURS = ("#08306b", "#2f79b5", "#8fc1de", "#d6dde4")
_RANK_NAMES = ("runner-up", "rank 2", "rank 3", "rank 4 and below")

#: more classes than this are not named in a feature picture
_MOST_NAMED = 20


_new_figure = partial(new_figure, gaps=(0.03, 0.04))


# ------------------------------------------------------------------------------------------------------ feature maps


def feature_figure(maps: Sequence[FeatureMap], title: str = "Features", eps: float | None = None) -> Figure:
    """
    Feature maps side by side: clean points filled, adversarial ones as crosses in the colour of their true class,
    centers as diamonds.

    :param maps: At least one map.
    :param title: Title of the figure.
    :param eps: Radius of the adversarial examples, for the legend.
    :return: The figure; its panels have the points of the maps in the data's own coordinates.
    :raises ValueError: For no map.
    """
    from matplotlib.lines import Line2D

    if not maps:
        raise ValueError("maps: expected at least one feature map, got none.")
    figure = _new_figure(5.2 * len(maps) + 0.2, 5.6, title)
    for panel, each in zip(grid(figure, len(maps), len(maps)), maps, strict=True):
        _draw_map(panel, each)
    handles = [Line2D([], [], linestyle="", marker="o", markersize=5, color=INK, alpha=0.7, label="clean")]
    if any(each.adversarial is not None for each in maps):
        at = "" if eps is None else f", eps {format_eps(eps)}"
        handles.append(Line2D([], [], linestyle="", marker="x", markersize=5, color=INK, label=f"adversarial{at}"))
    if any(each.centers is not None for each in maps):
        handles.append(
            Line2D(
                [], [], linestyle="", marker="D", markersize=6, markerfacecolor="white", markeredgecolor=INK,
                markeredgewidth=1.4, label="class center",
            )
        )  # fmt: skip
    legend(figure, handles, 3)
    return figure


def _draw_map(panel: Axes, each: FeatureMap) -> None:
    for label in np.unique(each.y):
        ours = each.y == label
        panel.scatter(
            each.points[ours, 0], each.points[ours, 1], s=11, color=colour(label), alpha=0.65, linewidths=0, zorder=2
        )
        if each.adversarial is not None:
            panel.scatter(
                each.adversarial[ours, 0],
                each.adversarial[ours, 1],
                s=13,
                marker="x",
                color=colour(label),
                alpha=0.75,
                linewidths=0.8,
                zorder=3,
            )
    if each.centers is not None:
        edges = [colour(label) for label in range(len(each.centers))]
        panel.scatter(
            each.centers[:, 0],
            each.centers[:, 1],
            s=42,
            marker="D",
            facecolor="white",
            edgecolor=edges,
            linewidths=1.8,
            zorder=4,
        )
        _name_classes(panel, each, np.arange(len(each.centers)), each.centers, above=0.035)
    else:
        labels = np.unique(each.y)
        _name_classes(panel, each, labels, np.array([np.median(each.points[each.y == k], axis=0) for k in labels]))
    if each.explained is None:
        style_panel(panel, "t-SNE")
        panel.set_xticks([])
        panel.set_yticks([])
    else:
        x, y = (f"component {i + 1} ({100 * share:.0f} % of variance)" for i, share in enumerate(each.explained))
        style_panel(panel, "Principal components", x, y, grid="both")
        panel.set_aspect("equal", adjustable="datalim")


def _name_classes(panel: Axes, each: FeatureMap, labels: np.ndarray, places: np.ndarray, above: float = 0.0) -> None:
    """The number of each class near a place, or `above` it by a share of the picture's height."""
    from matplotlib.patheffects import withStroke

    if len(labels) > _MOST_NAMED:
        return
    size = np.ptp(np.concatenate([each.points, places]), axis=0).max() or 1.0
    for label, (x, y) in zip(labels, spread(places + [0.0, above * size], 0.04 * size), strict=True):
        text = panel.annotate(
            str(label), (x, y), ha="center", va="center", fontsize=10, fontweight="bold", color=colour(label), zorder=5
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def spread(places: np.ndarray, least: float) -> np.ndarray:
    """
    :param places: Places of labels (N, 2).
    :param least: The distance that two of them are to have.
    :return: The places, those that were nearer moved apart by as much as was needed.
    """
    places = np.array(places, float)
    for _ in range(50):
        moved = False
        for i, j in itertools.combinations(range(len(places)), 2):
            gap = places[j] - places[i]
            distance = float(np.hypot(*gap))
            if distance < 0.999 * least:
                way = gap / distance if distance else np.array([1.0, 0.0])
                places[i] -= (least - distance) / 2 * way
                places[j] += (least - distance) / 2 * way
                moved = True
        if not moved:
            break
    return places


# ----------------------------------------------------------------------------------------------------------- density


def density_figure(curves: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> Figure:
    """
    Log density over the quantile of the loss, several networks together: a network's losses are unlike another's, but
    each has a lowest and a highest.

    :param curves: Name of a network -> name of a panel -> "train" and "test", rows of loss and log density (2, N).
    :return: The figure: medians of tenths of the samples, training features solid, test features dashed.
    """
    from matplotlib.lines import Line2D

    panels = list(next(iter(curves.values())))
    figure = _new_figure(4.9 * len(panels) + 0.2, 4.6, "Sample density over loss")
    for panel, name in zip(grid(figure, len(panels), len(panels)), panels, strict=True):
        for i, sets in enumerate(curves.values()):
            for part, (loss, log_density) in sets[name].items():
                x, median = binned(loss, log_density)
                style: dict[str, Any] = (
                    {"linewidth": 2.0, "marker": "o", "markersize": 3.5}
                    if part == "train"
                    else {"linewidth": 1.5, "linestyle": DASHES}
                )
                panel.plot(x, median, color=colour(i), **style)
        style_panel(panel, name, "quantile of the loss (0: lowest)", "log density, natural")
        panel.set_xlim(0, 1)
    handles = [Line2D([], [], color=colour(i), linewidth=2.2, label=name) for i, name in enumerate(curves)]
    handles += [
        Line2D([], [], color=INK, linewidth=2.0, marker="o", markersize=3.5, label="training features"),
        Line2D([], [], color=INK, linewidth=1.5, linestyle=DASHES, label="test features"),
    ]
    legend(figure, handles, 6)
    return figure


def loss_density_figure(samples: Mapping[str, Mapping[str, np.ndarray]], ylabel: str) -> Figure:
    """
    Log density against the training loss, one panel a network, one point a sample.

    :param samples: Name of a network -> "train" and "test", rows of loss and log density (2, N).
    :param ylabel: What the density is.
    :return: The figure.
    """
    from matplotlib.lines import Line2D

    columns = min(len(samples), 3)
    rows = math.ceil(len(samples) / columns)
    figure = _new_figure(max(3.8 * columns, 5), 3.3 * rows + 1.0, "Sample density against the training loss")
    for i, (panel, (name, sets)) in enumerate(zip(grid(figure, len(samples), columns), samples.items(), strict=True)):
        for part, (loss, log_density) in sets.items():
            train = part == "train"
            panel.scatter(
                loss, log_density, s=6 if train else 12, color=FAINT if train else colour(i),
                alpha=0.6 if train else 0.75, linewidths=0, zorder=1 if train else 2,
            )  # fmt: skip
        style_panel(panel, name, "training loss" if i + columns >= len(samples) else "", "" if i % columns else ylabel)
        _scale_losses(panel, np.concatenate([loss for loss, _ in sets.values()]))
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=FAINT, label="training features"),
        Line2D([], [], linestyle="", marker="o", markersize=5, color=INK, label="test features (in colour)"),
    ]
    legend(figure, handles, 2)
    return figure


def _scale_losses(panel: Axes, loss: np.ndarray) -> None:
    """A logarithmic axis where losses span decades, linear around those that are zero; else a linear one."""
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

    positive = loss[loss > 0]
    if loss.min() < 0 or not len(positive) or positive.max() < 30 * positive.min():
        panel.xaxis.set_major_locator(MaxNLocator(5))
    elif len(positive) == len(loss):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(numticks=6))
    else:
        first, last = math.floor(math.log10(np.quantile(positive, 0.05))), math.ceil(math.log10(positive.max()))
        panel.set_xscale("symlog", linthresh=10.0**first)
        stride = max(1, math.ceil((last - first) / 4))
        panel.xaxis.set_major_locator(FixedLocator([0.0, *(10.0**p for p in range(last, first - 1, -stride)[::-1])]))
    panel.xaxis.set_minor_locator(NullLocator())


# ---------------------------------------------------------------------------------------------------------- boundary


def boundary_figure(
    distances: Mapping[str, Mapping[str, np.ndarray]], limits: Mapping[str, float], xlabel: str
) -> Figure:
    """
    Signed distances of features to the nearest boundary of their class, one panel a network.

    :param distances: Name of a network -> name of a set, e.g. "train" -> distances (N,), positive on the right side.
    :param limits: Name of a network -> the upper bound of the robustness measure in the same unit, for those that have
           one.
    :param xlabel: What the distance is.
    :return: The figure: the share of the features of each set, as steps.
    """
    from matplotlib.lines import Line2D

    columns = min(len(distances), 3)
    rows = math.ceil(len(distances) / columns)
    figure = _new_figure(max(3.8 * columns, 5.4), 3.0 * rows + 1.1, "Distance to the nearest decision boundary")
    parts: dict[str, tuple[str, Any]] = {}
    looks = ((INK, "-"), ("#2f79b5", "-"), ("#CC6677", DASHES))
    for i, (panel, (name, sets)) in enumerate(
        zip(grid(figure, len(distances), columns), distances.items(), strict=True)
    ):
        values = np.concatenate(list(sets.values()))
        edges = np.linspace(min(values.min(), 0), max(values.max(), limits.get(name, 0)) * 1.02, 41)
        for part, look in zip(sets, looks, strict=False):
            parts[part] = look
            share = np.histogram(sets[part], bins=edges)[0] / len(sets[part])
            panel.stairs(100 * share, edges, color=look[0], linestyle=look[1], linewidth=1.7)
        panel.axvline(0, color=SPINE, linewidth=0.9)
        if name in limits:
            panel.axvline(limits[name], color="#117733", linewidth=1.6, linestyle=DOTS)
        style_panel(panel, name, xlabel if i + columns >= len(distances) else "", "" if i % columns else "features, %")
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=1.9, label=part)
        for part, (colour, line) in parts.items()
    ]
    if limits:
        handles.append(
            Line2D(
                [], [], color="#117733", linewidth=1.6, linestyle=DOTS, label="limit for centers of this norm (MMLDA)"
            )
        )
    legend(figure, handles, 4 if columns > 1 else 2)
    return figure


# ----------------------------------------------------------------------------------------------------- probability gap


def gap_figure(gaps: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """
    Probability gaps, one row a network and set: the box from the first to the third quartile with the median, whiskers
    from the 5th to the 95th percentile.

    :param gaps: Name of a network -> name of a set -> gaps (N,).
    :return: The figure.
    """
    rows = [(name, part, values) for name, sets in gaps.items() for part, values in sets.items()]
    figure = _new_figure(7.2, 0.36 * len(rows) + 1.5, "Probability gap (true minus likeliest false class)")
    panel = figure.subplots()
    order = list(gaps)
    for i, (name, part, values) in enumerate(rows):
        low, left, middle, right, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        ours = colour(order.index(name))
        panel.hlines(i, low, high, color=ours, linewidth=1.4, zorder=2)
        panel.vlines([low, high], i - 0.15, i + 0.15, color=ours, linewidth=1.4, zorder=2)
        panel.barh(
            i, right - left, left=left, height=0.6, linewidth=1.4, zorder=3, edgecolor=ours,
            color=ours if part == "clean" else "white",
        )  # fmt: skip
        panel.vlines(middle, i - 0.38, i + 0.38, color=INK, linewidth=2.0, zorder=4)
    panel.set_yticks(range(len(rows)), [f"{name}, {part}" for name, part, _ in rows])
    panel.invert_yaxis()
    panel.axvline(0, color=SPINE, linewidth=0.9)
    panel.set_xlim(-1.03, 1.03)
    style_panel(
        panel,
        "",
        "softmax probability; below 0 the prediction is wrong\n"
        "(box: quartiles and median; whiskers: 5th and 95th percentile)",
        grid="x",
    )
    return figure


# ------------------------------------------------------------------------------------------------------------- ranks


def rank_figure(studies: Mapping[str, RankStudy]) -> Figure:
    """
    The ranks that newly successful attacks land on, as stacked bars over eps: one row a network, one column an attack.

    :param studies: Name of a network -> its study.
    :return: The figure; above each bar the number of newly fooled samples.
    """
    from matplotlib.patches import Patch

    attacks = list(next(iter(studies.values())).attacks)
    rows = len(studies)
    figure = _new_figure(4.3 * len(attacks) + 0.4, 2.5 * rows + 1.3, "Where newly successful attacks land")
    panels = iter(grid(figure, rows * len(attacks), len(attacks), sharey=True))
    shown = 1
    for row, (name, study) in enumerate(studies.items()):
        for column, attack in enumerate(attacks):
            panel = next(panels)
            counts = study.counts(attack)
            grouped = np.column_stack([counts[:, :3], counts[:, 3:].sum(axis=1)])[:, : min(4, counts.shape[1])]
            shown = max(shown, grouped.shape[1])
            total = grouped.sum(axis=1)
            share = 100 * grouped / np.maximum(total, 1)[:, None]
            bottom = np.zeros(len(total))
            for rank in range(grouped.shape[1]):
                panel.bar(
                    range(len(total)), share[:, rank], bottom=bottom, width=0.72, color=_RANK_COLOURS[rank],
                    edgecolor="white", linewidth=0.6,
                )  # fmt: skip
                bottom += share[:, rank]
            for i, n in enumerate(total):
                panel.text(i, 102 if n else 2, f"n = {n}", ha="center", va="bottom", fontsize=8, color=INK)
            style_panel(
                panel,
                f"{name}, {attack}",
                "eps (L-inf)" if row == rows - 1 else "",
                "landed there, %" if column == 0 else "",
            )
            panel.set_xticks(range(len(total)), [format_eps(eps) for eps in study.eps])
            panel.set_xlim(-0.6, len(total) - 0.4)
            panel.set_ylim(0, 114)
            panel.set_yticks(range(0, 101, 25))
    legend(figure, [Patch(color=c, label=n) for c, n in list(zip(_RANK_COLOURS, _RANK_NAMES, strict=True))[:shown]], 4)
    return figure


# ------------------------------------------------------------------------------------------------------- convergence


def convergence_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """
    Loss and accuracy over the epochs, several trainings together. Each loss is another function with another floor, so
    it is drawn as its share of its own range: 1 at the highest epoch of the training loss, 0 at the lowest, linear
    below 0.01. Where a training goes over to another loss, its line breaks and the range is another.

    :param histories: Name of a training -> one record an epoch, as :func:`.read_history` gives them.
    :return: The figure: training solid, validation dashed.
    :raises ValueError: For no history, or one without epochs.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if not histories or not all(histories.values()):
        raise ValueError("histories: expected at least one training with at least one epoch.")
    figure = _new_figure(9.8, 4.4, "Convergence")
    left, right = grid(figure, 2, 2)
    accuracies: list[float] = []
    for i, history in enumerate(histories.values()):
        for prefix, look, width in (("", "-", 2.0), ("val_", DASHES, 1.4)):
            style: dict[str, Any] = {"color": colour(i), "linestyle": look, "linewidth": width}
            for stage in _stages(history):
                losses = [record["loss"] for record in stage]
                low, span = min(losses), (max(losses) - min(losses)) or 1.0
                _draw_curve(left, stage, prefix + "loss", low, span, style)
            accuracies += _draw_curve(right, history, prefix + "accuracy", 0.0, 0.01, style)
    style_panel(left, "Loss, share of its range", "epoch")
    left.set_yscale("symlog", linthresh=0.01)
    left.yaxis.set_major_locator(FixedLocator([0, 0.01, 0.1, 1, 10, 100]))
    left.yaxis.set_minor_locator(NullLocator())
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style_panel(right, "Accuracy", "epoch", "%")
    # the first epochs would press the others together
    right.set_ylim(max(0.0, float(np.quantile(accuracies, 0.05)) - 3), 100.8)
    handles = [Line2D([], [], color=colour(i), linewidth=2.2, label=name) for i, name in enumerate(histories)]
    if any(record.get("val_accuracy") is not None for history in histories.values() for record in history):
        handles += [
            Line2D([], [], color=INK, linewidth=2.0, label="training"),
            Line2D([], [], color=INK, linewidth=1.4, linestyle=DASHES, label="validation"),
        ]
    legend(figure, handles, 6)
    return figure


def _draw_curve(
    panel: Axes, records: Sequence[Mapping[str, Any]], key: str, zero: float, one: float, style: dict[str, Any]
) -> list[float]:
    """Draw what the records hold under a key, on a scale with another zero and one; the values that were drawn."""
    known = [record for record in records if record.get(key) is not None]
    values = [(record[key] - zero) / one for record in known]
    few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 3 else {}
    panel.plot([record["epoch"] for record in known], values, **style, **few)
    return values


def _stages(history: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The epochs by the loss that was trained on."""
    return [list(group) for _, group in itertools.groupby(history, key=lambda record: record.get("stage"))]
