"""
`art-mmc reproduce`: a paper's table once more, beside the published figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Reproduce

if TYPE_CHECKING:
    from art_mmc.studies.reproduce import Reproduced

SETTINGS, HELP = Reproduce, "a paper's table once more, beside the published figures"
USAGE = "art-mmc reproduce TABLE --data-dir DIR [options]"


def run(settings: Reproduce) -> int:
    from art_mmc.published import PUBLISHED
    from art_mmc.reports import detect, format_eps, format_percent, paper_text, write_reproduction
    from art_mmc.studies.reproduce import prepare

    def line(result: Reproduced) -> str:
        record = result.whole
        eps = record.eps[-1]
        status = "" if record.verdict is None else f", verdict: {record.verdict.status}"
        return (
            f"{result.method}: clean {format_percent(record.clean.accuracy)} %, worst case "
            f"{format_percent(record.worst_case(eps).accuracy)} % at {format_eps(eps)}{status} ({record.seconds:.1f} s)"
        )

    if settings.table in PUBLISHED and PUBLISHED[settings.table].detection:
        return run_verb(settings, prepare, detect.write_report, detect.text_table)
    return run_verb(settings, prepare, write_reproduction, paper_text, line)
