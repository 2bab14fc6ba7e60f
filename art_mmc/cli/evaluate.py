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

ABOUT = """\
Attack a trained network by a suite of attacks, look for the symptoms of masked gradients, and give a verdict: broken,
untrustworthy, a first look, not converged, or holds so far. Prints own loss, cross-entropy, margin and worst case side
by side; writes report.md, report.json, attacks.csv, pictures, and examples.npz with the adversarial images.

CHECKPOINT is a file that art-mmc train wrote, or the name of a network that art-mmc zoo lists; or a TorchScript file;
or, with --factory, a state dict of a network of your own. The latter two must take images in [0, 1] and give logits;
where the clip_values of the first are another range, images are put on it, and eps is in its unit. A TorchScript file
and a factory are programs, and are run: use only those that you trust.

A killed run leaves what it has in DIR/state: the same command goes on from the last finished batch. Started by
torchrun, the same command shares the batches of each attack among several processes, to the same figures; seconds are
added up. Choose --batch-size so that each process has some of them."""

NOTES = """\
suites: quick (a first look), standard, strong (the one to quote: it goes on in rounds until they find little),
autoattack (its standard version), and the papers' protocols with their settings, each with an adaptive attack beside
it: pang2020-table1 to -table3, li2021-table1 to -table5, pang2018-rce, pang2021-tricks.

exit status: 0; 1 for what --fail-under asks; 2 for a mistake in the command or an attack that crashed; 130 for Ctrl-C.

examples:
  art-mmc evaluate mmc-mnist --suite quick
  art-mmc evaluate runs/mmc-digits.pt --suite quick
  art-mmc evaluate pc.pt --dataset mnist --data-dir ~/data --suite strong --eps 0.1,0.2,0.3
  art-mmc evaluate net.pt --factory mynets:resnet --dataset cifar10 --data-dir ~/data --eps 8/255 --fail-under 0.3
  art-mmc evaluate mmc.pt --dataset cifar10 --data-dir ~/data --suite pang2020-table1 --quirk predicted_labels
  torchrun --nproc-per-node 4 -m art_mmc.cli evaluate mmc.pt --dataset cifar10 --data-dir ~/data --suite strong
"""


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
