"""
The picture of `art-mmc compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from art_mmc.evaluation import PGD_ADAPTIVE, PGD_LOSS, WORST_CASE
from art_mmc.reports.figures import style
from art_mmc.reports.tables import short_name
from art_mmc.studies.compare import Comparison, DefenceResult

#: by how many points PGD on the own loss may leave more than PGD on the adaptive objective before the report says so
FLATTERY = 5.0


def flattered(result: DefenceResult) -> tuple[float, float] | None:
    """Eps and size, in points, of the own loss' largest lead over the adaptive objective; None up to FLATTERY."""
    record = result.robustness
    leads = [
        (eps, 100 * (record.get(PGD_LOSS, eps).accuracy - record.get(PGD_ADAPTIVE, eps).accuracy)) for eps in record.eps
    ]
    eps, lead = max(leads, key=lambda pair: pair[1])
    return (eps, lead) if lead > FLATTERY else None


def curves_figure(comparison: Comparison) -> style.Figure:
    """
    Accuracy over eps, one panel a defence: the worst case solid, PGD on the own loss dashed, the gap between them
    shaded; the worst cases of the other defences faint behind.
    """
    from matplotlib.patches import Patch

    results, facts = comparison.results, comparison.provenance
    count = len(results)
    columns = min(count, {4: 2}.get(count, 3 if count <= 9 else 4))
    figure = style.new_figure(
        max(3.3 * columns, 5) + 0.4,
        2.7 * -(-count // columns) + 1.2,
        f"Robust accuracy on {short_name(facts['dataset'])} ({facts['n']} test images, {facts['backbone']})",
    )
    names = [each.defence for each in results]
    for i, panel in enumerate(style.named_panels(figure, names, columns, "eps (L-inf)", sharex=True, sharey=True)):
        _draw_panel(panel, comparison, i)
    worst, own, others = _looks(comparison)
    handles = [
        style.entry("worst case", **worst),
        style.entry("PGD on its own loss", **own),
        *([Patch(facecolor=style.INK, alpha=0.16, label="what its own loss hides")] if len(comparison.eps) > 1 else []),
        style.entry("worst case of the others", **{**others, "linewidth": 1.2}),
    ]
    style.legend(figure, handles if count > 1 else handles[:-1], 4 if columns > 2 else 2)
    figure.supylabel("accuracy, %", fontsize=9.5, color=style.INK)
    return figure


def _looks(comparison: Comparison) -> tuple[dict[str, Any], ...]:
    """Of the worst case, PGD on the own loss and the others' worst cases: of a single radius points, and no lines."""
    worst: dict[str, Any] = {"linewidth": 2.2, "marker": "o", "markersize": 4.5}
    own: dict[str, Any] = {"linewidth": 1.8, "linestyle": style.DASHES}
    others: dict[str, Any] = {"linewidth": 0.8, "color": style.FAINT}
    if len(comparison.eps) == 1:
        for look, marker in ((worst, "o"), (own, "s"), (others, "_")):
            look |= {"linestyle": "", "marker": marker, "markerfacecolor": "none"}
    return worst, own, others


def _draw_panel(panel: style.Axes, comparison: Comparison, chosen: int) -> None:
    """One defence's curves over the faint ones of the others."""
    eps = [0.0, *comparison.eps]
    worst, own = (
        [_curve(result, attack, comparison.eps) for result in comparison.results] for attack in (WORST_CASE, PGD_LOSS)
    )
    ours = style.colour(chosen)
    solid, dashed, faint = _looks(comparison)
    for i, curve in enumerate(worst):
        if i != chosen:
            panel.plot(eps, curve, zorder=1, **faint)
    if len(comparison.eps) > 1:
        panel.fill_between(eps, worst[chosen], own[chosen], color=ours, alpha=0.16, linewidth=0, zorder=2)
    panel.plot(eps, own[chosen], zorder=3, **dashed, color=ours)
    panel.plot(eps, worst[chosen], zorder=4, **solid, color=ours, clip_on=False)
    found = flattered(comparison.results[chosen])
    note = "" if found is None else f"own loss: up to +{found[1]:.0f} points"
    panel.text(0.97, 0.93, note, transform=panel.transAxes, ha="right", va="top", fontsize=9, color=style.INK)
    panel.set_xlim(0, 1.03 * eps[-1])
    panel.set_xticks(eps, style.radius_labels(eps))
    style.percent_axis(panel, 104, -3)


def _curve(result: DefenceResult, attack: str, eps: Sequence[float]) -> list[float]:
    record = result.robustness
    return [100 * share for share in (record.clean.accuracy, *(record.get(attack, each).accuracy for each in eps))]


def curves_png(comparison: Comparison) -> bytes:
    """The picture of :func:`curves_figure` as a PNG file."""
    return style.figure_png(curves_figure(comparison))
