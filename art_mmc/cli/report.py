"""
`art-mmc report`: make reports again from their JSON.
"""

from __future__ import annotations

from pathlib import Path

from art_mmc.cli.run import check_writable, user_errors
from art_mmc.studies.settings import Report

SETTINGS, HELP = Report, "make reports again from their JSON"
USAGE = "art-mmc report RECORD.json [RECORD.json ...] --output DIR"

ABOUT = """\
Make Markdown, CSV and pictures again from report.json, as art-mmc compare, evaluate, reproduce, detect or inspect wrote
it: after an upgrade, or elsewhere than where it was measured. Several records of art-mmc evaluate are put side by side
in one table. The pictures of art-mmc inspect are taken over from beside its report.json. Nothing is attacked."""

NOTES = """\
examples:
  art-mmc report runs/evaluate-mmc-strong/report.json --output mmc
  art-mmc report runs/evaluate-*/report.json --output side-by-side
"""


def run(settings: Report) -> None:
    from art_mmc.reports.rewrite import rewrite

    with user_errors():
        output = Path(settings.output).expanduser()
        check_writable(output)
        text, files = rewrite([Path(path).expanduser() for path in settings.records], output)
    print(text)
    print(f"wrote {', '.join(map(str, files))}")
