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
    from art_mmc.reports import format_percent, history_table
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
        clean = found.summary["clean_test_accuracy"]
        low, high = (format_percent(bound) for bound in clean["interval"])
        told = "not attacked, so this says nothing about robustness"
        stood = [record.get("val_robust_accuracy") for record in found.trained.history]
        if stood[-1] is not None:
            share = format_percent(max(each or 0 for each in stood) if settings.keep == "best" else stood[-1])
            told = f"{share} % of the held-out images withstand a short PGD; art-mmc evaluate says how robust it is"
        lines.append(
            f"{settings.defence}: clean test accuracy {format_percent(clean['accuracy'])} % (n = {clean['n']}, 95 % "
            f"interval {low} to {high}), {found.trained.seconds:.1f} s; {told}"
        )
        return "\n".join(lines)

    return run_verb(settings, prepare, write, text)
