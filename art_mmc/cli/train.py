"""
`art-mmc train`: train one defence, write it to a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from art_mmc.cli.run import run_verb
from art_mmc.studies.settings import Train

if TYPE_CHECKING:
    from art_mmc.studies.train import Run

SETTINGS, HELP = Train, "train one defence, write it to a file"
USAGE = "art-mmc train --defence NAME [options]"

ABOUT = """\
Train one defence, on clean or on adversarial images, and write three things: the classifier, to a file FILE.pt for
art_mmc.load_classifier; its history and clean test accuracy, to FILE.json; and a folder FILE.run with checkpoints
(last.pt, best.pt), history.csv and, where TensorBoard is installed, its records.

Ctrl-C stops after the batch; the same command with --resume goes on as if it had never stopped. Started by torchrun,
the same command trains on several GPUs, or in several processes on CPUs, to the same result up to rounding."""

NOTES = """\
[pgd]: an option of this way of crafting alone.

examples:
  art-mmc train --defence mmc
  art-mmc train --defence mmc --adversarial pgd --eps 0.15
  art-mmc train --defence sce --dataset mnist --data-dir ~/data --recipe madry2018-mnist-at --keep best
  art-mmc train --defence pc --dataset mnist --data-dir ~/data --recipe li2021-mnist-at --resume
  art-mmc train --defence mmc --set scale=100 --set variant=paper --config run.toml
  torchrun --nproc-per-node 4 -m art_mmc.cli train --defence mmc --dataset cifar10 --data-dir ~/data --adversarial pgd
"""


def run(settings: Train) -> int:
    from art_mmc.geometry import largest_cosine
    from art_mmc.heads import FixedCentersHead
    from art_mmc.reports import format_percent, history_table
    from art_mmc.studies.train import prepare, write

    def text(found: Run) -> str:
        lines = []
        if not settings.quiet:
            lines.append(history_table(found.trained.history))
            head = found.trained.classifier.model.head
            if isinstance(head, FixedCentersHead):
                cosine = largest_cosine(head.centers)
                lines.append(
                    f"{head.nb_classes} fixed centers in {head.in_features} dimensions, largest cosine {cosine:.3f}"
                )
        clean = found.summary["clean_test_accuracy"]
        low, high = (format_percent(bound) for bound in clean["interval"])
        told = "not attacked, so this says nothing about robustness"
        stood = [record.get("val_robust_accuracy") for record in found.trained.history]
        if stood[-1] is not None:
            share = format_percent(max(each or 0 for each in stood) if settings.keep == "best" else stood[-1])
            told = f"{share} % of the held-out images withstand a short PGD; art-mmc evaluate says how robust it is"
        lines.append(
            f"{settings.defence}: clean test accuracy {format_percent(clean['accuracy'])} % (n = {clean['n']}, 95 % "
            f"interval {low} to {high}), {found.trained.seconds:.1f} s; {told}"
        )
        return "\n".join(lines)

    return run_verb(settings, prepare, write, text)
