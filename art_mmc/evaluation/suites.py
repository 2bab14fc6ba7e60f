"""
Suites of attacks: three of ours, in which each attack stands for what it breaks in its time that the others leave, and
the papers' protocols with their exact settings, each followed by the adaptive attack that the paper lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from art_mmc.checks import UNIT_BOX, box_unit, box_width, check_name, check_radii, unknown_name
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import NOT_CONVERGED, UNTRUSTWORTHY, RobustnessRecord

#: quirks of the papers' code that a protocol can be run with
QUIRKS = {
    "predicted_labels": "untargeted attacks with gradients are given the network's own prediction as label (MMC paper)",
    "eps256": "eps and steps are multiples of 1/256 instead of 1/255 (MMC paper)",
}

#: names of plans that other parts of the package look for
FGSM, PGD_LOSS, PGD_CROSS_ENTROPY, PGD_ADAPTIVE = "FGSM", "PGD own loss", "PGD cross-entropy", "PGD adaptive"

#: what a worst case is called in every report: under a suite that is meant for quoting, there with a verdict that it
#: can't be trusted, and under any other attacks
QUOTE = "the number to quote"
DOUBTED = "not one to quote: see the verdict"
BOUND = "an upper bound; art-mmc evaluate CHECKPOINT --suite strong gives a better one"

#: of a paper's suite, what substitutes are where they were given, and where none were
GIVEN = "the substitutes are those that were given, see the provenance"
DISTILLED = "the substitute is a small network of ours that was trained on this network's answers for these images"

#: share of the samples below which a round of a suite has found little, and rounds at most, each as dear as all before
CONVERGED, ROUNDS = 0.002, 2

#: (eps, norm) -> plans
Plans = Callable[[float, float], list[AttackPlan]]


def _none(eps: float, norm: float) -> list[AttackPlan]:
    return []


@dataclass(frozen=True)
class Suite:
    """
    A list of attacks for given radii.

    :param name: Its name.
    :param description: What it is, in one line.
    :param plans: (eps, norm) -> the plans at this radius. For a protocol they are the paper's, its steps absolute.
    :param eps: The radii of the paper, by name of the data set; None for a suite of ours, which takes any.
    :param once: Plans without a ball, run once.
    :param beside: (eps, norm) -> what we put beside the paper's plans at this radius.
    :param quirks: Those of :data:`QUIRKS` that the paper's code has.
    :param quotable: Whether its worst case is :data:`QUOTE`; that of any other is a :data:`BOUND`.
    :param look: Whether it is for a first look, whose verdict never says that a figure holds.
    :param rounds: (eps, norm, number) -> the plans of a round, for a suite that goes on until one finds little.
    :param protocol: For a paper's suite (part, what is exactly the paper's, what is not).
    """

    name: str
    description: str
    plans: Plans
    eps: Mapping[str, tuple[float, ...]] | None = None
    once: tuple[AttackPlan, ...] = ()
    beside: Plans = _none
    quirks: tuple[str, ...] = ()
    quotable: bool = False
    look: bool = False
    rounds: Callable[[float, float, int], list[AttackPlan]] | None = None
    protocol: tuple[tuple[str, str, str], ...] = ()

    def eps_for(self, dataset: str) -> tuple[float, ...] | None:
        """The paper's radii on a data set, or on its first one; None for a suite of ours."""
        if self.eps is None:
            return None
        return self.eps.get(dataset, next(iter(self.eps.values())))

    def build(
        self,
        eps: Sequence[float],
        norm: float = math.inf,
        nb_classes: int = 10,
        quirks: Sequence[str] = (),
        image_size: tuple[int, int] | None = (28, 28),
        left_out: list[str] | None = None,
        clip_values: Any = UNIT_BOX,
        rounds: int = ROUNDS,
    ) -> list[AttackPlan]:
        """
        :param eps: The radii, ascending, in the unit of the inputs.
        :param norm: Norm of the ball.
        :param nb_classes: Number of classes K; plans that need more are left out.
        :param quirks: Names in :data:`QUIRKS`.
        :param image_size: Height and width of the inputs, None for inputs that are no images: plans for larger ones are
               left out.
        :param left_out: A list that takes the names of the plans that are left out.
        :param clip_values: The box of the inputs; None for none. Settings of papers, which are those of inputs in
               [0, 1], go by its width.
        :param rounds: Number of rounds at most, for a suite that has some.
        :return: The plans, in the order in which they run.
        :raises ValueError: For a quirk that is unknown or not this paper's, a norm that is not the paper's, radii out
                of range, or a paper's settings for a box that is not equally wide everywhere.
        """
        self.check(norm, quirks)
        eps = check_radii(eps, norm, clip_values)
        unit = 1.0
        if clip_values is not None:
            unit = box_width(clip_values) if self.eps is None else box_unit(clip_values, f"suite '{self.name}'")
        plans: list[AttackPlan] = []
        for radius in eps:
            share = radius / unit
            more = [each for number in range(rounds) if self.rounds for each in self.rounds(share, norm, number + 1)]
            made = self.plans(share, norm), self.beside(share, norm) + more
            own, beside = ([replace(_in_unit(plan, unit), eps=radius) for plan in each] for each in made)
            plans += [_with_quirks(plan, quirks) for plan in own] + beside
        plans += [_with_quirks(_in_unit(plan, unit), quirks) for plan in self.once]
        fitting = [plan for plan in plans if fits(plan, nb_classes, image_size)]
        if left_out is not None:
            left_out += dict.fromkeys(plan.name for plan in plans if plan not in fitting)
        return fitting

    def protocol_of(self, eps: Sequence[float], clip_values: Any, given: bool) -> list[list[str]]:
        """
        The rows of :attr:`protocol` as they hold for a run of these radii, in the unit of the inputs, with substitutes
        given or not; none for a suite of ours.
        """
        if self.eps is None:
            return []
        unit = box_unit(clip_values, f"suite '{self.name}'")
        known = [radius * unit for radii in self.eps.values() for radius in radii]
        other = [each for each in eps if not any(math.isclose(each, radius, rel_tol=1e-6) for radius in known)]
        rows = [[DISTILLED if cell == GIVEN and not given else cell for cell in row] for row in self.protocol]
        if other:
            rows.append(["radii", "-", f"{', '.join(f'{radius:.4g}' for radius in other)}: not the paper's"])
        return rows

    def check(self, norm: float, quirks: Sequence[str]) -> None:
        """A ValueError for a quirk that is unknown or not this paper's, or a norm that is not the paper's."""
        for quirk in quirks:
            check_name("quirk", quirk, QUIRKS)
            if quirk not in self.quirks:
                raise ValueError(f"suite '{self.name}' has no quirk '{quirk}'.")
        if self.eps is not None and norm != math.inf:
            raise ValueError(f"suite '{self.name}': the paper's attacks are in the L-inf norm.")


def fits(plan: AttackPlan, nb_classes: int, image_size: tuple[int, int] | None) -> bool:
    """
    Whether a plan has a meaning for so many classes and images of this height and width; None if they are no images.
    """
    if plan.method == "square":
        # ART's windows are smaller than the image; in the 2-norm it tiles a square of at least five by five of two
        least = 2 if plan.norm == math.inf else 10
        if image_size is None or min(image_size) < least or (plan.norm == 2 and image_size[0] != image_size[1]):
            return False
    if image_size is None and (plan.transfer or plan.method == "rotation"):
        return False
    need = {"dlr": 3, "targeted_dlr": 4}.get(plan.objective or "", 2)
    return nb_classes >= need and not (plan.targets == "all" and nb_classes == 2 and plan.method != "fab")


#: options in the unit of the inputs, and the constant of C&W, which weighs a loss against a squared distance
_POWERS = {"delta": 1, "sigma": 1, "theta": 1, "initial_const": 2}


def _in_unit(plan: AttackPlan, unit: float) -> AttackPlan:
    """A plan for inputs in [0, 1] as one for inputs in a box of this width."""
    if unit == 1:
        return plan
    scales = {name: unit**power for name, power in _POWERS.items()}
    options = {name: value * scales[name] if name in scales else value for name, value in plan.options.items()}
    if not plan.bounded:  # the steps of C&W do not depend on the unit, given its constant
        return replace(plan, options=options)
    steps = tuple(step * unit for step in plan.step_sizes)
    return replace(plan, eps=plan.eps * unit, step_size=steps if len(steps) > 1 else steps[0], options=options)


def _with_quirks(plan: AttackPlan, quirks: Sequence[str]) -> AttackPlan:
    if "predicted_labels" in quirks and plan.targets is None and not plan.black_box:
        plan = replace(plan, labels="predicted")
    if "eps256" in quirks and plan.bounded:
        steps = plan.step_sizes if plan.method == "spsa" else tuple(step * 255 / 256 for step in plan.step_sizes)
        plan = replace(plan, eps=plan.eps * 255 / 256, step_size=steps if len(steps) > 1 else steps[0])
    return plan


# --------------------------------------------------------------------------------------------------------------- ours


def crossing(eps: float, steps: int) -> float:
    """A step by which so many cross the ball, and no smaller than needed."""
    return max(2.5 / steps, 0.1) * eps


def figures(eps: float, norm: float, steps: int) -> list[AttackPlan]:
    """The figures that stand side by side in every table, on the same samples with the same budget."""
    step = crossing(eps, steps)
    return [
        AttackPlan(FGSM, "fgsm", "adaptive", eps, norm, 1, eps),
        AttackPlan(PGD_LOSS, "pgd", "loss", eps, norm, steps, step),
        AttackPlan(PGD_CROSS_ENTROPY, "pgd", "cross_entropy", eps, norm, steps, step),
        AttackPlan(PGD_ADAPTIVE, "pgd", "adaptive", eps, norm, steps, step),
    ]


def _after(plans: Sequence[AttackPlan]) -> list[AttackPlan]:
    """The same on what still stands."""
    return [replace(plan, independent=False) for plan in plans]


def _soft(eps: float, norm: float, steps: int, starts: int, *radii: float) -> AttackPlan:
    """Our PGD on the soft margin, which finds most in its time: from the image, then from random points."""
    name, options = f"ScheduledPGD soft margin, {steps} steps", MappingProxyType({"radii": radii})
    return AttackPlan(name, "scheduled-pgd", "soft_margin", eps, norm, steps, restarts=starts, options=options)


def _towards(
    name: str, method: str, objective: str | None, eps: float, norm: float, steps: int, targets: int, **options: Any
) -> AttackPlan:
    """
    Towards each of the likeliest other classes in turn. Where the untargeted attack follows the runner-up into a dead
    end, as on networks trained by PC, a few steps towards another class find what hundreds do not find.
    """
    options["nb_targets"] = targets
    name = f"{name}, {targets} target{'s' * (targets > 1)}"
    return AttackPlan(name, method, objective, eps, norm, steps, targets="all", options=MappingProxyType(options))


def _quick(eps: float, norm: float) -> list[AttackPlan]:
    towards = _towards("ScheduledPGD margin", "scheduled-pgd", "margin", eps, norm, 20, 4, radii=(3.0,))
    return figures(eps, norm, 20) + _after([_soft(eps, norm, 40, 2, 1.5, 3.0), towards])


def _standard(eps: float, norm: float) -> list[AttackPlan]:
    return _quick(eps, norm) + _after([_soft(eps, norm, 100, 3, 1.5, 3.0)])


def _round(eps: float, norm: float, number: int) -> list[AttackPlan]:
    """What `strong` does on top, from new starts, then with more of all, until it finds little."""
    share = 2 ** (number - 1)
    plans = [
        _soft(eps, norm, 100, 2 * share, *((3.0, 2.0) if number % 2 else (2.0, 4.0, 1.0, 3.0))),
        _towards("APGD DLR", "auto-pgd", "targeted_dlr", eps, norm, 25 * share, 9),
        _towards("FAB", "fab", None, eps, norm, 40 * share, share),
    ]
    return [replace(plan, name=f"{plan.name}, round {number}", round=number) for plan in _after(plans)]


def _autoattack(eps: float, norm: float) -> list[AttackPlan]:
    """
    The four attacks of AutoAttack's standard version, with its steps, targets and queries, on what still stands.

    | Paper link: https://arxiv.org/abs/2003.01690
    """
    plans = [
        AttackPlan("APGD-CE", "auto-pgd", "cross_entropy", eps, norm, 100),
        AttackPlan("APGD-T", "auto-pgd", "targeted_dlr", eps, norm, 100, targets="all"),
        AttackPlan("FAB-T", "fab", None, eps, norm, 100, targets="all"),
        AttackPlan("Square", "square", None, eps, norm, 5000),
    ]
    return figures(eps, norm, 20) + _after(plans)


def _carlini_wagner(name: str, steps: int, rate: float, const: float, rounds: int = 9, **settings: Any) -> AttackPlan:
    """
    The L2 attack of Carlini and Wagner by ART's ElasticNet, of which it is the special case beta = 0: the constant goes
    by tens as in their code, and the steps are of FISTA where theirs are of Adam: it finds what short steps miss.

    | Paper link: https://arxiv.org/abs/1709.04114 (EAD, Section 3)
    """
    options = MappingProxyType({"confidence": 0.0, "binary_search_steps": rounds, "initial_const": const})
    return AttackPlan(name, "ead", steps=steps, step_size=rate, options=options, **settings)


def _papers_carlini(name: str, steps: int, rate: float, const: float, **settings: Any) -> tuple[AttackPlan, ...]:
    """The same as the papers' libraries run it, by Adam with early aborts; and by FISTA beside it."""
    fista = _carlini_wagner(f"{name}, by FISTA", steps, rate, const, **settings)
    options = MappingProxyType({**fista.options, "abort_early": True})
    return replace(fista, name=name, method="cw-adam", options=options), fista


# ------------------------------------------------------------------------------------------------ the papers' protocols


def _adaptive(eps: float, norm: float, steps: int, step: float) -> AttackPlan:
    return AttackPlan(f"PGD-{steps} adaptive", "pgd", "adaptive", eps, norm, steps, step)


def _pang2020_pgd(eps: float, norm: float) -> list[AttackPlan]:
    return [
        AttackPlan(f"PGD-{steps} {kind}", "pgd", "loss", eps, norm, steps, 2 / 255, targets=targets, every_point=False)
        for steps in (10, 50)
        for kind, targets in (("targeted", "random"), ("untargeted", None))
    ]


def _pang2020_beside(eps: float, norm: float) -> list[AttackPlan]:
    return [_adaptive(eps, norm, 50, 2 / 255)]


#: other libraries return the last point, and let the samples about it leave the box
_SPSA_OF_LIBRARIES = {"early_stop": False, "return_best": False, "clip_samples": False}


def _pang2020_spsa(eps: float, norm: float) -> list[AttackPlan]:
    # the margin is the paper's second objective, which it used for SPSA; cleverhans' has 64 pairs and a random start
    options = MappingProxyType({"nb_samples": 128, "delta": 0.01, **_SPSA_OF_LIBRARIES})
    return [
        AttackPlan(
            f"SPSA-10 {kind}", "spsa", "margin", eps, norm, 10, 0.01, targets=targets, options=options, samples=1000
        )
        for kind, targets in (("targeted", "random"), ("untargeted", None))
    ]


_PANG2020_ONCE = (
    *_papers_carlini("C&W targeted", 1000, 5e-3, 0.01, targets="random", samples=500),
    *_papers_carlini("C&W untargeted", 1000, 5e-3, 0.01, samples=500),
    AttackPlan("Gaussian noise", "noise", samples=1000, options=MappingProxyType({"sigma": 0.05, "clip": False})),
    AttackPlan("rotation", "rotation", samples=1000, options=MappingProxyType({"degrees": 30.0})),
)


def _li2021(steps: int, share: float | None, names: Sequence[str]) -> Plans:
    """The PC paper's attacks: advertorch's, on cross-entropy, with steps of 0.01 or of a share of eps."""

    def plans(eps: float, norm: float) -> list[AttackPlan]:
        step = 0.01 if share is None else share * eps
        # advertorch counts pairs, and starts from the image
        spsa = MappingProxyType({"nb_samples": 256, "delta": 0.01, "random_start": False, **_SPSA_OF_LIBRARIES})
        rows = {
            "FGSM": AttackPlan("FGSM", "fgsm", "cross_entropy", eps, norm, 1, eps),
            "BIM": AttackPlan("BIM-10", "bim", "cross_entropy", eps, norm, 10, step, every_point=False),
            "PGD": AttackPlan(f"PGD-{steps}", "pgd", "cross_entropy", eps, norm, steps, step, every_point=False),
            "MIM": AttackPlan(f"MIM-{steps}", "mim", "cross_entropy", eps, norm, steps, step, every_point=False),
            "SPSA": AttackPlan("SPSA", "spsa", "margin", eps, norm, 10, 0.01, options=spsa, samples=1000),
            "transfer PGD": AttackPlan("transfer PGD", "pgd", "cross_entropy", eps, norm, steps, step, transfer=True),
            "transfer MIM": AttackPlan("transfer MIM", "mim", "cross_entropy", eps, norm, steps, step, transfer=True),
        }
        return [rows[name] for name in names]

    return plans


def _li2021_beside(steps: int, share: float | None = None) -> Plans:
    def plans(eps: float, norm: float) -> list[AttackPlan]:
        step = 0.01 if share is None else share * eps
        return [
            AttackPlan(f"PGD-{steps} own loss", "pgd", "loss", eps, norm, steps, step),
            _adaptive(eps, norm, steps, step),
            AttackPlan("PGD-100 adaptive, large steps", "pgd", "adaptive", eps, norm, 100, (eps / 2, eps / 4), 2),
        ]

    return plans


def _li2021_cw(steps: int) -> tuple[AttackPlan, ...]:
    # the paper's "accuracy" under it is the share of images that a search without a ball failed to fool in its steps
    return _papers_carlini(f"C&W, {steps} steps", steps, 0.001, 0.001, samples=1000)  # advertorch's constant


_GREY, _COLOUR, _MANY = (0.1, 0.2, 0.3), (0.04, 0.12, 0.2), (0.005, 0.010, 0.015)


def _li2021_eps(colour: tuple[float, ...] = _COLOUR) -> Mapping[str, tuple[float, ...]]:
    grey = dict.fromkeys(("mnist", "kmnist", "fashion-mnist"), _GREY)
    return MappingProxyType({**grey, "cifar10": colour, "svhn": colour})


def _pang2018(eps: float, norm: float) -> list[AttackPlan]:
    # released code: 10 steps of eps / 10; the label is the network's prediction
    step = eps / 10
    return [
        AttackPlan("FGSM", "fgsm", "cross_entropy", eps, norm, 1, eps, labels="predicted"),
        AttackPlan("BIM", "bim", "cross_entropy", eps, norm, 10, step, labels="predicted", every_point=False),
        AttackPlan(
            "ILCM",
            "bim",
            "cross_entropy",
            eps,
            norm,
            10,
            step,
            targets="least_likely",
            labels="predicted",
            every_point=False,
        ),
    ]


def _pang2018_beside(eps: float, norm: float) -> list[AttackPlan]:
    return [_adaptive(eps, norm, 40, eps / 10)]


_PANG2018_ONCE = (
    AttackPlan(
        "JSMA",
        "jsma",
        targets="least_likely",
        samples=500,
        options=MappingProxyType({"theta": 1.0, "pixels": 100}),
    ),
    *_papers_carlini("C&W", 1000, 0.01, 1.0, targets="random", samples=500),
)


def _pang2021(eps: float, norm: float) -> list[AttackPlan]:
    # AutoAttack's four by what ART has: no FAB; the objectives are computed on the view
    return [
        AttackPlan("PGD-10", "pgd", "cross_entropy", eps, norm, 10, 2 / 255, every_point=False),
        AttackPlan("APGD cross-entropy", "apgd", "cross_entropy", eps, norm, 100, 2 * eps),
        *_after(
            [
                AttackPlan("APGD targeted DLR", "apgd", "targeted_dlr", eps, norm, 100, 2 * eps, targets="all"),
                AttackPlan("Square", "square", None, eps, norm, 5000),
            ]
        ),
    ]


_PANG2020 = ("predicted_labels", "eps256")
_CIFAR_PANG = MappingProxyType({"cifar10": (8 / 255, 16 / 255)})

# ---------------------------------------------------------------- what is exactly the papers', and what is not

_IMAGES = (
    "images",
    "true labels; a misclassified clean image counts as wrong",
    "a misclassified clean image is not attacked; of an attack on so many images it is the first ones that are "
    "classified correctly",
)
_CARLINI = "Adam in the space of arctanh, its learning rate, steps, first constant, 9 constants"
_ABORT = "early aborts by the total loss of our batches"

_PANG2020_PROTOCOL = (
    ("images", *_IMAGES[1:2], f"{_IMAGES[2]}; with the quirk predicted_labels, as in the release, all and the first"),
    ("radius", "8 and 16 of 255 as printed", "its code has 1/256 (quirk eps256)"),
)
_PANG2020_STEPS = (
    *_PANG2020_PROTOCOL,
    ("PGD", "10 and 50 steps of 2/255 on the own loss from a random start, random targets, the last point", "-"),
)
_LI2021_STEPS = (
    "FGSM, BIM, PGD, MIM",
    "advertorch's on the cross-entropy, the paper's steps, PGD from a random start, the last point",
    "-",
)
_LI2021_SPSA = (
    "SPSA",
    "advertorch's: 10 steps of Adam, learning rate and delta 0.01, 128 pairs, the margin, from the image, last point",
    "1,000 images; each has signs of its own, where the library has those of the batch",
)
_LI2021_CARLINI = ("C&W", f"advertorch's: {_CARLINI}", f"1,000 images; {_ABORT}, of a ten-thousandth")
_LI2021_TRANSFER = (
    "transfer",
    "PGD and MIM, the paper's steps, crafted on another network: there one of three convolutions (grey) or ResNet-56 "
    "(colour), no recipe stated",
    GIVEN,
)

_ROWS = (
    Suite(
        "quick",
        "own loss, cross-entropy, soft margin, four targets; seconds, a first look",
        _quick,
        look=True,
    ),
    Suite("standard", "the same, then more starts and steps; for a first answer", _standard),
    Suite(
        "strong",
        "the same, then restarts, all targets and FAB, in rounds until they find little; the one to quote",
        _standard,
        rounds=_round,
        quotable=True,
    ),
    Suite(
        "autoattack",
        "AutoAttack's standard version: APGD-CE, APGD-T, FAB-T, Square with 5,000 queries, beside our figures",
        _autoattack,
    ),
    Suite(
        "pang2020-table1",
        "MMC paper: PGD-10 and PGD-50 on the own loss, targeted and not",
        _pang2020_pgd,
        _CIFAR_PANG,
        beside=_pang2020_beside,
        quirks=_PANG2020,
        protocol=_PANG2020_STEPS,
    ),
    Suite(
        "pang2020-table2",
        "MMC paper: SPSA, C&W, Gaussian noise, rotation",
        _pang2020_spsa,
        _CIFAR_PANG,
        _PANG2020_ONCE,
        _pang2020_beside,
        _PANG2020,
        protocol=(
            *_PANG2020_PROTOCOL,
            (
                "SPSA",
                "cleverhans': 10 steps of Adam, learning rate and delta 0.01, 64 pairs, a random start, the last point",
                "the margin of the logits; the authors' patch of the library was not released",
            ),
            ("C&W", f"cleverhans': {_CARLINI}, a failure counts as distance 0", f"{_ABORT} instead of ten images"),
            ("noise, rotation", "deviation 0.05, not clipped; 30 degrees, nearest fill", "-"),
        ),
    ),
    Suite(
        "pang2020-table3",
        "MMC paper, across depth: PGD-10 and PGD-50 on the own loss",
        _pang2020_pgd,
        MappingProxyType({**_CIFAR_PANG, "cifar100": _CIFAR_PANG["cifar10"]}),
        beside=_pang2020_beside,
        quirks=_PANG2020,
        protocol=_PANG2020_STEPS,
    ),
    Suite(
        "li2021-table1",
        "PC paper: FGSM, BIM, PGD, MIM on cross-entropy, C&W with 100 steps",
        _li2021(40, None, ("FGSM", "BIM", "PGD", "MIM")),
        _li2021_eps(),
        _li2021_cw(100),
        _li2021_beside(40),
        protocol=(_IMAGES, _LI2021_STEPS, _LI2021_CARLINI),
    ),
    Suite(
        "li2021-table2",
        "PC paper: as Table 1, C&W with 1,000 steps",
        _li2021(40, None, ("FGSM", "BIM", "PGD", "MIM")),
        MappingProxyType({"mnist": _GREY, "cifar10": _COLOUR}),
        _li2021_cw(1000),
        _li2021_beside(40),
        protocol=(_IMAGES, _LI2021_STEPS, _LI2021_CARLINI),
    ),
    Suite(
        "li2021-table3",
        "PC paper, black box: transfer and SPSA",
        _li2021(40, None, ("transfer PGD", "transfer MIM", "SPSA")),
        _li2021_eps((*_COLOUR, 0.3)),  # 0.3 for SPSA
        beside=_li2021_beside(40),
        protocol=(_IMAGES, _LI2021_TRANSFER, _LI2021_SPSA),
    ),
    Suite(
        "li2021-table4",
        "PC paper, 100 and 200 classes: PGD and MIM with 10 steps of eps / 10, SPSA",
        _li2021(10, 0.1, ("PGD", "MIM", "SPSA")),
        MappingProxyType({"cifar100": _MANY, "tiny-imagenet": _MANY}),
        beside=_li2021_beside(10, 0.1),
        protocol=(
            _IMAGES,
            ("PGD, MIM", "advertorch's on the cross-entropy, 10 steps of eps / 10, the last point", "-"),
            _LI2021_SPSA,
        ),
    ),
    Suite(
        "li2021-table5",
        "PC paper with adversarial training: BIM, PGD, MIM, SPSA, C&W",
        _li2021(40, None, ("BIM", "PGD", "MIM", "SPSA")),
        MappingProxyType({"mnist": (0.3,), "kmnist": (0.3,), "fashion-mnist": (0.3,), "cifar10": (0.04, 0.3)}),
        _li2021_cw(100),
        _li2021_beside(40),
        protocol=(_IMAGES, _LI2021_STEPS, _LI2021_SPSA, _LI2021_CARLINI),
    ),
    Suite(
        "pang2018-rce",
        "RCE paper: FGSM, BIM, ILCM, JSMA, C&W as accuracy; for detection see art-mmc detect",
        _pang2018,
        MappingProxyType({"mnist": (0.16,), "cifar10": (0.16,)}),
        _PANG2018_ONCE,
        _pang2018_beside,
        protocol=(
            (
                "images",
                "FGSM, BIM and ILCM are given the network's own prediction as label",
                "accuracies, where the paper has areas under the curve; JSMA and C&W on the first 500 images that are "
                "classified correctly",
            ),
            (
                "FGSM, BIM, ILCM",
                "10 steps of eps / 10, the last point",
                "eps 0.16, the default of the code: none is stated",
            ),
            (
                "JSMA",
                "up to 100 values, towards the least likely class",
                "ART changes two at a time, each to full; the release one, by eps",
            ),
            ("C&W", f"{_CARLINI}, a random wrong class", f"1,000 steps, where the paper has up to 10,000; {_ABORT}"),
        ),
    ),
    Suite(
        "pang2021-tricks",
        "Bag of Tricks paper: PGD-10, and AutoAttack's parts as far as ART has them",
        _pang2021,
        MappingProxyType({"cifar10": (0.031, 8 / 255)}),  # a hair apart; the paper has networks for each
        beside=_pang2020_beside,
        protocol=(
            _IMAGES,
            ("PGD", "10 steps of 2/255 from a random start, the last point", "-"),
            (
                "AutoAttack",
                "APGD on the cross-entropy and on the targeted DLR with 9 targets, 100 steps; Square, 5,000 queries",
                "no FAB, which ART lacks; each on what the one before left",
            ),
        ),
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


def headline(*of: str | RobustnessRecord) -> str:
    """
    :param of: Records, or names of their suites, one for each record in a report; also of a suite not known here.
    :return: What the worst case is: :data:`QUOTE` where all suites are meant for that, else a :data:`BOUND`; both where
             they differ. Of a record whose verdict is that it can't be trusted, or still falls, it is none to quote.
    """
    names = [each if isinstance(each, str) else each.suite for each in of]
    quotable = [name in SUITES and SUITES[name].quotable for name in names]
    if not any(quotable):
        return BOUND
    doubts = [_doubt(each) for each, quoted in zip(of, quotable, strict=True) if quoted]
    known = " or ".join(sorted({doubt for doubt in doubts if doubt}, reverse=True))
    words = QUOTE if not known else DOUBTED if all(doubts) else f"{QUOTE} but where the verdict is {known}"
    if all(quotable):
        return words
    return f"under the suite {names[quotable.index(True)]} {words}, under any other {BOUND}"


def _doubt(of: str | RobustnessRecord) -> str | None:
    """The verdict for which a record's figure is none to quote."""
    if isinstance(of, str) or of.verdict is None or of.verdict.status not in (UNTRUSTWORTHY, NOT_CONVERGED):
        return None
    return of.verdict.status
