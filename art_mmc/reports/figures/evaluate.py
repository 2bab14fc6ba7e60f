"""
Pictures of one evaluation: curves by objective, zero gradients, examples, and which class is taken for which.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from art_mmc.checks import UNIT_BOX
from art_mmc.evaluation import RobustnessRecord
from art_mmc.evaluation.records import Curves
from art_mmc.reports.figures.style import (
    COLOURS,
    DASHES,
    GRID,
    INK,
    SPINE,
    figure_png,
    new_figure,
    radius_labels,
    style_panel,
)
from art_mmc.reports.tables import format_eps, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: objective -> its name, colour, dashes and marker; the same in every picture
STYLES = {
    "loss": ("own loss", COLOURS[0], DASHES, "s"),
    "cross_entropy": ("cross-entropy", COLOURS[1], (0, (6, 1.5, 1.2, 1.5)), "^"),
    "margin": ("margin", COLOURS[2], "-", "o"),
}
_OTHER = (COLOURS[3], (0, (1, 1.3)), "D")

#: images in the grid, and classes up to which the confusion carries numbers
COLUMNS, MOST_CLASSES = 8, 20


def robustness_pictures(record: RobustnessRecord) -> dict[str, bytes]:
    """
    :param record: The record.
    :return: Name of each file -> the PNG; only those for which there are figures.
    """
    curves = record.curves
    figures: dict[str, Figure] = {}
    if curves is not None:
        figures["eps.png"] = eps_figure(record, curves)
        figures["steps.png"] = steps_figure(record, curves)
        figures["zero-gradients.png"] = zero_gradient_figure(record, curves)
    if record.inputs is not None and record.examples is not None:
        grid = examples_figure(record)
        if grid is not None:
            figures["examples.png"] = grid
    if record.labels is not None and record.predictions is not None:
        figures["confusion.png"] = confusion_figure(record)
    return {name: figure_png(figure) for name, figure in figures.items()}


def style_of(objective: str) -> tuple[str, str, Any, str]:
    """
    :param objective: Name of an objective.
    :return: Its name in words, colour, dashes and marker.
    """
    return STYLES.get(objective, (objective.replace("_", " "), *_OTHER))


def _titled(width: float, height: float, title: str, subtitle: str = "") -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    panel = figure.add_subplot()
    _title(figure, title)
    if subtitle:
        panel.set_title(fill(subtitle, int(12 * width)), fontsize=9, color=INK, loc="left", pad=8)
    return figure, panel


def _title(figure: Figure, title: str) -> None:
    """A title as long as it may be, in as many lines as it needs."""
    width = int(9.3 * figure.get_figwidth())
    figure.suptitle(fill(title, width), fontsize=12.5, fontweight="bold", color=INK, x=0.02, ha="left")


def _heading(record: RobustnessRecord, what: str) -> str:
    facts = record.provenance
    where = f" on {short_name(facts['dataset'])}" if "dataset" in facts else ""
    return f"{what}: {facts.get('name', 'classifier')}{where}"


def _accuracy_panel(panel: Axes, xlabel: str) -> None:
    style_panel(panel)
    panel.set_ylim(0, 104)
    panel.set_yticks(range(0, 101, 25))
    panel.set_xlabel(xlabel, fontsize=9.5, color=INK)
    panel.set_ylabel("accuracy, %", fontsize=9.5, color=INK)


def _line(panel: Axes, x: Sequence[float], y: Sequence[float], objective: str, prefix: str = "") -> None:
    name, colour, dashes, marker = style_of(objective)
    panel.plot(
        x,
        y,
        color=colour,
        linestyle=dashes,
        marker=marker,
        linewidth=1.9,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        clip_on=False,
        label=prefix + name,
        zorder=3,
    )


def _legend(panel: Axes) -> None:
    panel.figure.legend(
        *panel.get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=3,
    )


def _counted(record: RobustnessRecord, curves: Curves) -> str:
    """The images that curves are about."""
    return f"{curves.n} images" if curves.n == record.clean.n else f"the first {curves.n} of {record.clean.n} images"


def eps_figure(record: RobustnessRecord, curves: Curves) -> Figure:
    """
    Accuracy over eps: PGD on each objective, and the worst case over all attacks, on the same samples.

    :param record: The record.
    :param curves: The curves.
    :return: A figure.
    """
    figure, panel = _titled(
        7.2,
        3.9,
        _heading(record, "Accuracy over eps"),
        f"PGD with {curves.steps_over_eps} steps on each objective; {_counted(record, curves)}",
    )
    eps = [0.0, *curves.eps]
    for objective, counts in curves.over_eps.items():
        _line(panel, eps, [100 * count / curves.n for count in (curves.clean, *counts)], objective, "PGD, ")
    worst = [100 * record.worst_case(each).standing[: curves.n].mean() for each in record.eps]
    panel.plot(
        [0.0, *record.eps],
        [100 * curves.clean / curves.n, *worst],
        color=INK,
        linewidth=2.6,
        marker="X",
        markersize=8,
        markeredgecolor="white",
        markeredgewidth=0.7,
        clip_on=False,
        label="worst case,\nall attacks",
        zorder=4,
    )
    _accuracy_panel(panel, f"eps ({'L-inf' if curves.norm == float('inf') else 'L2'})")
    panel.set_xlim(0, 1.02 * eps[-1])
    panel.set_xticks(eps, radius_labels(eps))
    _legend(panel)
    return figure


def steps_figure(record: RobustnessRecord, curves: Curves) -> Figure:
    """
    Accuracy over the number of steps: a curve that still falls at its end has not converged.

    :param record: The record.
    :param curves: The curves.
    :return: A figure.
    """
    figure, panel = _titled(
        7.2,
        3.9,
        _heading(record, "Accuracy over steps"),
        f"PGD at eps {format_eps(curves.at)}, one random start; {_counted(record, curves)}",
    )
    for objective, counts in curves.over_steps.items():
        _line(panel, curves.steps, [100 * count / curves.n for count in counts], objective, "PGD, ")
    if curves.at in record.eps:
        worst = 100 * record.worst_case(curves.at).standing[: curves.n].mean()
        panel.axhline(worst, color=INK, linewidth=2.2, label="worst case,\nall attacks", zorder=2)
    panel.axhline(
        100 * curves.clean / curves.n, color=SPINE, linewidth=1.2, linestyle=(0, (2, 2)), label="clean", zorder=1
    )
    _accuracy_panel(panel, "steps")
    panel.set_xscale("log")
    panel.set_xticks(curves.steps, [str(count) for count in curves.steps])
    panel.minorticks_off()
    _legend(panel)
    return figure


def zero_gradient_figure(record: RobustnessRecord, curves: Curves) -> Figure:
    """
    Share of exactly zero gradients, at the clean inputs and at random points of growing balls, one row an objective.

    :param record: The record.
    :param curves: The curves.
    :return: A figure.
    """
    eps = [0.0, *curves.eps]
    shares = np.array([[count / max(1, curves.clean) for count in counts] for counts in curves.zero.values()])
    figure, panel = _titled(
        max(6.4, 0.62 * len(eps) + 2.4),
        0.46 * len(shares) + 1.7,
        _heading(record, "Gradients that are exactly zero"),
        f"% of {curves.clean} correctly classified images, at the image (eps 0) or at a random point of the ball",
    )
    panel.imshow(100 * shares, cmap=_shades(), vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        panel.text(
            column,
            row,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=9.5,
            color="white" if share > 0.5 else INK,
        )
    panel.set_xticks(range(len(eps)), [format_eps(each) for each in eps])
    panel.set_yticks(range(len(shares)), [style_of(objective)[0] for objective in curves.zero])
    _cells(panel, *shares.shape)
    panel.set_xlabel(f"eps ({'L-inf' if curves.norm == float('inf') else 'L2'})", fontsize=9.5, color=INK)
    panel.set_ylabel("gradient of the", fontsize=9.5, color=INK)
    return figure


def _shades() -> Any:
    """From white to the darkest of the colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", ["#ffffff", "#cfc7e6", COLOURS[0]])


def _cells(panel: Axes, rows: int, columns: int) -> None:
    """Thin lines around the cells of a picture that is a table."""
    panel.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    panel.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    panel.grid(which="minor", color=GRID, linewidth=0.8)
    panel.tick_params(which="both", length=0, labelsize=9, colors=INK)
    panel.spines[:].set_color(SPINE)


def shown_examples(record: RobustnessRecord, most: int = COLUMNS) -> np.ndarray:
    """
    :param record: The record.
    :param most: Number of images at most.
    :return: Indices of samples that fell, of as many classes as there are.
    """
    fallen = np.flatnonzero(record.clean.standing & ~record.worst_case(record.eps[-1]).standing)
    if record.labels is None:
        return fallen[:most]
    seen: dict[int, int] = {}
    turn = []
    for index in fallen:
        k = int(record.labels[index])
        turn.append(seen.get(k, 0))
        seen[k] = turn[-1] + 1
    order = np.lexsort((record.labels[fallen], np.array(turn, dtype=int)))
    return fallen[order[:most]]


def examples_figure(record: RobustnessRecord) -> Figure | None:
    """
    Clean images, what the worst attack made of them, and the difference, magnified.

    :param record: The record, with inputs and examples.
    :return: A figure; None when no sample fell, or the inputs are no images of one, three or four channels first.
    """
    x = record.inputs
    index = shown_examples(record)
    if x is None or x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        return None
    if not len(index) or record.examples is None or record.labels is None or record.predictions is None:
        return None
    low, high = record.provenance.get("clip_values", UNIT_BOX) or (float(x.min()), float(x.max()))
    clean, adversarial = ((images[index] - low) / (high - low) for images in (x, record.examples))
    difference = adversarial - clean  # as a share of the range, as are the images
    largest = float(np.abs(difference).max())
    count, rows = len(index), 3
    size = 1.08
    figure = new_figure(max(size * count + 1.3, 5.4), size * rows + 0.95)
    panels = figure.subplots(rows, count, squeeze=False)
    for i in range(count):
        for row, image in enumerate((clean[i], adversarial[i], difference[i])):
            _draw_image(panels[row, i], image, largest if row == 2 else None)
        panels[0, i].set_title(str(record.labels[index[i]]), fontsize=10, color=INK, pad=3)
        panels[1, i].set_title(f"\N{RIGHTWARDS ARROW} {record.predictions[index[i]]}", fontsize=10, color=INK, pad=3)
    grey = x.shape[1] == 1
    magnified = f"difference,\nup to {format_eps(largest * (high - low))}"
    if not grey:
        magnified = f"difference\n\N{MULTIPLICATION SIGN} {0.5 / largest:.3g}"
    for row, label in enumerate(("clean", "adversarial", magnified)):
        panels[row, 0].set_ylabel(label, fontsize=9.5, color=INK, rotation=0, ha="right", va="center", labelpad=10)
    _title(figure, _heading(record, f"Worst case at eps {format_eps(record.eps[-1])}"))
    return figure


def _draw_image(panel: Axes, image: np.ndarray, largest: float | None) -> None:
    """An image (C, H, W), or with `largest` a difference."""
    if image.shape[0] == 1:
        limits = (0, 1) if largest is None else (-largest, largest)
        colours = "gray" if largest is None else "PuOr_r"
        panel.imshow(image[0], cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    else:
        shown = image if largest is None else 0.5 + 0.5 * image / largest
        panel.imshow(np.clip(shown[:3].transpose(1, 2, 0), 0, 1), interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(SPINE)
    panel.spines[:].set_linewidth(0.6)


def confusion_figure(record: RobustnessRecord) -> Figure:
    """
    For each class, which class its worst-case examples are taken for.

    :param record: The record, with labels and predictions.
    :return: A figure.
    """
    labels, predictions = np.asarray(record.labels), np.asarray(record.predictions)
    classes = int(record.provenance.get("nb_classes", 0)) or int(max(labels.max(), predictions.max())) + 1
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predictions), 1)
    size = min(6.4, max(3.6, 0.46 * classes + 1.2))
    figure = new_figure(size + 0.9, size + 0.5)
    panel = figure.add_subplot()
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    picture = panel.imshow(100 * share, cmap=_shades(), vmin=0, vmax=100)
    if classes <= MOST_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = share[row, column] > 0.5
            panel.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=8.5 if counts.max() < 1000 else 7,
                color="white" if dark else INK,
                fontweight="bold" if row == column else "normal",
            )
        panel.set_xticks(range(classes))
        panel.set_yticks(range(classes))
        _cells(panel, classes, classes)
    panel.tick_params(which="both", length=0, labelsize=9, colors=INK)
    panel.spines[:].set_color(SPINE)
    panel.set_xlabel("class that the worst-case image is taken for", fontsize=9.5, color=INK)
    panel.set_ylabel("true class", fontsize=9.5, color=INK)
    bar = figure.colorbar(picture, ax=panel, shrink=0.75, aspect=28, pad=0.02)
    bar.set_label("share of the class, %", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    _title(figure, _heading(record, f"Worst case at eps {format_eps(record.eps[-1])}"))
    return figure
