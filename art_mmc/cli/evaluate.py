"""
`art-mmc evaluate`: attack a trained network, look for masked gradients, give a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Evaluate

if TYPE_CHECKING:
    from art_mmc.evaluation import RobustnessRecord

SETTINGS, HELP = Evaluate, "attack a trained network, give a verdict, write a report"
USAGE = "art-mmc evaluate CHECKPOINT [options]"


def run(settings: Evaluate) -> int:
    from art_mmc.reports import record_text, write_robustness
    from art_mmc.studies.evaluate import prepare

    def status(record: RobustnessRecord) -> int:
        return 0 if settings.fail_under is None else _failed(record, settings.fail_under, settings.min_n)

    return run_verb(settings, prepare, write_robustness, record_text, status=status)


def _failed(record: RobustnessRecord, least: float, fewest: int) -> int:
    """The exit status for --fail-under."""
    from art_mmc.evaluation import FIRST_LOOK, HOLDS
    from art_mmc.reports import format_eps

    eps, n = record.eps[-1], record.clean.n
    worst = record.worst_case(eps).accuracy
    status = None if record.verdict is None else record.verdict.status
    problems = [f"the worst case at eps {format_eps(eps)} is {worst:.3f}"] if worst < least else []
    if n < fewest:
        problems.append(f"{n} images say too little, at least {fewest} are needed (--min-n)")
    if status not in (FIRST_LOOK, HOLDS):
        problems.append("there is no verdict" if status is None else f"the verdict is {status}")
    print(f"--fail-under {least:g}: {'failed, ' + ' and '.join(problems) if problems else 'passed'}")
    return 1 if problems else 0
