"""The suites: the papers' settings against their tables, the quirks, and each plan built and run once."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from art_mmc import load_dataset
from art_mmc.attacks import AutoAttackStandard, auto_attack
from art_mmc.attacks.build import build_attack
from art_mmc.evaluation import (
    QUIRKS,
    SUITES,
    AttackPlan,
    AttackRecord,
    RobustnessEvaluation,
    RobustnessRecord,
)
from art_mmc.evaluation.plans import MOST_TARGETS
from art_mmc.evaluation.records import gains
from art_mmc.evaluation.suites import DISTILLED, GIVEN, fits
from art_mmc.reports.evaluate import protocol_section, report_files, robustness_report
from art_mmc.studies.evaluate import assess
from tests.planted import evaluated, linear, plain, undefended

PAPERS = [name for name, suite in SUITES.items() if suite.eps is not None]
EPS, STEP = 8 / 255, 2 / 255


def built(name: str, eps: float = 0.3, **settings) -> dict[str, AttackPlan]:
    plans = SUITES[name].build([eps], **settings)
    assert len({plan.name for plan in plans}) == len(plans)
    return {plan.name: plan for plan in plans}


def test_autoattack_is_the_standard_version():
    plans = built("autoattack")
    steps, targets, queries = auto_attack._STEPS, auto_attack._TARGETS, auto_attack._QUERIES
    assert [plans[name].steps for name in ("APGD-CE", "APGD-T", "FAB-T", "Square")] == [steps, steps, steps, queries]
    assert [plans[name].objective for name in ("APGD-CE", "APGD-T")] == ["cross_entropy", "targeted_dlr"]
    assert targets == MOST_TARGETS
    assert [plans[name].targets for name in ("APGD-T", "FAB-T")] == ["all", "all"]
    assert not any(plans[name].independent for name in ("APGD-CE", "APGD-T", "FAB-T", "Square"))
    own = AutoAttackStandard(undefended(), eps=0.1, verbose=False)._attacks(4, 10)["Square"]
    for plan in (plans["Square"], built("pang2021-tricks")["Square"]):
        square = plan.build(undefended().with_objective("margin"), 0, 8, 0)
        assert (square.max_iter, square.p_init, square.nb_restarts) == (own.max_iter, own.p_init, own.nb_restarts)
        for step in (0, 60, 300, 1500, 4999):
            assert square._get_percentage_of_elements(step) == own._get_percentage_of_elements(step)


def shortened(plan: AttackPlan) -> AttackPlan:
    """The same attack with a tenth of the work."""
    options = dict(plan.options)
    for name, most in (("binary_search_steps", 2), ("nb_samples", 4), ("pixels", 4)):
        if name in options:
            options[name] = min(options[name], most)
    return replace(plan, steps=min(plan.steps, 3), options=options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "quirks"), [(name, quirks) for name in SUITES for quirks in {False, bool(SUITES[name].quirks)}]
)
def test_each_plan_of_each_suite_builds_and_runs(name, quirks):
    suite = SUITES[name]
    plans = suite.build([0.05, 0.1], quirks=suite.quirks if quirks else (), image_size=(8, 8))
    found = evaluated([shortened(plan) for plan in plans], n=4, converged=0, substitutes=[undefended()])
    assert [each.attack for each in found.attacks] == [plan.name for plan in plans]
    assert found.clean.standing.any()
    assert found.attacks[0].attacked.any()
    for plan, each in zip(plans, found.attacks, strict=True):
        for name in ("eps", "targets", "labels", "black_box"):
            assert getattr(each, name) == getattr(plan, name)
        if plan.bounded and not quirks:
            assert (each.standing <= found.clean.standing).all() or plan.labels == "predicted"


@pytest.mark.parametrize("name", ["quick", "standard", "strong"])
def test_our_suites_in_l2(name):
    found = evaluated([shortened(plan) for plan in SUITES[name].build([0.5], 2)], n=6)
    assert {each.norm for each in found.attacks if each.bounded} == {2}


# ------------------------------------------------------------ the papers' tables


def test_pang2020_tables_1_and_3():
    """MMC paper: PGD-10 and -50, steps of 2/255, random targets and none, the last point of each."""
    for name in ("pang2020-table1", "pang2020-table3"):
        plans = built(name, EPS)
        for steps in (10, 50):
            for kind, targets in (("targeted", "random"), ("untargeted", None)):
                plan = plans.pop(f"PGD-{steps} {kind}")
                assert (plan.method, plan.objective, plan.steps, plan.step_size) == ("pgd", "loss", steps, STEP)
                assert (plan.targets, plan.restarts, plan.labels, plan.every_point) == (targets, 1, "true", False)
        (beside,) = plans.values()
        assert (beside.name, beside.objective, beside.every_point) == ("PGD-50 adaptive", "adaptive", True)


def test_pang2020_table_2():
    plans = built("pang2020-table2", EPS)
    for kind, targets in (("targeted", "random"), ("untargeted", None)):
        spsa, cw = plans[f"SPSA-10 {kind}"], plans[f"C&W {kind}"]
        assert (spsa.steps, spsa.step_size, spsa.targets, spsa.samples) == (10, 0.01, targets, 1000)
        last = {"early_stop": False, "return_best": False, "clip_samples": False}
        assert dict(spsa.options) == {"nb_samples": 128, "delta": 0.01, **last}
        assert (cw.steps, cw.step_size, cw.targets, cw.samples) == (1000, 5e-3, targets, 500)
        options = {"confidence": 0.0, "binary_search_steps": 9, "initial_const": 0.01}
        assert (cw.method, dict(cw.options)) == ("cw-adam", {**options, "abort_early": True})
        assert plans[f"{cw.name}, by FISTA"].method == "ead"
        assert not cw.bounded
    assert dict(plans["Gaussian noise"].options) == {"sigma": 0.05, "clip": False}
    assert dict(plans["rotation"].options) == {"degrees": 30.0}
    assert plans["Gaussian noise"].samples == plans["rotation"].samples == 1000
    # what has no ball runs once, whatever the number of radii
    names = [plan.name for plan in SUITES["pang2020-table2"].build([EPS, 2 * EPS])]
    assert names.count("rotation") == 1
    assert names.count("SPSA-10 targeted") == 2


@pytest.mark.parametrize("name", SUITES)
def test_settings_of_papers_follow_the_range_of_the_inputs(name):
    """Pixels 0 to 255 are 255 times as large: so are radii, steps and noise; the constant of C&W goes by the square."""
    plans = SUITES[name].build([8 / 255, 0.1])
    wide = SUITES[name].build([8, 25.5], clip_values=(0, 255))
    powers = {"delta": 1, "sigma": 1, "theta": 1, "initial_const": 2}
    for plan, other in zip(plans, wide, strict=True):
        power = 1 if plan.bounded else 0
        assert other.eps == pytest.approx(255 * plan.eps, rel=1e-12)
        assert other.step_sizes == pytest.approx([255**power * step for step in plan.step_sizes], rel=1e-12)
        assert dict(other.options) == {
            key: pytest.approx(value * 255 ** powers[key]) if key in powers else value
            for key, value in plan.options.items()
        }
    assert {plan.eps for plan in wide if plan.bounded} == {8, 25.5}  # to the last bit
    uneven = (np.zeros((1, 2, 2)), np.arange(1.0, 5.0).reshape(1, 2, 2))
    if SUITES[name].eps is None:
        SUITES[name].build([0.1], clip_values=uneven)
    else:
        with pytest.raises(ValueError, match=f"suite '{name}' is for inputs of one range.* 1 to 4 apart"):
            SUITES[name].build([0.1], clip_values=uneven)


@pytest.mark.parametrize("name", ["li2021-table1", "li2021-table2", "li2021-table5"])
def test_li2021_white_box(name):
    plans = built(name)
    for attack, method, steps in (("BIM-10", "bim", 10), ("PGD-40", "pgd", 40), ("MIM-40", "mim", 40)):
        plan = plans[attack]
        assert (plan.method, plan.objective, plan.steps, plan.step_size) == (method, "cross_entropy", steps, 0.01)
        assert not plan.every_point
    assert ("FGSM" in plans) == (name != "li2021-table5")
    for cw in (plan for plan in plans.values() if "C&W" in plan.name):
        assert (cw.steps, cw.step_size) == (1000 if name == "li2021-table2" else 100, 0.001)
        options = {"confidence": 0.0, "binary_search_steps": 9, "initial_const": 0.001}
        by_adam = ("cw-adam", {**options, "abort_early": True})
        assert (cw.method, dict(cw.options)) == (("ead", options) if "FISTA" in cw.name else by_adam)
    assert {"PGD-40 own loss", "PGD-40 adaptive", "PGD-100 adaptive, large steps"} <= set(plans)


def test_radii_where_none_are_given():
    """Those of the tables are in `test_published.py`."""
    assert SUITES["li2021-table3"].eps_for("cifar10") == (0.04, 0.12, 0.2, 0.3)  # SPSA at 0.3
    assert SUITES["li2021-table1"].eps_for("a set of my own") == (0.1, 0.2, 0.3)
    assert SUITES["strong"].eps_for("mnist") is None
    assert RobustnessEvaluation("pang2020").eps == [8 / 255, 16 / 255]  # by its short name too


def test_li2021_tables_3_and_4():
    plans = built("li2021-table3")
    for attack, method in (("transfer PGD", "pgd"), ("transfer MIM", "mim")):
        plan = plans[attack]
        assert (plan.method, plan.objective, plan.steps, plan.step_size) == (method, "cross_entropy", 40, 0.01)
        assert plan.transfer
        assert plan.black_box
    assert (plans["SPSA"].steps, plans["SPSA"].step_size, plans["SPSA"].objective) == (10, 0.01, "margin")
    last = dict.fromkeys(("random_start", "early_stop", "return_best", "clip_samples"), False)
    assert dict(plans["SPSA"].options) == {"nb_samples": 256, "delta": 0.01, **last}
    plans = built("li2021-table4", 0.01)
    assert plans["PGD-10"].step_size == plans["MIM-10"].step_size == pytest.approx(0.001)


def test_pang2018_and_pang2021():
    plans = built("pang2018-rce", 0.16)
    assert plans["ILCM"].targets == plans["JSMA"].targets == "least_likely"
    assert {plans[name].labels for name in ("FGSM", "BIM", "ILCM")} == {"predicted"}
    assert (plans["JSMA"].labels, plans["JSMA"].samples, plans["JSMA"].options["pixels"]) == ("true", 500, 100)
    assert plans["BIM"].step_size == pytest.approx(0.016)
    plans = built("pang2021-tricks", EPS)
    assert (plans["PGD-10"].steps, plans["PGD-10"].step_size) == (10, STEP)
    assert (plans["Square"].steps, plans["APGD targeted DLR"].targets) == (5000, "all")


@pytest.mark.parametrize("name", PAPERS)
def test_what_we_add_stands_beside_each_protocol(name):
    """A paper's table is never shown without an attack that knows the defence, and which counts every point."""
    suite = SUITES[name]
    assert any(plan.objective == "adaptive" and plan.every_point for plan in suite.beside(0.1, math.inf))
    with pytest.raises(ValueError, match="the paper's attacks are in the L-inf norm"):
        suite.build([0.1], 2)


@pytest.mark.parametrize("name", SUITES)
def test_each_attack_of_a_protocol_is_told_apart(name):
    """Each attack of the paper's is named in the table, with what is exactly its and what is not."""
    suite = SUITES[name]
    assert bool(suite.protocol) == (name in PAPERS)
    assert all(part and exact and differs for part, exact, differs in suite.protocol)
    parts = " ".join(part for part, _, _ in suite.protocol).replace("AutoAttack", "AutoAttack APGD Square").lower()
    for plan in (*(suite.plans(0.1, math.inf) if name in PAPERS else ()), *(suite.once if name in PAPERS else ())):
        assert plan.name.lower().replace("gaussian ", "").replace(",", "").split()[0].split("-")[0] in parts, plan.name


def test_a_protocol_is_told_as_it_was_run():
    """On what transfer crafted, and radii that are not the paper's; in any box."""
    suite = SUITES["li2021-table3"]
    assert [GIVEN in map(str, sum(suite.protocol_of([0.1, 0.3], None, given), [])) for given in (True, False)] == [
        True,
        False,
    ]
    assert suite.protocol_of([25.5], (0, 255), False)[1][2] == DISTILLED
    assert suite.protocol_of([25.5, 76.5], (0, 255), True)[-1][0] == "SPSA"
    assert suite.protocol_of([0.1, 0.15], (0, 1), True)[-1] == ["radii", "-", "0.15: not the paper's"]


def test_a_report_tells_of_the_protocol_that_ran():
    """One that did not write it down, for it is older, is not told of in the words of today's attacks."""
    clean = AttackRecord("clean", None, 0.0, 0.0, 0, 0.0, np.ones(2, bool))
    attack = AttackRecord("C&W, 100 steps", None, 0.1, 0.0, 100, 0.0, np.ones(2, bool))
    old = RobustnessRecord(clean, (attack,), 0, "li2021-table1")
    assert "arctanh" not in protocol_section(old)
    assert "did not write down" in protocol_section(old)
    rows = SUITES["li2021-table1"].protocol_of([0.1], None, False)
    assert "arctanh" in protocol_section(replace(old, provenance={"protocol": rows}))
    assert not protocol_section(replace(old, suite="strong"))


def test_an_assessment_keeps_what_was_left_out_and_the_protocol():
    """Under their own names, where the report looks for them."""
    data = load_dataset("digits")
    data = replace(data, y_train=data.y_train % 2, y_test=data.y_test % 2)
    evaluation = RobustnessEvaluation("pang2021-tricks", [0.01], diagnostics=False, verbose=False)
    pgd, _, targeted, _ = evaluation.suite.plans(0.01, math.inf)
    evaluation.suite = replace(evaluation.suite, plans=lambda eps, norm: [pgd, targeted], beside=lambda eps, norm: [])
    network = plain(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), nb_classes=2)
    record = assess(network, data, evaluation, nb_test=8, curves=0)
    assert record.provenance["left_out"] == [targeted.name]
    assert record.provenance["protocol"][-1] == ["radii", "-", "0.01: not the paper's"]
    assert f"so few classes: {targeted.name}." in robustness_report(record)
    assert protocol_section(record)


# ------------------------------------------------------------ rounds


def in_rounds(number: int, step: float) -> AttackPlan:
    name, independent = f"round {number}", number == 0
    return AttackPlan(name, "bim", "margin", 0.1, steps=1, step_size=step, independent=independent, round=number)


def test_rounds_go_on_while_they_find_something(tmp_path):
    """A first round that finds nothing is the last; one that breaks a share of the samples is followed by another."""
    run = partial(evaluated, n=50)
    lazy = [in_rounds(0, 1e-6), in_rounds(1, 1e-6), in_rounds(2, 0.1)]
    busy = [lazy[0], replace(lazy[2], round=1, step_size=0.05), replace(lazy[2], name="last"), in_rounds(3, 0.1)]
    assert [each.attack for each in run(lazy).attacks] == ["round 0", "round 1"]
    assert [each.attack for each in run(lazy, converged=0).attacks] == ["round 0", "round 1", "round 2"]
    found = run(busy, folder=tmp_path)
    broken = gains(found.attacks, 0.1)
    assert len(broken) == 3
    assert broken[0] > 0
    assert sum(broken) == found.attacks[0].correct - found.worst_case(0.1).correct
    assert [each.attack for each in run(busy, converged=0.9).attacks] == ["round 0", "round 2"]
    again = run(busy, folder=tmp_path)  # from the batches that are kept
    assert [each.to_dict() for each in again.attacks] == [each.to_dict() for each in found.attacks]
    # the curve: each attack's gradients are added up, and what stands never rises
    curve = found.progress(0.1)
    assert curve[0] == (0, found.clean.correct)
    assert curve[-1] == (found.worst_case(0.1).gradients, found.worst_case(0.1).correct)
    assert all(one[0] <= other[0] and one[1] >= other[1] for one, other in zip(curve, curve[1:], strict=False))
    assert found.to_dict()["progress"] == [
        {"eps": 0.1, "points": [{"gradients": spent, "correct": left} for spent, left in curve]}
    ]
    assert "progress.png" in report_files(found)
    assert "progress.png" not in report_files(run(lazy[:1]))


def test_settings_of_rounds():
    assert {plan.round for plan in SUITES["strong"].build([0.1], rounds=3)} == {0, 1, 2, 3}
    assert {plan.round for name in ("quick", "standard") for plan in SUITES[name].build([0.1])} == {0}


# ------------------------------------------------------------ quirks


def test_the_quirks_by_hand():
    suite = SUITES["pang2020-table1"]
    plain_plans = suite.build([EPS])
    quirky = suite.build([EPS], quirks=tuple(QUIRKS))
    for before, after in zip(plain_plans[:4], quirky[:4], strict=True):
        assert after.eps == pytest.approx(8 / 256)
        assert after.step_size == pytest.approx(2 / 256)
        assert after.labels == ("true" if after.targets else "predicted")
        assert before.labels == "true"
    assert quirky[4] == plain_plans[4]  # ours
    (spsa, _, *_) = SUITES["pang2020-table2"].build([EPS], quirks=["eps256"])
    assert (spsa.eps, spsa.step_size) == (pytest.approx(8 / 256), 0.01)  # a rate, no multiple of 1/255
    spsa = SUITES["pang2020-table2"].build([EPS], quirks=["predicted_labels"])[1]
    assert (spsa.name, spsa.labels) == ("SPSA-10 untargeted", "true")


def test_quirky_radii_do_not_mix_with_ours():
    """8/256 is a smaller ball than 8/255: what falls there counts in both, what only ours fells counts in ours."""
    plans = SUITES["pang2020-table1"].build([EPS], quirks=["eps256"])
    found = evaluated([replace(plan, steps=5) for plan in plans])
    assert found.eps == (pytest.approx(8 / 256), EPS)
    ours = found.get("PGD-50 adaptive", EPS)
    np.testing.assert_array_equal(
        found.worst_case(EPS).standing, found.worst_case(found.eps[0]).standing & ours.standing
    )
    papers = [each.standing for each in found.attacks if each.eps == found.eps[0]]
    np.testing.assert_array_equal(
        found.worst_case(found.eps[0]).standing, np.logical_and.reduce([found.clean.standing, *papers])
    )


# ------------------------------------------------------------ what fits


@pytest.mark.parametrize(
    ("changes", "nb_classes", "size", "expected"),
    [
        ({"objective": "dlr"}, 2, (28, 28), False),
        ({"objective": "dlr"}, 3, (28, 28), True),
        ({"objective": "targeted_dlr", "targets": "all"}, 3, (28, 28), False),
        ({"objective": "targeted_dlr", "targets": "all"}, 4, (28, 28), True),
        ({"targets": "all"}, 2, (28, 28), False),
        ({"targets": "random"}, 2, (28, 28), True),
        ({"method": "square", "objective": None}, 10, None, False),
        ({"method": "square", "objective": None}, 10, (1, 9), False),
        ({"method": "square", "objective": None}, 10, (2, 9), True),
        ({"method": "square", "objective": None, "norm": 2}, 10, (9, 9), False),
        ({"method": "square", "objective": None, "norm": 2}, 10, (10, 12), False),
        ({"method": "square", "objective": None, "norm": 2}, 10, (10, 10), True),
        ({"transfer": True}, 10, None, False),
        ({"method": "rotation", "objective": None}, 10, None, False),
        ({}, 10, None, True),
    ],
)
def test_plans_that_do_not_fit_are_left_out(changes, nb_classes, size, expected):
    plan = AttackPlan(**{"name": "A", "method": "pgd", "objective": "margin", "eps": 0.1, **changes})
    assert fits(plan, nb_classes, size) == expected


@pytest.mark.parametrize("shape", [(1, 2, 9), (3, 5, 5), (1, 12, 4)])
def test_square_on_images_of_any_shape(shape):
    """ART's first window is 0.8 of the image: on small or long ones it would not fit in."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    x = rng.uniform(0.4, 0.6, (8, *shape)).astype(np.float32)
    classifier = linear(rng.normal(size=(3, size)), input_shape=shape, clip_values=None)
    y = classifier.predict(x).argmax(axis=1)
    plan = AttackPlan("Square", "square", None, 0.3, steps=40)
    found = RobustnessEvaluation([plan], diagnostics=False, verbose=False).evaluate(classifier, x, y)
    assert found.attacks[0].correct < 8


@pytest.mark.parametrize(("shape", "share"), [((1, 28, 28), 0.128), ((3, 32, 32), 0.033)])
def test_jsma_of_the_rce_paper_changes_a_hundred_values(shape, share):
    """A target that it can't reach: it stops at 100."""
    size = math.prod(shape)
    weight = np.linspace(-1, 0, size) * np.array([[-1.0], [1.0], [50.0]])
    classifier = linear(weight, input_shape=shape)
    x = np.full((1, *shape), 0.5, np.float32)
    attack = build_attack("jsma", classifier, batch_size=1, theta=1.0, pixels=100)
    assert attack.gamma == pytest.approx(share, abs=5e-4)
    x_adv = attack.generate(x, np.array([2]))
    assert classifier.predict(x_adv).argmax() != 2
    assert (x_adv != x).sum() == 100
