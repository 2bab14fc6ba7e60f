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

ABOUT = """\
Train the networks of a published table, or take trained ones, attack them by the paper's protocol, and print each
published figure beside ours and our worst case. Writes report.md, report.json, figures.csv and the trained networks.

TABLE is one of pang2020-table1, -table2, -table3 (MMC), li2021-table1 to -table5 (PC), pang2021-table16 (Bag of
Tricks); pang2018-table2 and -table3 (RCE) are tables of detectors, and write what art-mmc detect writes.

The paper's epochs take long: --epoch-share 0.1 trains a tenth of them, --small a smaller network besides. A killed run
goes on where it was with the same command, and one with other rows adds them to the report in the same folder. Started
by torchrun, it trains in several processes, and shares the batches of the attacks among them."""

NOTES = """\
examples:
  art-mmc reproduce li2021-table1 --data-dir ~/data --epoch-share 0.1
  art-mmc reproduce li2021-table1 --data-dir ~/data --defence pc --checkpoint pc=runs/pc.pt
  art-mmc reproduce pang2020-table1 --data-dir ~/data --small --defence sce,mmc --quirk predicted_labels
  art-mmc reproduce pang2020-table1 --dataset cifar10.npz --defence mmc --checkpoint mmc=mmc.pt --worst-case strong
"""


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
