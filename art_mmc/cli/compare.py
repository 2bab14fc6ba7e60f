"""
`art-mmc compare`: train and attack defences side by side.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Compare

if TYPE_CHECKING:
    from art_mmc.studies.compare import Comparison, DefenceResult

SETTINGS, HELP = Compare, "train and attack defences, write a report"
USAGE = "art-mmc compare [options]"


def run(settings: Compare) -> int:
    from art_mmc.reports import flattery_sentences, format_eps, format_percent, text_table, write_report
    from art_mmc.studies.compare import prepare

    def line(result: DefenceResult) -> str:
        record = result.robustness
        worst = (f"{format_percent(record.worst_case(eps).accuracy)} % at {format_eps(eps)}" for eps in record.eps)
        return (
            f"{result.defence}: clean {format_percent(record.clean.accuracy)} %, worst case {', '.join(worst)} "
            f"(training {result.training_seconds:.1f} s, attacks {result.evaluation_seconds:.1f} s)"
        )

    def text(comparison: Comparison) -> str:
        table = text_table(comparison, shutil.get_terminal_size((120, 24)).columns)
        return "\n".join([table, "", *flattery_sentences(comparison)])

    return run_verb(settings, prepare, write_report, text, line)
