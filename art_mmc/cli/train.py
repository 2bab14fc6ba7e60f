"""
`art-mmc train`: train one defence, write it to a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Train

if TYPE_CHECKING:
    from art_mmc.studies.train import Run

SETTINGS, HELP = Train, "train one defence, write it to a file"
USAGE = "art-mmc train --defence NAME [options]"


def run(settings: Train) -> int:
    from art_mmc.geometry import largest_cosine
    from art_mmc.heads import FixedCentersHead
    from art_mmc.reports import history_table
    from art_mmc.reports.render import told
    from art_mmc.studies.train import prepare, write

    def text(found: Run) -> str:
        lines = []
        if not settings.quiet:
            lines.append(history_table(found.trained.history))
            head = found.trained.classifier.model.head
            if isinstance(head, FixedCentersHead):
                cosine = largest_cosine(head.centers)
                lines.append(
                    f"{head.nb_classes} fixed centers in {head.in_features} dimensions, largest cosine {cosine:.3f}"
                )
        stood = [record.get("val_robust_accuracy") for record in found.trained.history]
        share = stood[-1] if stood[-1] is None or settings.keep == "last" else max(each or 0 for each in stood)
        clean, seconds = found.summary["clean_test_accuracy"], found.trained.seconds
        lines.append(told("train", settings.defence, clean, seconds, share))
        return "\n".join(lines)

    return run_verb(settings, prepare, write, text)
