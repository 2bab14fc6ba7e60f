"""
Suites of attacks: three of ours, in which each attack stands for what it breaks in its time that the others leave, and
the papers' protocols with their exact settings, from protocols.toml, each followed by the adaptive attack that the
paper lacks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from art_mmc.checks import UNIT_BOX, box_unit, box_width, check_name, check_radii, fraction, tomllib, unknown_name
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

#: share of the samples below which a round of a suite has found little, and rounds at most, each nearly as dear as all
#: before it
CONVERGED, ROUNDS = 0.002, 2

#: (eps, norm) -> plans
Plans = Callable[[float, float], list[AttackPlan]]


def _nothing(eps: float, norm: float) -> list[AttackPlan]:
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
    beside: Plans = _nothing
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
    """Whether a plan has a meaning for so many classes and images of this height and width, None for no images."""
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
    """Towards each of the likeliest other classes in turn, which finds what hundreds of untargeted steps do not."""
    options["nb_targets"] = targets
    name = f"{name}, {targets} target{'s' * (targets > 1)}"
    return AttackPlan(name, method, objective, eps, norm, steps, targets="all", options=MappingProxyType(options))


def _first(eps: float, norm: float) -> list[AttackPlan]:
    """What breaks nearly all that falls, in some seconds, if it runs on all that stands."""
    towards = _towards("ScheduledPGD margin", "scheduled-pgd", "margin", eps, norm, 15, 2, radii=(3.0,))
    return _after([_soft(eps, norm, 50, 4, 1.5, 3.0, 2.0, 4.0), towards])


def _quick(eps: float, norm: float) -> list[AttackPlan]:
    return figures(eps, norm, 10) + _first(eps, norm)


def _standard(eps: float, norm: float) -> list[AttackPlan]:
    return figures(eps, norm, 20) + _first(eps, norm) + _after([_soft(eps, norm, 100, 3, 1.5, 3.0, 2.0)])


def _round(eps: float, norm: float, number: int) -> list[AttackPlan]:
    """What `strong` does on top until it finds little, twice as much a round; FAB, which broke nothing first, later."""
    share = 2 ** (number - 1)
    plans = [
        _soft(eps, norm, 100, 2 * share, *((3.0, 2.0) if number % 2 else (2.0, 4.0, 1.0, 3.0))),
        _towards("APGD DLR", "auto-pgd", "targeted_dlr", eps, norm, 25 * share, 9 if number == 1 else 4),
    ]
    if number > 1:
        plans.append(_towards("FAB", "fab", None, eps, norm, 40 * share, number - 1))
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
        AttackPlan("Square", "square", None, eps, norm, 5000, options=MappingProxyType({"stretched": False})),
    ]
    return figures(eps, norm, 20) + _after(plans)


def _papers(table: dict[str, Any], attacks: Mapping[str, dict[str, Any]], rows: Mapping[str, list[str]]) -> Suite:
    """A suite of protocols.toml, of the attacks and rows that it names."""

    def plans(names: Sequence[str]) -> Plans:
        return lambda eps, norm: [_plan(attacks[name], eps, norm) for name in names]

    once = (_plan(attacks[name], 0.0, math.inf) for name in table.pop("once", ()))
    protocol = ([cell.format(given=GIVEN) for cell in rows[name]] for name in table.pop("protocol"))
    return Suite(
        plans=plans(table.pop("plans")),
        beside=plans(table.pop("beside")),
        eps={dataset: tuple(map(_number, radii)) for dataset, radii in table.pop("eps").items()},
        once=tuple(each for plan in once for each in _beside_fista(plan)),
        quirks=tuple(table.pop("quirks", ())),
        protocol=tuple((part, theirs, ours) for part, theirs, ours in protocol),
        **table,
    )


def _plan(row: dict[str, Any], eps: float, norm: float) -> AttackPlan:
    """An attack of protocols.toml at a radius."""
    size = row.get("step_size", 0.0)
    steps = tuple(_number(each, eps) for each in (size if isinstance(size, list) else [size]))
    options = MappingProxyType(row.get("options", {}))
    step_size = steps if len(steps) > 1 else steps[0]
    return AttackPlan(**{**row, "step_size": step_size, "options": options, "eps": eps, "norm": norm})


def _number(entry: str | float, eps: float = 0.0) -> float:
    """What an entry stands for: a number, "8/255", or by eps "eps / 10" or "2 * eps"."""
    times, by_eps, over = str(entry).partition("eps")
    if not by_eps:
        return fraction(times)
    return float(times.rstrip(" *") or 1) * eps / float(over.lstrip(" /") or 1)


def _beside_fista(plan: AttackPlan) -> tuple[AttackPlan, ...]:
    """
    C&W by Adam with early aborts, as the papers' libraries run it, and beside it by ART's ElasticNet with beta 0, which
    is the same with steps of FISTA, which finds what short steps miss.

    | Paper link: https://arxiv.org/abs/1709.04114 (EAD, Section 3)
    """
    if plan.method != "cw-adam":
        return (plan,)
    options = {name: value for name, value in plan.options.items() if name != "abort_early"}
    fista = replace(plan, name=f"{plan.name}, by FISTA", method="ead", options=MappingProxyType(options))
    return plan, fista


def _read(text: str) -> list[Suite]:
    """The suites of protocols.toml."""
    tables = tomllib.loads(text)
    attacks, suites = _alike(tables["attacks"]), _alike(tables["suites"])
    return [_papers({"name": name, **table}, attacks, tables["rows"]) for name, table in suites.items()]


def _alike(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tables by name, each with what the one above that it is `like` has, in its own tables too, where it is silent."""
    found: dict[str, dict[str, Any]] = {}
    for name, row in tables.items():
        like = found[row.pop("like")] if "like" in row else {}
        inner = {key: {**like.get(key, {}), **each} for key, each in row.items() if isinstance(each, dict)}
        found[name] = {**like, **row, **inner}
    return found


_ROWS = (
    Suite("quick", "own loss, cross-entropy, soft margin, two targets; seconds, a first look", _quick, look=True),
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
    *_read(files(__package__).joinpath("protocols.toml").read_text("utf-8")),
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
