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

ABOUT = """\
Train defences from the same seed by the same recipe, attack each on the same test images, print a table and write
report.md, report.json and curves.png. A killed run leaves what it has in DIR/state: the same command with --resume goes
on from there."""

NOTES = """\
The table gives the percentage of test images that are classified correctly, clean and under four columns an eps: FGSM;
own, PGD on the loss that the network was trained by; adapt, PGD on the objective that sees through the defence; worst,
the worst case over all of them: an upper bound; train, then evaluate CHECKPOINT --suite strong gives a better one.
"""


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
