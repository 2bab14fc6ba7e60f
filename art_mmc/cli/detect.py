"""
`art-mmc detect`: how well adversarial examples are detected, also by an attacker who knows the detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Detect

if TYPE_CHECKING:
    from art_mmc.evaluation.detection import DetectionRecord

SETTINGS, HELP = Detect, "fit and attack detectors of adversarial examples, write a report"
USAGE = "art-mmc detect [options]"


def run(settings: Detect) -> int:
    from art_mmc.reports import format_percent
    from art_mmc.reports.detect import text_table, title, write_report
    from art_mmc.studies.detect import prepare

    def line(classifier: str, attack: str, records: list[DetectionRecord]) -> str:
        areas = [(title(record.detector), record.auc()) for record in records]
        text = ", ".join(f"{name} {'-' if area is None else format_percent(area.value)}" for name, area in areas)
        seconds = sum({id(record.settings): record.seconds for record in records}.values())
        left = format_percent(min(record.adversarial_correct.mean() for record in records))
        return f"{classifier}, {attack}: {left} % still correct; AUC x 100: {text} ({seconds:.1f} s)"

    return run_verb(settings, prepare, write_report, text_table, line)
