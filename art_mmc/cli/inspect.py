"""
`art-mmc inspect`: measure on trained networks what the papers explain their losses by, and write a report.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Inspect

if TYPE_CHECKING:
    from art_mmc.studies.inspect import Inspections

SETTINGS, HELP = Inspect, "measure the theory on trained networks, write a report"
USAGE = "art-mmc inspect CHECKPOINT [CHECKPOINT ...] [options]"


def run(settings: Inspect) -> int:
    from art_mmc.reports.inspect import write_inspection
    from art_mmc.reports.render import told
    from art_mmc.studies.inspect import prepare

    def write(found: Inspections, folder: Path) -> list[Path]:
        return write_inspection(folder=folder, **found._asdict())

    return run_verb(settings, prepare, write, lambda found: "", partial(told, "inspect"))
