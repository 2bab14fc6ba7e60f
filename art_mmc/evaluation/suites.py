"""
Suites: which attacks an evaluation runs, as lists of plans. `quick`, `standard` and `strong` are ours; the others are
the papers' protocols with their exact settings, each followed by the adaptive attack that the paper lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from art_mmc.checks import check_eps, unknown_name
from art_mmc.evaluation.plans import METHODS, AttackPlan

#: quirks of the papers' code that a protocol can be run with
QUIRKS = {
    "predicted_labels": "untargeted attacks are given the network's own prediction as label (MMC paper)",
    "eps256": "eps and steps are multiples of 1/256 instead of 1/255 (MMC paper)",
}

#: names of plans that other parts of the package look for
FGSM, PGD_LOSS, PGD_CROSS_ENTROPY, PGD_ADAPTIVE = "FGSM", "PGD own loss", "PGD cross-entropy", "PGD adaptive"


@dataclass(frozen=True)
class Suite:
    """
    A list of attacks for given radii.

    :param name: Its name.
    :param description: What it is, in one line.
    :param plans: (eps, norm) -> the plans at this radius. For a protocol, a plan's steps are absolute.
    :param eps: The radii of the paper, by name of the data set; None for a suite of ours, which takes any.
    :param unbounded: Plans without a ball, run once.
    :param samples: As many samples as the paper has; None for all that are given.
    """

    name: str
    description: str
    plans: Callable[[float, float], list[AttackPlan]]
    eps: Mapping[str, tuple[float, ...]] | None = None
    unbounded: tuple[AttackPlan, ...] = ()
    samples: int | None = None

    def eps_for(self, dataset: str) -> tuple[float, ...] | None:
        """
        :param dataset: Name of a data set.
        :return: The paper's radii on it, or its first ones; None for a suite of ours.
        """
        if self.eps is None:
            return None
        return self.eps.get(dataset, next(iter(self.eps.values())))

    def build(
        self, eps: Sequence[float], norm: float = math.inf, nb_classes: int = 10, quirks: Sequence[str] = ()
    ) -> list[AttackPlan]:
        """
        :param eps: The radii, ascending.
        :param norm: Norm of the ball.
        :param nb_classes: Number of classes K; plans that need more are left out.
        :param quirks: Names in :data:`QUIRKS`.
        :return: The plans, in the order in which they run.
        :raises ValueError: For an unknown quirk.
        """
        for quirk in quirks:
            if quirk not in QUIRKS:
                raise unknown_name("quirk", quirk, QUIRKS)
        plans = [plan for radius in eps for plan in self.plans(check_eps(radius) if norm == math.inf else radius, norm)]
        plans = [plan for plan in [*plans, *self.unbounded] if _fits(plan, nb_classes)]
        if "predicted_labels" in quirks:
            plans = [
                replace(plan, labels="predicted") if _papers_own(plan) and plan.targets is None else plan
                for plan in plans
            ]
        if "eps256" in quirks:
            plans = [_in_256ths(plan) if _papers_own(plan) else plan for plan in plans]
        return plans


def _fits(plan: AttackPlan, nb_classes: int) -> bool:
    """Whether the objective has a meaning for so many classes."""
    need = {"dlr": 3, "targeted_dlr": 4}.get(plan.objective or "", 2)
    return nb_classes >= need and not (plan.targets is not None and nb_classes == 2 and plan.targets != "random")


def _papers_own(plan: AttackPlan) -> bool:
    """Whether a plan is the paper's, not the adaptive one that we put beside it."""
    return plan.objective not in ("adaptive", "margin") and METHODS[plan.method].white_box


def _in_256ths(plan: AttackPlan) -> AttackPlan:
    steps = tuple(step * 255 / 256 for step in plan.step_sizes)
    return replace(plan, eps=plan.eps * 255 / 256, step_size=steps)


# --------------------------------------------------------------------------------------------------------------- ours


def _figures(eps: float, norm: float, steps: int) -> list[AttackPlan]:
    """The figures that stand side by side in every table, on the same samples with the same budget."""
    step = max(2.5 / steps, 0.1) * eps  # far enough to cross the ball
    return [
        AttackPlan(FGSM, "fgsm", "adaptive", eps, norm, 1, eps),
        AttackPlan(PGD_LOSS, "pgd", "loss", eps, norm, steps, step),
        AttackPlan(PGD_CROSS_ENTROPY, "pgd", "cross_entropy", eps, norm, steps, step),
        AttackPlan(PGD_ADAPTIVE, "pgd", "adaptive", eps, norm, steps, step),
    ]


def _after(plans: Sequence[AttackPlan]) -> list[AttackPlan]:
    """The same on what still stands."""
    return [replace(plan, independent=False) for plan in plans]


def _quick(eps: float, norm: float) -> list[AttackPlan]:
    rest = [AttackPlan("PGD rescaled cross-entropy", "pgd", "rescaled_cross_entropy", eps, norm, 20, eps / 4)]
    return _figures(eps, norm, 20) + _after(rest)


def _standard(eps: float, norm: float) -> list[AttackPlan]:
    rest = [
        AttackPlan("PGD margin, restarts", "pgd", "margin", eps, norm, 40, (eps / 4, eps / 2), restarts=2),
        AttackPlan("PGD rescaled cross-entropy", "pgd", "rescaled_cross_entropy", eps, norm, 40, eps / 4),
        AttackPlan("APGD DLR", "apgd", "dlr", eps, norm, 40, 2 * eps),
        AttackPlan("Square", "square", None, eps, norm, 300),
    ]
    return _figures(eps, norm, 40) + _after(rest)


def _strong(eps: float, norm: float) -> list[AttackPlan]:
    steps = (eps / 2, eps / 4, eps / 10, eps)  # no single one is right for every network
    rest = [
        AttackPlan("PGD margin, restarts", "pgd", "margin", eps, norm, 100, steps, restarts=4),
        AttackPlan("PGD rescaled CE, restarts", "pgd", "rescaled_cross_entropy", eps, norm, 100, steps, restarts=2),
        AttackPlan("PGD own loss, long", "pgd", "loss", eps, norm, 100, eps / 2),
        AttackPlan("APGD margin", "apgd", "margin", eps, norm, 100, 2 * eps, restarts=2),
        AttackPlan("APGD DLR", "apgd", "dlr", eps, norm, 100, 2 * eps),
        AttackPlan("PGD margin, all targets", "pgd", "margin", eps, norm, 40, eps / 4, targets="all"),
        AttackPlan("APGD targeted DLR", "apgd", "targeted_dlr", eps, norm, 40, 2 * eps, targets="all"),
        AttackPlan("transfer", "transfer", None, eps, norm, 40, eps / 10),
        AttackPlan("Square", "square", None, eps, norm, 1000),
        AttackPlan("SPSA", "spsa", "margin", eps, norm, 40, eps / 5, samples=100),
    ]
    return _figures(eps, norm, 40) + _after(rest)


_MINIMUM_NORM = (
    AttackPlan("DeepFool", "deepfool", steps=50, samples=100),
    AttackPlan(
        "C&W L2", "cw", steps=50, step_size=0.05, samples=50, options=MappingProxyType({"binary_search_steps": 6})
    ),
)


# ------------------------------------------------------------------------------------------------ the papers' protocols


def _adaptive(eps: float, norm: float, steps: int, step: float) -> AttackPlan:
    return AttackPlan(f"PGD-{steps} adaptive", "pgd", "adaptive", eps, norm, steps, step)


def _pang2020_pgd(eps: float, norm: float) -> list[AttackPlan]:
    step = 2 / 255
    return [
        AttackPlan(f"PGD-{steps} {kind}", "pgd", "loss", eps, norm, steps, step, targets=targets)
        for steps in (10, 50)
        for kind, targets in (("targeted", "random"), ("untargeted", None))
    ] + [_adaptive(eps, norm, 50, step)]


_PANG2020_SPSA = MappingProxyType({"nb_samples": 128, "delta": 0.01, "early_stop": False})


def _pang2020_spsa(eps: float, norm: float) -> list[AttackPlan]:
    # variant 2 of method (margin), which the paper used for SPSA
    return [
        AttackPlan(f"SPSA-10 {kind}", "spsa", "margin", eps, norm, 10, 0.01, targets=targets, options=_PANG2020_SPSA)
        for kind, targets in (("targeted", "random"), ("untargeted", None))
    ] + [_adaptive(eps, norm, 50, 2 / 255)]


_PANG2020_CW = MappingProxyType(
    {"confidence": 0.0, "binary_search_steps": 9, "initial_const": 0.01, "max_halving": 0, "max_doubling": 0}
)
_PANG2020_UNBOUNDED = (
    AttackPlan("C&W targeted", "cw", steps=1000, step_size=5e-3, targets="random", samples=500, options=_PANG2020_CW),
    AttackPlan("C&W untargeted", "cw", steps=1000, step_size=5e-3, samples=500, options=_PANG2020_CW),
    AttackPlan("Gaussian noise", "noise", samples=1000, options=MappingProxyType({"sigma": 0.05, "clip": False})),
    AttackPlan("rotation", "rotation", samples=1000, options=MappingProxyType({"degrees": 30.0})),
)


def _li2021(steps: int, scale: float | None, names: Sequence[str]) -> Callable[[float, float], list[AttackPlan]]:
    """The PC paper's attacks: advertorch's, on cross-entropy, with steps of 0.01 or of a share of eps."""

    def plans(eps: float, norm: float) -> list[AttackPlan]:
        step = 0.01 if scale is None else scale * eps
        rows = {
            "FGSM": AttackPlan("FGSM", "fgsm", "cross_entropy", eps, norm, 1, eps),
            "BIM": AttackPlan("BIM-10", "bim", "cross_entropy", eps, norm, 10, step),
            "PGD": AttackPlan(f"PGD-{steps}", "pgd", "cross_entropy", eps, norm, steps, step),
            "MIM": AttackPlan(f"MIM-{steps}", "mim", "cross_entropy", eps, norm, steps, step),
            "own": AttackPlan(f"PGD-{steps} own loss", "pgd", "loss", eps, norm, steps, step),
            "SPSA": AttackPlan("SPSA", "spsa", "margin", eps, norm, 10, 0.01, options=_PANG2020_SPSA, samples=1000),
            "transfer PGD": AttackPlan("transfer", "transfer", None, eps, norm, steps, step),
        }
        return [rows[name] for name in names] + [
            _adaptive(eps, norm, steps, step),
            AttackPlan("PGD-100 adaptive, large steps", "pgd", "adaptive", eps, norm, 100, (eps / 2, eps / 4), 2),
        ]

    return plans


def _li2021_cw(steps: int) -> tuple[AttackPlan, ...]:
    # the paper's "accuracy" under it is the share of images that a search without a ball failed to fool in its steps
    options = MappingProxyType({"confidence": 0.0, "binary_search_steps": 9, "max_halving": 0, "max_doubling": 0})
    return (AttackPlan(f"C&W, {steps} steps", "cw", steps=steps, step_size=0.001, options=options, samples=1000),)


_GREY, _COLOUR, _MANY = (0.1, 0.2, 0.3), (0.04, 0.12, 0.2), (0.005, 0.010, 0.015)
_LI2021_EPS = MappingProxyType(
    {
        "mnist": _GREY,
        "kmnist": _GREY,
        "fashion-mnist": _GREY,
        "cifar10": _COLOUR,
        "svhn": _COLOUR,
        "cifar100": _MANY,
        "tiny-imagenet": _MANY,
    }
)


def _pang2018(eps: float, norm: float) -> list[AttackPlan]:
    # released code: 10 steps of eps / 10; the label is the network's prediction
    step = eps / 10
    return [
        AttackPlan("FGSM", "fgsm", "cross_entropy", eps, norm, 1, eps, labels="predicted"),
        AttackPlan("BIM", "bim", "cross_entropy", eps, norm, 10, step, labels="predicted"),
        AttackPlan("ILCM", "bim", "cross_entropy", eps, norm, 10, step, targets="least_likely", labels="predicted"),
        _adaptive(eps, norm, 40, max(step, eps / 10)),
    ]


_PANG2018_UNBOUNDED = (
    AttackPlan("JSMA", "jsma", samples=500, options=MappingProxyType({"theta": 1.0, "gamma": 0.2})),
    AttackPlan(
        "C&W",
        "cw",
        steps=100,
        step_size=0.01,
        targets="random",
        samples=500,
        options=MappingProxyType({"binary_search_steps": 9, "initial_const": 1.0}),
    ),
)


def _pang2021(eps: float, norm: float) -> list[AttackPlan]:
    # AutoAttack's four by what ART has: no FAB; the objectives are computed on the view
    return [
        AttackPlan("PGD-10", "pgd", "cross_entropy", eps, norm, 10, 2 / 255),
        AttackPlan("APGD cross-entropy", "apgd", "cross_entropy", eps, norm, 100, 2 * eps),
        *_after(
            [
                AttackPlan("APGD targeted DLR", "apgd", "targeted_dlr", eps, norm, 100, 2 * eps, targets="all"),
                AttackPlan("Square", "square", None, eps, norm, 5000),
            ]
        ),
        _adaptive(eps, norm, 50, 2 / 255),
    ]


_WHITE_BOX = ("FGSM", "BIM", "PGD", "MIM", "own")
_CIFAR_PANG = MappingProxyType({"cifar10": (8 / 255, 16 / 255)})

_ROWS = (
    Suite("quick", "own loss, cross-entropy and margin with 20 steps; seconds", _quick),
    Suite("standard", "40 steps, restarts, APGD, Square; for a first answer", _standard, unbounded=_MINIMUM_NORM),
    Suite(
        "strong",
        "several objectives, restarts, step sizes, APGD, all targets, transfer, Square, SPSA; the one to quote",
        _strong,
        unbounded=_MINIMUM_NORM,
    ),
    Suite(
        "pang2020-table1", "MMC paper: PGD-10 and PGD-50 on the own loss, targeted and not", _pang2020_pgd, _CIFAR_PANG
    ),
    Suite(
        "pang2020-table2",
        "MMC paper: SPSA, C&W, Gaussian noise, rotation",
        _pang2020_spsa,
        _CIFAR_PANG,
        _PANG2020_UNBOUNDED,
        1000,
    ),
    Suite(
        "pang2020-table3",
        "MMC paper, across depth: PGD-10 and PGD-50 on the own loss",
        _pang2020_pgd,
        _CIFAR_PANG,
    ),
    Suite(
        "li2021-table1",
        "PC paper: FGSM, BIM, PGD, MIM on cross-entropy, C&W with 100 steps",
        _li2021(40, None, _WHITE_BOX),
        _LI2021_EPS,
        _li2021_cw(100),
    ),
    Suite(
        "li2021-table2",
        "PC paper: as Table 1, C&W with 1,000 steps",
        _li2021(40, None, _WHITE_BOX),
        _LI2021_EPS,
        _li2021_cw(1000),
    ),
    Suite(
        "li2021-table3",
        "PC paper, black box: transfer and SPSA",
        _li2021(40, None, ("transfer PGD", "SPSA")),
        _LI2021_EPS,
    ),
    Suite(
        "li2021-table4",
        "PC paper, 100 and 200 classes: PGD and MIM with 10 steps of eps / 10, SPSA",
        _li2021(10, 0.1, ("PGD", "MIM", "own", "SPSA")),
        MappingProxyType({"cifar100": _MANY, "tiny-imagenet": _MANY}),
    ),
    Suite(
        "li2021-table5",
        "PC paper with adversarial training: BIM, PGD, MIM, SPSA, C&W",
        _li2021(40, None, ("BIM", "PGD", "MIM", "own", "SPSA")),
        MappingProxyType({"mnist": (0.3,), "cifar10": (0.04,)}),
        _li2021_cw(100),
    ),
    Suite(
        "pang2018-rce",
        "RCE paper: FGSM, BIM, ILCM, JSMA, C&W as accuracy; for detection see art-mmc detect",
        _pang2018,
        MappingProxyType({"mnist": (0.16,), "cifar10": (0.16,)}),
        _PANG2018_UNBOUNDED,
    ),
    Suite(
        "pang2021-tricks",
        "Bag of Tricks paper: PGD-10, and AutoAttack's parts as far as ART has them",
        _pang2021,
        MappingProxyType({"cifar10": (8 / 255,)}),
    ),
)

#: other names of suites
ALIASES = {"li2021": "li2021-table1", "pang2020": "pang2020-table1"}

#: name -> suite
SUITES: dict[str, Suite] = {row.name: row for row in _ROWS}


def get_suite(name: str) -> Suite:
    """
    :param name: Name of a suite.
    :return: The suite.
    :raises ValueError: For an unknown name, with the nearest known one.
    """
    name = ALIASES.get(name, name)
    if name not in SUITES:
        raise unknown_name("suite", name, [*SUITES, *ALIASES])
    return SUITES[name]
