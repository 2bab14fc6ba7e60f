"""
`art-mmc inspect`: measure on trained networks what the papers explain their losses by, and write a report.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Inspect

if TYPE_CHECKING:
    from art_mmc.studies.inspect import Inspection, Inspections

SETTINGS, HELP = Inspect, "measure the theory on trained networks, write a report"
USAGE = "art-mmc inspect CHECKPOINT [CHECKPOINT ...] [options]"


def run(settings: Inspect) -> int:
    from art_mmc.reports import format_percent
    from art_mmc.reports.inspect import write_inspection
    from art_mmc.studies.inspect import prepare

    def line(inspection: Inspection) -> str:
        fooled = {attack: inspection.ranks.counts(attack).sum(axis=0) for attack in inspection.ranks.attacks}
        landed = ", ".join(
            f"{attack} {format_percent(n[0] / n.sum())} % of {n.sum()}" if n.sum() else f"{attack} none"
            for attack, n in fooled.items()
        )
        return (
            f"{inspection.name}: clean {format_percent(inspection.correct.mean())} %, compactness "
            f"{inspection.compactness['train']:.3g} (train) {inspection.compactness['test']:.3g} (test), probability "
            f"gap {inspection.gaps['clean'].mean():.3f}, newly fooled that land on the runner-up: {landed}"
        )

    def write(found: Inspections, folder: Path) -> list[Path]:
        return write_inspection(folder=folder, **found._asdict())

    return run_verb(settings, prepare, write, lambda found: "", line)
