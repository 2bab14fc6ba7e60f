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

ABOUT = """\
Train defences or load them, fit detectors on clean training images, attack test images with the attacks of the reverse
cross-entropy paper and with two that know the detector, and write report.md, report.json and roc.png.

A killed run leaves what it has in DIR/state: the same command goes on from the last finished batch. Started
by torchrun, it trains in several processes, and shares the batches of the attacks among them."""

NOTES = """\
The table gives the area under the ROC curve x 100, of the images that are right when clean and wrong after the attack:
100 finds all attacks, 50 is a coin; in brackets where C&W failed on too many images to tell. The report also has what
classifier and detector hold together.

detectors: confidence, non-me, kernel-density, lid, mahalanobis, center-distance (defences with centers only)
attacks:   fgsm, bim, ilcm, jsma, cw, cw-hc; cw-wb (C&W with the kernel density in its objective) and pgd-wb (PGD with
           the score of each detector in its objective) know the detector

examples:
  art-mmc detect                                        sce and rce on the digits
  art-mmc detect --defence sce,rce,mmc --detector kernel-density,mahalanobis --attack bim,pgd-wb
  art-mmc detect --checkpoint runs/sce-mnist.pt --checkpoint runs/rce-mnist.pt --dataset mnist --data-dir ~/data
"""


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
