"""
`art-mmc report`: make reports again from their JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from art_mmc.cli.common import check_writable, user_errors

_REPORT = """\
Make Markdown, CSV and pictures again from report.json, as art-mmc evaluate, compare or reproduce wrote it: after an
upgrade, or elsewhere than where it was measured. Several records of art-mmc evaluate are put side by side in one table.
Nothing is attacked."""

_REPORT_NOTES = """\
examples:
  art-mmc report runs/evaluate-mmc-strong/report.json --output mmc
  art-mmc report runs/evaluate-*/report.json --output side-by-side
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    parser = commands.add_parser(
        "report",
        help="make reports again from their JSON",
        usage="art-mmc report RECORD.json [RECORD.json ...] --output DIR",
        description=_REPORT,
        epilog=_REPORT_NOTES,
    )
    parser.add_argument("records", nargs="+", metavar="RECORD.json", help="what a command wrote as report.json")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the reports")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from art_mmc.reports import rewrite

    with user_errors():
        output = Path(args.output).expanduser()
        check_writable(output)
        text, files = rewrite([Path(path).expanduser() for path in args.records], output)
    print(text)
    print(f"wrote {', '.join(map(str, files))}")
