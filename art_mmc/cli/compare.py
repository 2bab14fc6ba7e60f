"""
`art-mmc compare`: train and attack defences side by side.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Compare

if TYPE_CHECKING:
    from art_mmc.studies.compare import Comparison

SETTINGS, HELP = Compare, "train and attack defences, write a report"
USAGE = "art-mmc compare [options]"


def run(settings: Compare) -> int:
    from art_mmc.reports import flattery_sentences, text_table, write_report
    from art_mmc.reports.render import told
    from art_mmc.studies.compare import prepare

    def text(comparison: Comparison) -> str:
        table = text_table(comparison, shutil.get_terminal_size((120, 24)).columns)
        return "\n".join([table, "", *flattery_sentences(comparison)])

    return run_verb(settings, prepare, write_report, text, partial(told, "compare"))
