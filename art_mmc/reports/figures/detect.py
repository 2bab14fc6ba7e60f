"""
The picture of `art-mmc detect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from art_mmc.detectors import DETECTORS
from art_mmc.reports.figures import style
from art_mmc.reports.tables import short_name
from art_mmc.studies.detect import DetectionStudy

_LINES: Sequence[Any] = ("solid", (0, (3.2, 1.6)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))


def title(detector: str) -> str:
    """A detector as tables and pictures name it."""
    return getattr(DETECTORS.get(detector), "title", "") or detector


def roc_figure(study: DetectionStudy) -> style.Figure:
    """ROC curves by the paper's protocol, a panel an attack: a colour a detector, a kind of line a classifier."""
    attacks, facts = study.attacks, study.provenance
    columns = min(4, len(attacks))
    figure = style.new_figure(
        max(5.0, 2.6 * columns + 0.4),
        2.6 * -(-len(attacks) // columns) + 1.2,
        f"Detection on {short_name(facts['dataset'])} ({facts['n']} test images)",
    )
    panels = style.named_panels(figure, attacks, columns, "false positives", size=9, sharex=True, sharey=True)
    for panel, attack in zip(panels, attacks, strict=True):
        _draw_panel(panel, study, attack)
    handles = [
        style.entry(title(detector), color=style.colour(i), linewidth=2) for i, detector in enumerate(study.detectors)
    ]
    handles += [
        style.entry(classifier, linewidth=1.6, linestyle=_LINES[i % len(_LINES)])
        for i, classifier in enumerate(study.classifiers)
    ]
    style.legend(figure, handles, 6)
    figure.supylabel("true positives", fontsize=9, color=style.INK)
    return figure


def _draw_panel(panel: style.Axes, study: DetectionStudy, attack: str) -> None:
    """One attack's curves over the diagonal."""
    panel.plot([0, 1], [0, 1], color=style.FAINT, linewidth=0.8, zorder=1)
    look: dict[str, Any] = {"linewidth": 1.6, "zorder": 2, "clip_on": False}
    for i, detector in enumerate(study.detectors):
        for j, classifier in enumerate(study.classifiers):
            record = study.get(classifier, detector, attack)
            if record is not None and record.kept.any():
                panel.plot(*record.roc(), color=style.colour(i), linestyle=_LINES[j % len(_LINES)], **look)
    if len(panel.lines) == 1:
        panel.text(0.5, 0.5, "no image misclassified", ha="center", va="center", fontsize=8.5, color=style.INK)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
