"""
The picture of `art-mmc compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from art_mmc.evaluation import PGD_ADAPTIVE, PGD_LOSS, WORST_CASE
from art_mmc.reports.figures.style import (
    DASHES,
    FAINT,
    INK,
    colour,
    entry,
    figure_png,
    legend,
    named_panels,
    new_figure,
    percent_axis,
    radius_labels,
)
from art_mmc.reports.tables import short_name
from art_mmc.studies.compare import Comparison, DefenceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: by how many points PGD on the own loss may leave more than PGD on the adaptive objective before the report says so
FLATTERY = 5.0


def flattered(result: DefenceResult) -> tuple[float, float] | None:
    """
    The eps of the largest lead of PGD on the own loss over PGD on the adaptive objective, and that lead in points; None
    when it is not above :data:`FLATTERY`.
    """
    record = result.robustness
    leads = [
        (eps, 100 * (record.get(PGD_LOSS, eps).accuracy - record.get(PGD_ADAPTIVE, eps).accuracy)) for eps in record.eps
    ]
    eps, lead = max(leads, key=lambda pair: pair[1])
    return (eps, lead) if lead > FLATTERY else None


def curves_figure(comparison: Comparison) -> Figure:
    """
    Accuracy over eps, one panel a defence: the worst case solid, PGD on the own loss dashed, the gap between them
    shaded; the worst cases of the other defences faint behind.
    """
    from matplotlib.patches import Patch

    results, facts = comparison.results, comparison.provenance
    count = len(results)
    columns = min(count, {4: 2}.get(count, 3 if count <= 9 else 4))
    figure = new_figure(
        max(3.3 * columns, 5) + 0.4,
        2.7 * -(-count // columns) + 1.2,
        f"Robust accuracy on {short_name(facts['dataset'])} ({facts['n']} test images, {facts['backbone']})",
    )
    names = [each.defence for each in results]
    for i, panel in enumerate(named_panels(figure, names, columns, "eps (L-inf)", sharex=True, sharey=True)):
        _draw_panel(panel, comparison, i)
    handles = [
        entry("worst case", linewidth=2.2, marker="o", markersize=4.5),
        entry("PGD on its own loss", linewidth=1.8, linestyle=DASHES),
        Patch(facecolor=INK, alpha=0.16, label="what its own loss hides"),
        entry("worst case of the others", color=FAINT, linewidth=1.2),
    ]
    legend(figure, handles if count > 1 else handles[:-1], 4 if columns > 2 else 2)
    figure.supylabel("accuracy, %", fontsize=9.5, color=INK)
    return figure


def _draw_panel(panel: Axes, comparison: Comparison, chosen: int) -> None:
    """One defence's curves over the faint ones of the others."""
    eps = [0.0, *comparison.eps]
    worst, own = (
        [_curve(result, attack, comparison.eps) for result in comparison.results] for attack in (WORST_CASE, PGD_LOSS)
    )
    ours = colour(chosen)
    for i, curve in enumerate(worst):
        if i != chosen:
            panel.plot(eps, curve, color=FAINT, linewidth=0.8, zorder=1)
    panel.fill_between(eps, worst[chosen], own[chosen], color=ours, alpha=0.16, linewidth=0, zorder=2)
    panel.plot(eps, own[chosen], color=ours, linewidth=1.8, linestyle=DASHES, zorder=3)
    panel.plot(eps, worst[chosen], color=ours, linewidth=2.2, marker="o", markersize=4.5, clip_on=False, zorder=4)
    found = flattered(comparison.results[chosen])
    note = "" if found is None else f"own loss: up to +{found[1]:.0f} points"
    panel.text(0.97, 0.93, note, transform=panel.transAxes, ha="right", va="top", fontsize=9, color=INK)
    panel.set_xlim(0, 1.03 * eps[-1])
    panel.set_xticks(eps, radius_labels(eps))
    percent_axis(panel, 104)


def _curve(result: DefenceResult, attack: str, eps: Sequence[float]) -> list[float]:
    record = result.robustness
    return [100 * share for share in (record.clean.accuracy, *(record.get(attack, each).accuracy for each in eps))]


def curves_png(comparison: Comparison) -> bytes:
    """The picture of :func:`curves_figure` as a PNG file."""
    return figure_png(curves_figure(comparison))
