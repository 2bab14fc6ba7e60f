"""
How robust is a trained classifier: suites of attacks, diagnostics of masked gradients, a verdict.
"""

from art_mmc.checks import check_radii
from art_mmc.evaluation.engine import AttackError
from art_mmc.evaluation.plans import METHODS, AttackPlan
from art_mmc.evaluation.records import (
    BROKEN,
    CLEAN,
    FIRST_LOOK,
    HOLDS,
    NOT_CONVERGED,
    UNTRUSTWORTHY,
    WORST_CASE,
    AttackRecord,
    Diagnostic,
    RobustnessRecord,
    Verdict,
    wilson_interval,
)
from art_mmc.evaluation.robustness import ATTACKS, RobustnessEvaluation, evaluate_robustness
from art_mmc.evaluation.suites import (
    BOUND,
    FGSM,
    PGD_ADAPTIVE,
    PGD_CROSS_ENTROPY,
    PGD_LOSS,
    QUIRKS,
    QUOTE,
    SUITES,
    Suite,
    get_suite,
    headline,
)
from art_mmc.evaluation.transfer import TransferMatrix, distilled_substitute, transfer_matrix
from art_mmc.state import seeded

__all__ = [
    "ATTACKS",
    "BOUND",
    "BROKEN",
    "CLEAN",
    "FGSM",
    "FIRST_LOOK",
    "HOLDS",
    "METHODS",
    "NOT_CONVERGED",
    "PGD_ADAPTIVE",
    "PGD_CROSS_ENTROPY",
    "PGD_LOSS",
    "QUIRKS",
    "QUOTE",
    "SUITES",
    "UNTRUSTWORTHY",
    "WORST_CASE",
    "AttackError",
    "AttackPlan",
    "AttackRecord",
    "Diagnostic",
    "RobustnessEvaluation",
    "RobustnessRecord",
    "Suite",
    "TransferMatrix",
    "Verdict",
    "check_radii",
    "distilled_substitute",
    "evaluate_robustness",
    "get_suite",
    "headline",
    "seeded",
    "transfer_matrix",
    "wilson_interval",
]
