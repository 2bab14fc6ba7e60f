"""
The measurements as matplotlib figures that no global state knows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from art_mmc.reports.figures import style
from art_mmc.reports.tables import format_eps
from art_mmc.theory.density import binned
from art_mmc.theory.embedding import FeatureMap
from art_mmc.theory.ranks import RankStudy

#: one hue from dark to light: ranks have an order
_RANKS = {"runner-up": "#08306b", "rank 2": "#2f79b5", "rank 3": "#8fc1de", "rank 4 and below": "#d6dde4"}

#: more classes than this are not named in a feature picture
_MOST_NAMED = 20

#: how training and test features look in the picture of the density
_PARTS: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 2.0, "marker": "o", "markersize": 3.5},
    "test": {"linewidth": 1.5, "linestyle": style.DASHES},
}


def _new_figure(width: float, height: float, title: str) -> style.Figure:
    return style.new_figure(width, height, title, gaps=(0.03, 0.04))


def _by_network(
    names: Sequence[str], least: float, row: float, extra: float, title: str, xlabel: str, ylabel: str
) -> tuple[style.Figure, list[style.Axes]]:
    """A panel a network, in rows of three, `row` inches high each."""
    columns = min(len(names), 3)
    figure = _new_figure(max(3.8 * columns, least), row * math.ceil(len(names) / columns) + extra, title)
    return figure, style.named_panels(figure, names, columns, xlabel, ylabel)


def feature_figure(maps: Sequence[FeatureMap], title: str = "Features", eps: float | None = None) -> style.Figure:
    """
    Feature maps side by side: clean points filled, adversarial ones as crosses in the colour of their true class,
    centers as diamonds.

    :param maps: At least one map.
    :param title: Title of the figure.
    :param eps: Radius of the adversarial examples, for the legend.
    :return: The figure; its panels have the points of the maps in the data's own coordinates.
    :raises ValueError: For no map.
    """
    if not maps:
        raise ValueError("maps: expected at least one feature map, got none.")
    figure = _new_figure(5.2 * len(maps) + 0.2, 5.6, title)
    for panel, each in zip(style.grid(figure, len(maps), len(maps)), maps, strict=True):
        _draw_map(panel, each)
    handles = [style.entry("clean", linestyle="", marker="o", markersize=5, alpha=0.7)]
    if any(each.adversarial is not None for each in maps):
        at = "" if eps is None else f", eps {format_eps(eps)}"
        handles.append(style.entry(f"adversarial{at}", linestyle="", marker="x", markersize=5))
    if any(each.centers is not None for each in maps):
        edge: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": style.INK, "markeredgewidth": 1.4}
        handles.append(style.entry("class center", linestyle="", marker="D", markersize=6, **edge))
    style.legend(figure, handles, 3)
    return figure


def _draw_map(panel: style.Axes, each: FeatureMap) -> None:
    clean: dict[str, Any] = {"s": 11, "alpha": 0.65, "linewidths": 0, "zorder": 2}
    cross: dict[str, Any] = {"s": 13, "marker": "x", "alpha": 0.75, "linewidths": 0.8, "zorder": 3}
    diamond: dict[str, Any] = {"s": 42, "marker": "D", "facecolor": "white", "linewidths": 1.8, "zorder": 4}
    labels = np.unique(each.y)
    for label in labels:
        panel.scatter(*each.points[each.y == label].T, color=style.colour(label), **clean)
        if each.adversarial is not None:
            panel.scatter(*each.adversarial[each.y == label].T, color=style.colour(label), **cross)
    if each.centers is not None:
        edges = [style.colour(label) for label in range(len(each.centers))]
        panel.scatter(*each.centers.T, edgecolor=edges, **diamond)
        _name_classes(panel, each, np.arange(len(each.centers)), each.centers, above=0.035)
    else:
        _name_classes(panel, each, labels, np.array([np.median(each.points[each.y == k], axis=0) for k in labels]))
    if each.explained is None:
        style.style_panel(panel, "t-SNE", "first dimension, no unit", "second dimension, no unit")
        panel.set_xticks([])
        panel.set_yticks([])
    else:
        x, y = (f"component {i + 1} ({100 * share:.0f} % of variance)" for i, share in enumerate(each.explained))
        style.style_panel(panel, "Principal components", x, y, grid="both")
        panel.set_aspect("equal", adjustable="datalim")


def _name_classes(
    panel: style.Axes, each: FeatureMap, labels: np.ndarray, places: np.ndarray, above: float = 0.0
) -> None:
    """The number of each class near a place, or `above` it by a share of the picture's height."""
    from matplotlib.patheffects import withStroke

    if len(labels) > _MOST_NAMED:
        return
    size = np.ptp(np.concatenate([each.points, places]), axis=0).max() or 1.0
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10, "fontweight": "bold", "zorder": 5}
    for label, place in zip(labels, spread(places + [0.0, above * size], 0.04 * size), strict=True):
        text = panel.annotate(str(label), tuple(place), color=style.colour(label), **look)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def spread(places: np.ndarray, least: float) -> np.ndarray:
    """Places of labels (N, 2), those nearer than `least` to another moved apart by as much as was needed."""
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


def density_figure(curves: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> style.Figure:
    """Log density over the loss' quantile; network -> panel -> "train", "test" -> rows of loss and density (2, N)."""
    panels = list(next(iter(curves.values())))
    figure = _new_figure(4.9 * len(panels) + 0.2, 4.6, "Sample density over loss")
    for panel, name in zip(style.grid(figure, len(panels), len(panels)), panels, strict=True):
        for i, sets in enumerate(curves.values()):
            for part, (loss, log_density) in sets[name].items():
                panel.plot(*binned(loss, log_density), color=style.colour(i), **_PARTS[part])
        style.style_panel(panel, name, "quantile of the loss (0: lowest)", "log density, natural")
        panel.set_xlim(0, 1)
    handles = [style.entry(name, color=style.colour(i), linewidth=2.2) for i, name in enumerate(curves)]
    handles += [style.entry("training features", **_PARTS["train"]), style.entry("test features", **_PARTS["test"])]
    style.legend(figure, handles, 6)
    return figure


def loss_density_figure(samples: Mapping[str, Mapping[str, np.ndarray]], ylabel: str) -> style.Figure:
    """Log density against the loss, a panel a network: of "train" and "test" rows of loss and log density (2, N)."""
    title = "Sample density against the training loss"
    figure, panels = _by_network(list(samples), 5, 3.3, 1.0, title, "training loss", ylabel)
    for i, (panel, sets) in enumerate(zip(panels, samples.values(), strict=True)):
        looks: dict[str, dict[str, Any]] = {
            "train": {"s": 6, "color": style.FAINT, "alpha": 0.6, "zorder": 1},
            "test": {"s": 12, "color": style.colour(i), "alpha": 0.75, "zorder": 2},
        }
        for part, values in sets.items():
            panel.scatter(*values, linewidths=0, **looks[part])
        _scale_losses(panel, np.concatenate([loss for loss, _ in sets.values()]))
    point: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
    style.legend(
        figure,
        [
            style.entry("training features", **point, color=style.FAINT),
            style.entry("test features (in colour)", **point),
        ],
        2,
    )
    return figure


def _scale_losses(panel: style.Axes, loss: np.ndarray) -> None:
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


def boundary_figure(
    distances: Mapping[str, Mapping[str, np.ndarray]], limits: Mapping[str, float], xlabel: str
) -> style.Figure:
    """
    Signed distances (N,) of features to the nearest boundary of their class, positive on the right side, one panel a
    network, as shares of each set, e.g. "train"; with the upper bound of the measure for those that have one.
    """
    names, title = list(distances), "Distance to the nearest decision boundary"
    figure, panels = _by_network(names, 5.4, 3.0, 1.1, title, xlabel, "features, %")
    parts = list(dict.fromkeys(part for sets in distances.values() for part in sets))
    colours_and_lines = ((style.INK, "-"), ("#2f79b5", "-"), ("#CC6677", style.DASHES))
    looks: dict[str, dict[str, Any]] = {
        p: {"color": c, "linestyle": line} for p, (c, line) in zip(parts, colours_and_lines, strict=False)
    }
    limit: dict[str, Any] = {"color": "#117733", "linewidth": 1.6, "linestyle": style.DOTS}
    for panel, (name, sets) in zip(panels, distances.items(), strict=True):
        values = np.concatenate(list(sets.values()))
        edges = np.linspace(min(values.min(), 0), max(values.max(), limits.get(name, 0)) * 1.02, 41)
        for part, found in sets.items():
            share = np.histogram(found, bins=edges)[0] / len(found)
            panel.stairs(100 * share, edges, **looks[part], linewidth=1.7)
        panel.axvline(0, color=style.SPINE, linewidth=0.9)
        if name in limits:
            panel.axvline(limits[name], **limit)
    handles = [style.entry(part, **look, linewidth=1.9) for part, look in looks.items()]
    if limits:
        handles.append(style.entry("limit for centers of this norm (MMLDA)", **limit))
    style.legend(figure, handles, 4 if len(names) > 1 else 2)
    return figure


def gap_figure(gaps: Mapping[str, Mapping[str, np.ndarray]]) -> style.Figure:
    """Probability gaps (N,), a row a network and set: quartiles, median, and whiskers to 5th and 95th percentile."""
    rows = [
        (style.colour(k), f"{name}, {part}", part == "clean", values)
        for k, (name, sets) in enumerate(gaps.items())
        for part, values in sets.items()
    ]
    figure = _new_figure(7.2, 0.36 * len(rows) + 1.5, "Probability gap (true minus likeliest false class)")
    panel = figure.subplots()
    for i, (ours, _, filled, values) in enumerate(rows):
        low, left, middle, right, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        panel.hlines(i, low, high, color=ours, linewidth=1.4, zorder=2)
        panel.vlines([low, high], i - 0.15, i + 0.15, color=ours, linewidth=1.4, zorder=2)
        box: dict[str, Any] = {"edgecolor": ours, "color": ours if filled else "white", "linewidth": 1.4}
        panel.barh(i, right - left, left=left, height=0.6, zorder=3, **box)
        panel.vlines(middle, i - 0.38, i + 0.38, color=style.INK, linewidth=2.0, zorder=4)
    panel.set_yticks(range(len(rows)), [label for _, label, _, _ in rows])
    panel.invert_yaxis()
    panel.axvline(0, color=style.SPINE, linewidth=0.9)
    panel.set_xlim(-1.03, 1.03)
    xlabel = (
        "softmax probability; below 0 the prediction is wrong\n"
        "(box: quartiles and median; whiskers: 5th and 95th percentile)"
    )
    style.style_panel(panel, "", xlabel, grid="x")
    return figure


def rank_figure(studies: Mapping[str, RankStudy]) -> style.Figure:
    """
    The ranks that newly successful attacks land on, as stacked bars over eps: one row a network, one column an attack.

    :param studies: Name of a network -> its study.
    :return: The figure; above each bar the number of newly fooled samples.
    """
    from matplotlib.patches import Patch

    attacks = list(next(iter(studies.values())).attacks)
    shown = [(study, attack, f"{name}, {attack}") for name, study in studies.items() for attack in attacks]
    size = (4.3 * len(attacks) + 0.4, 2.5 * len(studies) + 1.3)
    figure = _new_figure(*size, "Where newly successful attacks land")
    names, words = [title for _, _, title in shown], ("eps (L-inf)", "landed there, %")
    most = 1
    for panel, (study, attack, _) in zip(
        style.named_panels(figure, names, len(attacks), *words, sharey=True), shown, strict=True
    ):
        counts = study.counts(attack)
        grouped = np.column_stack([counts[:, :3], counts[:, 3:].sum(axis=1)])[:, : min(4, counts.shape[1])]
        most = max(most, grouped.shape[1])
        total, places = grouped.sum(axis=1), range(len(counts))
        share = 100 * grouped / np.maximum(total, 1)[:, None]
        bottoms = np.cumsum(share, axis=1) - share
        for rank, look in zip(range(grouped.shape[1]), _RANKS.values(), strict=False):
            bar: dict[str, Any] = {"color": look, "edgecolor": "white", "linewidth": 0.6}
            panel.bar(places, share[:, rank], bottom=bottoms[:, rank], width=0.72, **bar)
        for i, n in enumerate(total):
            panel.text(i, 102 if n else 2, f"n = {n}", ha="center", va="bottom", fontsize=8, color=style.INK)
        panel.set_xticks(places, [format_eps(eps) for eps in study.eps])
        panel.set_xlim(-0.6, len(total) - 0.4)
        style.percent_axis(panel, 114)
    style.legend(figure, [Patch(color=look, label=name) for name, look in list(_RANKS.items())[:most]], 4)
    return figure


def convergence_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> style.Figure:
    """
    Loss and accuracy over the epochs, several trainings together. Each loss is another function with another floor, so
    it is drawn as its share of its own range: 1 at the highest epoch of the training loss, 0 at the lowest, linear
    below 0.01. Where a training goes over to another loss, its line breaks and the range is another.

    :param histories: Name of a training -> one record an epoch, as :func:`.read_history` gives them.
    :return: The figure: training solid, validation dashed.
    :raises ValueError: For no history, or one without epochs.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if not histories or not all(histories.values()):
        raise ValueError("histories: expected at least one training with at least one epoch.")
    figure = _new_figure(9.8, 4.4, "Convergence")
    left, right = style.grid(figure, 2, 2)
    accuracies: list[float] = []
    for i, history in enumerate(histories.values()):
        for prefix, look, width in (("", "-", 2.0), ("val_", style.DASHES, 1.4)):
            line: dict[str, Any] = {"color": style.colour(i), "linestyle": look, "linewidth": width}
            for _, group in itertools.groupby(history, key=lambda record: record.get("stage")):
                stage = list(group)
                losses = [record["loss"] for record in stage]
                low, span = min(losses), (max(losses) - min(losses)) or 1.0
                _draw_curve(left, stage, prefix + "loss", low, span, line)
            accuracies += _draw_curve(right, history, prefix + "accuracy", 0.0, 0.01, line)
    for panel in (left, right):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.style_panel(left, "Loss", "epoch", "share of its range")
    left.set_yscale("symlog", linthresh=0.01)
    left.yaxis.set_major_locator(FixedLocator([0, 0.01, 0.1, 1, 10, 100]))
    left.yaxis.set_minor_locator(NullLocator())
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.style_panel(right, "Accuracy", "epoch", "%")
    # the first epochs would press the others together
    right.set_ylim(max(0.0, float(np.quantile(accuracies, 0.05)) - 3), 100.8)
    handles = [style.entry(name, color=style.colour(i), linewidth=2.2) for i, name in enumerate(histories)]
    if any(record.get("val_accuracy") is not None for history in histories.values() for record in history):
        handles += [
            style.entry("training", linewidth=2.0),
            style.entry("validation", linewidth=1.4, linestyle=style.DASHES),
        ]
    style.legend(figure, handles, 6)
    return figure


def _draw_curve(
    panel: style.Axes, records: Sequence[Mapping[str, Any]], key: str, zero: float, one: float, line: dict[str, Any]
) -> list[float]:
    """Draw what the records hold under a key, on a scale with another zero and one; the values that were drawn."""
    known = [record for record in records if record.get(key) is not None]
    values = [(record[key] - zero) / one for record in known]
    few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 3 else {}
    panel.plot([record["epoch"] for record in known], values, **line, **few)
    return values
