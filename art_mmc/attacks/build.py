"""
The one table from a name to an attack: ART's own, and the few of this package that ART lacks.

Suites, rank studies, inspections and the benchmark all build their attacks here, from the same few settings.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from art.attacks import evasion
from art.attacks.attack import EvasionAttack

from art_mmc.attacks import (
    SPSA,
    AutoPGD,
    CarliniL2,
    FastAdaptiveBoundary,
    GaussianNoise,
    RandomRotation,
    ScheduledPGD,
)
from art_mmc.attacks.auto_attack import Square
from art_mmc.checks import check_name


@dataclass(frozen=True)
class Method:
    """How an attack is built."""

    make: Callable[..., EvasionAttack]  # the attack, of a classifier and settings by ART's names
    takes: tuple[str, ...]  # of :func:`build_attack`'s settings
    fixed: tuple[tuple[str, Any], ...] = ()  # settings of its own, which options may replace
    bounded: bool = True  # whether it keeps to a ball
    watched: bool = False  # whether each point at which it asks for a gradient is in the ball and may count
    white_box: bool = True  # whether it takes gradients
    aims: bool | None = None  # whether at a class: True for always, False for never, None for as is asked

    @property
    def packs(self) -> bool:
        """Whether it goes through its restarts and targets by itself, without those samples that it has broken."""
        return "nb_restarts" in self.takes


def _fgsm(classifier: Any, eps: float, **settings: Any) -> EvasionAttack:
    return evasion.FastGradientMethod(classifier, eps=eps, **{"eps_step": eps, **settings})


def _bim(classifier: Any, norm: float, **settings: Any) -> EvasionAttack:
    if norm == math.inf:
        return evasion.BasicIterativeMethod(classifier, **settings)
    return evasion.ProjectedGradientDescent(classifier, norm=norm, num_random_init=0, **settings)


def _spsa(classifier: Any, batch_size: int, **settings: Any) -> EvasionAttack:
    most = {"batch_size": batch_size, "max_queries_per_forward": batch_size}
    return SPSA(classifier, **{"objective": classifier.objective, **most, **settings})


def _auto_pgd(classifier: Any, **settings: Any) -> EvasionAttack:
    return AutoPGD(classifier, **{"objective": classifier.attack_values, **settings})


def _scheduled_pgd(classifier: Any, **settings: Any) -> EvasionAttack:
    if classifier.objective != "soft_margin":  # which alone has a sharpness
        settings = {"objective": classifier.attack_values, "sharpness": None, **settings}
    return ScheduledPGD(classifier, **settings)


def _jsma(classifier: Any, pixels: int | None = None, **settings: Any) -> EvasionAttack:
    if pixels is not None:  # ART goes on, two at a time, while their share is up to gamma
        settings["gamma"] = min(1.0, (pixels - 0.01) / math.prod(classifier.input_shape))
    return evasion.SaliencyMapMethod(classifier, **settings)


_STEPS = ("norm", "eps", "eps_step", "max_iter", "targeted", "verbose")
_SEARCH = ("learning_rate", "max_iter", "targeted", "verbose")
_PACKS = ("norm", "eps", "max_iter", "nb_restarts", "nb_targets", "seed", "verbose")

#: name -> how it is built. ART's APGD climbs the view's objective with its loss_type None; with a name it would rebuild
#: the classifier. "auto-pgd" and "scheduled-pgd" are this package's; BIM is PGD from the input itself, in either norm.
#: "ead", ART's ElasticNet with beta 0, is the L2 attack of Carlini and Wagner by FISTA, for inputs in a box; "cw-adam"
#: has the steps of their code too. ART's own of that name, "cw", goes along a gradient that vanishes where a pixel is
#: black or white, and hardly moves on MNIST. SPSA climbs its classifier's objective; JSMA takes "pixels" for "gamma".
METHODS: dict[str, Method] = {
    "fgsm": Method(_fgsm, ("norm", "eps", "targeted")),
    "pgd": Method(evasion.ProjectedGradientDescent, _STEPS, (("num_random_init", 1),), watched=True),
    "bim": Method(_bim, _STEPS, watched=True),
    "mim": Method(evasion.MomentumIterativeMethod, _STEPS, watched=True),
    "apgd": Method(evasion.AutoProjectedGradientDescent, _STEPS, (("nb_random_init", 1),), watched=True),
    "auto-pgd": Method(_auto_pgd, (*_PACKS, "targeted")),
    "scheduled-pgd": Method(_scheduled_pgd, (*_PACKS, "targeted")),
    "fab": Method(FastAdaptiveBoundary, (*_PACKS, "targeted"), (("early_stop", True),)),
    "square": Method(Square, ("norm", "eps", "max_iter", "verbose"), white_box=False, aims=False),
    "spsa": Method(_spsa, ("norm", "eps", "seed", *_SEARCH), white_box=False),
    "cw": Method(evasion.CarliniL2Method, _SEARCH, bounded=False),
    "cw-adam": Method(CarliniL2, _SEARCH, bounded=False),
    "ead": Method(evasion.ElasticNet, _SEARCH, (("beta", 0.0), ("decision_rule", "L2")), bounded=False),
    "deepfool": Method(evasion.DeepFool, ("max_iter", "verbose"), bounded=False, aims=False),
    "jsma": Method(_jsma, ("verbose",), bounded=False, aims=True),
    "noise": Method(GaussianNoise, ("seed", "verbose"), bounded=False, white_box=False, aims=False),
    "rotation": Method(RandomRotation, ("seed", "verbose"), bounded=False, white_box=False, aims=False),
}


def build_attack(
    method: str,
    classifier: Any,
    *,
    eps: float = 0.0,
    norm: float = math.inf,
    steps: int = 1,
    step_size: float = 0.0,
    targeted: bool = False,
    restarts: int = 1,
    targets: int = 0,
    batch_size: int = 128,
    seed: int = 0,
    **options: Any,
) -> EvasionAttack:
    """
    An attack of :data:`METHODS` on any ART `PyTorchClassifier`, for SPSA, "auto-pgd" and "scheduled-pgd" one of this
    package's. Of the settings it gets those that it has: radius, norm, steps, or queries for Square, their length, or
    learning rate, whether labels are to be reached, starts and likeliest classes to aim at in turn (else it has one
    random start of its own), inputs in one pass at most, and seed; `options` are more of its arguments by ART's names.
    """
    check_name("attack method", method, METHODS)
    given = {
        "norm": norm,
        "eps": eps,
        "eps_step": step_size,
        "learning_rate": step_size,
        "max_iter": steps,
        "targeted": targeted,
        "nb_restarts": restarts,
        "nb_targets": targets,
        "seed": seed,
        "verbose": False,
    }
    row = METHODS[method]
    settings = {name: given[name] for name in row.takes}
    return row.make(classifier, batch_size=batch_size, **{**settings, **dict(row.fixed), **options})
