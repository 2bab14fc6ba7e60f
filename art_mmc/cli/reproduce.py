"""
`art-mmc reproduce`: a paper's table once more, beside the published figures.
"""

from __future__ import annotations

from functools import partial

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Reproduce

SETTINGS, HELP = Reproduce, "a paper's table once more, beside the published figures"
USAGE = "art-mmc reproduce TABLE --data-dir DIR [options]"


def run(settings: Reproduce) -> int:
    from art_mmc.published import PUBLISHED
    from art_mmc.reports import detect, paper_text, write_reproduction
    from art_mmc.reports.render import told
    from art_mmc.studies.reproduce import prepare

    if settings.table in PUBLISHED and PUBLISHED[settings.table].detection:
        return run_verb(settings, prepare, detect.write_report, detect.text_table)
    return run_verb(settings, prepare, write_reproduction, paper_text, partial(told, "reproduce"))
