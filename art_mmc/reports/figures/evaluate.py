"""
Pictures of one evaluation: curves by objective, zero gradients, examples, and which class is taken for which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from art_mmc.checks import UNIT_BOX
from art_mmc.evaluation import RobustnessRecord
from art_mmc.evaluation.engine import norm_name
from art_mmc.evaluation.records import Curves
from art_mmc.reports.figures import style
from art_mmc.reports.tables import format_eps, short_name

#: objective -> its name, colour, dashes and marker; the same in every picture
STYLES: dict[str, tuple[str, str, Any, str]] = {
    "loss": ("own loss", style.COLOURS[0], style.DASHES, "s"),
    "cross_entropy": ("cross-entropy", style.COLOURS[1], (0, (6, 1.5, 1.2, 1.5)), "^"),
    **{name: (name.replace("_", " "), style.COLOURS[2], "-", "o") for name in ("soft_margin", "margin")},
}

#: how markers look, and lines that may touch the frame
_MARKED: dict[str, Any] = {"markeredgecolor": "white", "clip_on": False}

#: images in the grid, and classes up to which the confusion carries numbers
COLUMNS, MOST_CLASSES = 8, 20


def robustness_pictures(record: RobustnessRecord) -> dict[str, bytes]:
    """Name of each picture -> the PNG file; only those for which there are figures."""
    curves = record.curves
    figures: dict[str, style.Figure | None] = {}
    if curves is not None:
        figures["eps.png"] = eps_figure(record, curves)
        figures["steps.png"] = steps_figure(record, curves)
        figures["zero-gradients.png"] = zero_gradient_figure(record, curves)
    figures["progress.png"] = progress_figure(record)
    figures["examples.png"] = examples_figure(record)
    if record.labels is not None and record.predictions is not None:
        figures["confusion.png"] = confusion_figure(record)
    return {name: style.figure_png(figure) for name, figure in figures.items() if figure is not None}


def _style(objective: str) -> tuple[str, str, Any, str]:
    return STYLES.get(objective, (objective.replace("_", " "), style.COLOURS[3], style.DOTS, "D"))


def _title(figure: style.Figure, record: RobustnessRecord, what: str) -> None:
    """A title as long as it may be, in as many lines as it needs."""
    facts = record.provenance
    where = f" on {short_name(facts['dataset'])}" if "dataset" in facts else ""
    title = fill(f"{what}: {facts.get('name', 'classifier')}{where}", int(9.3 * figure.get_figwidth()))
    figure.suptitle(title, fontsize=12.5, fontweight="bold", color=style.INK, x=0.02, ha="left")


def _titled(
    record: RobustnessRecord, what: str, how: str, width: float, height: float
) -> tuple[style.Figure, style.Axes]:
    figure = style.new_figure(width, height)
    panel = figure.add_subplot()
    _title(figure, record, what)
    panel.set_title(fill(how, int(12 * width)), fontsize=9, color=style.INK, loc="left", pad=8)
    return figure, panel


def _curves_figure(
    record: RobustnessRecord,
    curves: Curves,
    over: str,
    how: str,
    x: Sequence[float],
    counts: Mapping[str, Sequence[int]],
) -> tuple[style.Figure, style.Axes]:
    """Accuracy under PGD on each objective, over the radii or the steps `x`."""
    n = f"{curves.n} images" if curves.n == record.clean.n else f"the first {curves.n} of {record.clean.n} images"
    figure, panel = _titled(record, f"Accuracy over {over}", f"PGD {how}; {n}", 7.2, 3.9)
    for objective, each in counts.items():
        name, colour, dashes, marker = _style(objective)
        look = {"color": colour, "linestyle": dashes, "marker": marker, "linewidth": 1.9, "markersize": 5}
        y = [100 * count / curves.n for count in each]
        panel.plot(x, y, **look, markeredgewidth=0.6, label=f"PGD, {name}", zorder=3, **_MARKED)
    style.style_panel(panel, "", f"eps ({norm_name(curves.norm)})" if over == "eps" else over, "accuracy, %")
    style.percent_axis(panel, 104, -3)
    return figure, panel


def _legend(panel: style.Axes) -> None:
    look: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": style.INK, "handlelength": 3}
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", **look)


def eps_figure(record: RobustnessRecord, curves: Curves) -> style.Figure:
    """Accuracy over eps: PGD on each objective, and the worst case over all attacks, on the same samples."""
    how, eps = f"with {curves.steps_over_eps} steps on each objective", [0.0, *curves.eps]
    counts = {objective: [curves.clean, *found] for objective, found in curves.over_eps.items()}
    figure, panel = _curves_figure(record, curves, "eps", how, eps, counts)
    worst = [100 * record.worst_case(each).standing[: curves.n].mean() for each in record.eps]
    look: dict[str, Any] = {
        "color": style.INK,
        "linewidth": 2.6,
        "marker": "X",
        "markersize": 8,
        "markeredgewidth": 0.7,
    }
    known = {0.0: 100 * curves.clean / curves.n, **dict(zip(record.eps, worst, strict=True))}
    if len(record.eps) == 1:  # between the clean figure and a single radius nothing was measured
        known, look = {record.eps[0]: worst[0]}, {**look, "linestyle": ""}
    panel.plot(*zip(*known.items(), strict=True), label="worst case,\nall attacks", zorder=4, **look, **_MARKED)
    panel.set_xlim(0, 1.02 * eps[-1])
    panel.set_xticks(eps, style.radius_labels(eps))
    _legend(panel)
    return figure


def steps_figure(record: RobustnessRecord, curves: Curves) -> style.Figure:
    """Accuracy over the number of steps: a curve that still falls at its end has not converged."""
    how, steps = f"at eps {format_eps(curves.at)}, one random start", list(curves.steps)
    figure, panel = _curves_figure(record, curves, "steps", how, steps, curves.over_steps)
    if curves.at in record.eps:
        worst = 100 * record.worst_case(curves.at).standing[: curves.n].mean()
        panel.axhline(worst, color=style.INK, linewidth=2.2, label="worst case,\nall attacks", zorder=2)
    clean: dict[str, Any] = {"color": style.SPINE, "linewidth": 1.2, "linestyle": (0, (2, 2))}
    panel.axhline(100 * curves.clean / curves.n, label="clean", zorder=1, **clean)
    panel.set_xscale("log")
    panel.set_xticks(steps, [str(count) for count in steps])
    panel.minorticks_off()
    _legend(panel)
    return figure


def progress_figure(record: RobustnessRecord) -> style.Figure | None:
    """What is left at the largest radius over the gradients spent, round by round; None without rounds."""
    eps = record.eps[-1]
    rounds = [each.round for each in record.attacks if each.bounded and each.eps <= eps]
    if not any(rounds):
        return None
    how = f"all attacks at eps {format_eps(eps)} in turn; a filled mark ends a round"
    figure, panel = _titled(record, "Accuracy over the work spent", how, 7.2, 3.9)
    spent, left = np.array(record.progress(eps), dtype=float).T / record.clean.n
    panel.step(spent, 100 * left, where="post", color=style.INK, linewidth=1.9, zorder=3)
    ends = [
        i for i, (this, after) in enumerate(zip(rounds, [*rounds[1:], 0], strict=True), 1) if this and this != after
    ]
    panel.plot(spent[ends], 100 * left[ends], "o", color=style.COLOURS[0], markersize=7, zorder=4, **_MARKED)
    style.style_panel(panel, "", "gradients for each image", "accuracy, %")
    style.percent_axis(panel, 104)
    return figure


def _shares(
    panel: style.Axes, share: np.ndarray, words: Mapping[tuple[int, int], str], size: float, **kwargs: Any
) -> Any:
    """A table as a picture, the darker the larger the share; with words in its cells, there are thin lines around."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#cfc7e6", style.COLOURS[0]])
    picture = panel.imshow(100 * share, cmap=shades, vmin=0, vmax=100, **kwargs)
    for (row, column), word in words.items():
        colour = "white" if share[row, column] > 0.5 else style.INK
        panel.text(column, row, word, ha="center", va="center", fontsize=size, color=colour)
    if words:
        panel.set_xticks(np.arange(share.shape[1] + 1) - 0.5, minor=True)
        panel.set_yticks(np.arange(share.shape[0] + 1) - 0.5, minor=True)
        panel.grid(which="minor", color=style.GRID, linewidth=0.8)
    panel.tick_params(which="both", length=0, labelsize=9, colors=style.INK)
    panel.spines[:].set_color(style.SPINE)
    return picture


def zero_gradient_figure(record: RobustnessRecord, curves: Curves) -> style.Figure:
    """Share of exactly zero gradients, at the images and at random points of growing balls, one row an objective."""
    eps = [0.0, *curves.eps]
    share = np.array([[count / max(1, curves.clean) for count in counts] for counts in curves.zero.values()])
    how = f"% of {curves.clean} correctly classified images, at the image (eps 0) or at a random point of the ball"
    size = (max(6.4, 0.62 * len(eps) + 2.4), 0.46 * len(share) + 1.7)
    figure, panel = _titled(record, "Gradients that are exactly zero", how, *size)
    _shares(panel, share, {place: f"{100 * each:.0f}" for place, each in np.ndenumerate(share)}, 9.5, aspect="auto")
    panel.set_xticks(range(len(eps)), [format_eps(each) for each in eps])
    panel.set_yticks(range(len(share)), [_style(objective)[0] for objective in curves.zero])
    panel.set_xlabel(f"eps ({norm_name(curves.norm)})", fontsize=9.5, color=style.INK)
    panel.set_ylabel("gradient of the", fontsize=9.5, color=style.INK)
    return figure


def shown_examples(record: RobustnessRecord, most: int = COLUMNS) -> np.ndarray:
    """Indices of samples that fell, `most` at most, of as many classes as there are."""
    fallen = np.flatnonzero(record.clean.standing & ~record.worst_case(record.eps[-1]).standing)
    if record.labels is None:
        return fallen[:most]
    labels = record.labels[fallen]
    turn = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)], dtype=int)
    return fallen[np.lexsort((labels, turn))[:most]]


def examples_figure(record: RobustnessRecord) -> style.Figure | None:
    """Clean images, worst ones, and their magnified difference; None where none fell or inputs are no images."""
    x = record.inputs
    if x is None or x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        return None
    if record.examples is None or record.labels is None or record.predictions is None:
        return None
    index = shown_examples(record)
    if not len(index):
        return None
    low, high = record.provenance.get("clip_values", UNIT_BOX) or (float(x.min()), float(x.max()))
    clean, adversarial = ((images[index] - low) / (high - low) for images in (x, record.examples))
    difference = adversarial - clean  # as a share of the range, as are the images
    largest = float(np.abs(difference).max())
    figure = style.new_figure(max(1.08 * len(index) + 1.3, 5.4), 1.08 * 3 + 0.95)
    panels = figure.subplots(3, len(index), squeeze=False)
    for i, sample in enumerate(index):
        for row, image in enumerate((clean[i], adversarial[i], difference[i])):
            _draw_image(panels[row, i], image, largest if row == 2 else None)
        panels[0, i].set_title(str(record.labels[sample]), fontsize=10, color=style.INK, pad=3)
        panels[1, i].set_title(
            f"\N{RIGHTWARDS ARROW} {record.predictions[sample]}", fontsize=10, color=style.INK, pad=3
        )
    magnified = f"difference,\nup to {format_eps(largest * (high - low))}"
    if x.shape[1] > 1:
        magnified = f"difference\n\N{MULTIPLICATION SIGN} {0.5 / largest:.3g}"
    for panel, label in zip(panels[:, 0], ("clean", "adversarial", magnified), strict=True):
        panel.set_ylabel(label, fontsize=9.5, color=style.INK, rotation=0, ha="right", va="center", labelpad=10)
    _title(figure, record, f"Worst case at eps {format_eps(record.eps[-1])}")
    return figure


def _draw_image(panel: style.Axes, image: np.ndarray, largest: float | None) -> None:
    """An image (C, H, W), or with `largest` a difference."""
    if image.shape[0] == 1:
        low, high, colours = (0, 1, "gray") if largest is None else (-largest, largest, "PuOr_r")
        panel.imshow(image[0], cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    else:
        shown = image if largest is None else 0.5 + 0.5 * image / largest
        panel.imshow(np.clip(shown[:3].transpose(1, 2, 0), 0, 1), interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(style.SPINE)
    panel.spines[:].set_linewidth(0.6)


def confusion_figure(record: RobustnessRecord) -> style.Figure:
    """For each class, which class its worst-case examples are taken for; the record has labels and predictions."""
    labels, predictions = np.asarray(record.labels), np.asarray(record.predictions)
    classes = int(record.provenance.get("nb_classes", 0)) or int(max(labels.max(), predictions.max())) + 1
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predictions), 1)
    size = min(6.4, max(3.6, 0.46 * classes + 1.2))
    figure = style.new_figure(size + 0.9, size + 0.5)
    panel = figure.add_subplot()
    named = classes <= MOST_CLASSES
    words = {(i, j): str(counts[i, j]) for i, j in np.argwhere(counts)} if named else {}
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    picture = _shares(panel, share, words, 8.5 if counts.max() < 1000 else 7)
    for text, (row, column) in zip(panel.texts, words, strict=True):
        text.set_fontweight("bold" if row == column else "normal")
    if named:
        panel.set_xticks(range(classes))
        panel.set_yticks(range(classes))
    panel.set_xlabel("class that the worst-case image is taken for", fontsize=9.5, color=style.INK)
    panel.set_ylabel("true class", fontsize=9.5, color=style.INK)
    bar = figure.colorbar(picture, ax=panel, shrink=0.75, aspect=28, pad=0.02)
    bar.set_label("share of the class, %", fontsize=9, color=style.INK)
    bar.ax.tick_params(labelsize=8.5, colors=style.INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    _title(figure, record, f"Worst case at eps {format_eps(record.eps[-1])}")
    return figure
