"""
`art-mmc report`: make reports again from their JSON.
"""

from __future__ import annotations

from pathlib import Path

from art_mmc.cli.run import check_writable, user_errors
from art_mmc.studies.settings import Report

SETTINGS, HELP = Report, "make reports again from their JSON"
USAGE = "art-mmc report RECORD.json [RECORD.json ...] --output DIR"


def run(settings: Report) -> None:
    from art_mmc.reports.rewrite import rewrite

    with user_errors():
        output = Path(settings.output).expanduser()
        check_writable(output)
        text, files = rewrite([Path(path).expanduser() for path in settings.records], output)
    print(text)
    print(f"wrote {', '.join(map(str, files))}")
