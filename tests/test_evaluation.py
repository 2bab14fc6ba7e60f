"""
The evaluation: against closed forms on linear models, against attacks that misbehave, and against being killed.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from art.attacks import evasion
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.defences.postprocessor import ReverseSigmoid
from art.defences.preprocessor.preprocessor import Preprocessor
from art.estimators.classification import PyTorchClassifier

from art_mmc import LossDefendedClassifier
from art_mmc.evaluation import (
    ATTACKS,
    FGSM,
    METHODS,
    PGD_LOSS,
    SUITES,
    WORST_CASE,
    AttackError,
    AttackPlan,
    AttackRecord,
    Diagnostic,
    RobustnessEvaluation,
    RobustnessRecord,
    Verdict,
    evaluate_robustness,
    robustness,
    seeded,
    wilson_interval,
)
from art_mmc.evaluation.curves import measure_curves
from art_mmc.evaluation.engine import (
    Target,
    attack_batch,
    beyond_ball,
    beyond_box,
    derived_seed,
    run_plan,
)
from tests.conftest import left_alone, timeless
from tests.planted import (
    Around,
    Hidden,
    adversarially_trained,
    around,
    digits,
    evaluated,
    furthest,
    linear,
    plain,
    taught,
    undefended,
)

pytestmark = pytest.mark.usefixtures("short_control")

EPS = (0.02, 0.05, 0.1)


def linear_classifier(nb_classes: int) -> LossDefendedClassifier:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(nb_classes, 16)).astype(np.float32)
    bias = -weight.sum(axis=1) / 2  # the classes meet in the middle of the box
    return linear(weight, bias, LossDefendedClassifier, input_shape=(1, 4, 4))


@pytest.fixture
def inner() -> np.ndarray:
    """Inputs so far inside the box that no attack meets its walls."""
    return np.random.default_rng(4).uniform(0.3, 0.7, size=(300, 1, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def record() -> RobustnessRecord:
    _, _, x, y = digits()
    return evaluate_robustness(taught("mmc"), x[:60], y[:60], EPS, steps=8, verbose=False)


# ---------------------------------------------------------------------------------------------------------- closed form


def test_two_linear_classes_against_the_closed_form(inner):
    """A sample of margin m stands at eps exactly if m > eps ||w_0 - w_1||_1; the labels are the predictions."""
    classifier = linear_classifier(2)
    logits = classifier.predict(inner)
    y = logits.argmax(axis=1)
    weight = classifier.model.weight.detach().numpy()
    reach = np.abs(weight[0] - weight[1]).sum()
    found = evaluate_robustness(classifier, inner, y, EPS, steps=10, verbose=False)
    assert found.clean.accuracy == 1
    for eps in EPS:
        left = np.abs(logits[:, 0] - logits[:, 1]) - eps * reach
        assert np.abs(left).min() > 1e-4  # no sample whose fate rounding decides
        for attack in (*ATTACKS, WORST_CASE):
            np.testing.assert_array_equal(found.get(attack, eps).standing, left > 0, err_msg=f"{attack} {eps}")
    assert found.get(FGSM, EPS[0]).correct > 0
    assert found.get(FGSM, EPS[-1]).correct < found.get(FGSM, EPS[0]).correct


AIMED = [("margin", None), ("soft_margin", None), ("targeted_dlr", "all")]
OTHERS = [*((name, None) for name in ("loss", "cross_entropy", "rescaled_cross_entropy", "dlr")), ("margin", "all")]


@pytest.mark.parametrize(
    ("norm", "eps", "box", "aimed"),
    [
        *((math.inf, 0.2, (0.0, 1.0), aimed) for aimed in AIMED + OTHERS),
        *((norm, eps, None, aimed) for norm, eps in ((math.inf, 0.2), (2, 0.4)) for aimed in AIMED[:2]),
        *((2, 0.4, (0.0, 1.0), aimed) for aimed in AIMED[::2]),
    ],
)
def test_fgsm_equals_the_closed_form_and_pgd_reaches_it(aimed, box, norm, eps, monkeypatch):
    monkeypatch.setattr("art_mmc.evaluation.engine.MOST_TARGETS", 1)  # the likeliest other class
    # Four classes, of which two matter: their logits are +-(w x + b), those of the others are far below. All objectives
    # then go along w. The lead of class 0 is so large that nothing breaks it: attacks go to their end.
    w = np.random.default_rng(5).normal(size=16) / 4
    bias = np.array([3 - w.sum() / 2, w.sum() / 2 - 3, -40, -41])
    classifier = linear(np.stack([w, -w, 0 * w, 0 * w]), bias, input_shape=(1, 4, 4), clip_values=box)
    x = np.random.default_rng(6).uniform(0, 1, size=(20, 1, 4, 4)).astype(np.float32)  # many are near a wall
    best = furthest(x, -w, eps, norm, box)
    target, y = Target(classifier, x), np.zeros(len(x), int)

    def fall(method: str, *steps: float) -> np.ndarray:
        plan = AttackPlan(method, method, aimed[0], eps, norm, *steps, targets=aimed[1])
        record, examples, _ = run_plan(target, x, y, plan, np.ones(len(x), bool), 0)
        assert record.standing.all()
        return (x - examples).reshape(len(x), -1) @ w

    walls = box is not None and norm == 2  # there one step is cut off, and many large ones end 3 % short
    if not walls:
        np.testing.assert_allclose(fall("fgsm"), best, rtol=1e-3)
    steps = (200, eps / 40) if walls else (40, eps / 8)
    methods: dict[str, tuple[float, ...]] = {"pgd": steps, "mim": steps}
    if aimed[0] != "rescaled_cross_entropy":  # its values saturate, by which these two go
        methods |= {"auto-pgd": (100,), "scheduled-pgd": (100,)}
    for method, settings in methods.items():
        reached = fall(method, *settings)
        assert (reached <= best * (1 + 1e-4)).all()
        assert (reached >= 0.99 * best).all()


@pytest.mark.parametrize("norm", [math.inf, 2], ids=["Linf", "L2"])
@pytest.mark.parametrize("objective", ["margin", "targeted_dlr"])
def test_all_targets_in_turn_find_exactly_what_no_certificate_covers(inner, objective, norm):
    """Five linear classes: a sample falls if for some class the gap is below eps times the dual norm of w_y - w_k."""
    classifier = linear_classifier(5)
    logits = classifier.predict(inner)
    y = logits.argmax(axis=1)
    weight = classifier.model.weight.detach().numpy()
    ways = weight[y][:, None] - weight[None]  # (N, K, 16)
    reach = np.abs(ways).sum(axis=2) if norm == math.inf else np.linalg.norm(ways, axis=2)
    reach[np.arange(len(y)), y] = 1e-9
    radius = ((logits.max(axis=1, keepdims=True) - logits) / reach + 1e9 * (np.arange(5) == y[:, None])).min(axis=1)
    eps = float(np.median(radius))
    plan = AttackPlan("PGD", "pgd", objective, eps, norm, 20, eps / 4, targets="all")
    record, _, _ = run_plan(Target(classifier, inner), inner, y, plan, np.ones(len(y), bool), 0)
    assert record.standing[radius > 1.001 * eps].all()
    assert not record.standing[radius < 0.99 * eps].any()


def test_misclassified_clean_samples_count_as_wrong_and_are_not_attacked(inner, monkeypatch):
    classifier = linear_classifier(2)
    y = classifier.predict(inner).argmax(axis=1)
    y[:100] = 1 - y[:100]
    attacked = []
    generate = FastGradientMethod.generate
    monkeypatch.setattr(
        FastGradientMethod, "generate", lambda self, x, y=None: attacked.append(x) or generate(self, x, y)
    )
    found = evaluate_robustness(classifier, inner, y, 1e-6, steps=2, batch_size=128, verbose=False)
    assert [len(x) for x in attacked] == [128, 72]
    np.testing.assert_array_equal(np.concatenate(attacked), inner[100:])
    assert found.clean.correct == 200
    assert found.clean.n == found.worst_case(1e-6).n == 300
    assert not found.worst_case(1e-6).standing[:100].any()


# -------------------------------------------------------------------------------------------------------------- records


def test_what_a_record_says(record):
    assert [(each.attack, each.eps) for each in record.attacks] == [(a, e) for a in ATTACKS for e in EPS]
    fgsm, own, adaptive = (record.get(attack, 0.1) for attack in ATTACKS)
    assert (fgsm.objective, own.objective, adaptive.objective) == (
        "soft_margin",
        "loss",
        taught("mmc").row.objectives[0],
    )
    assert (fgsm.steps, own.steps, adaptive.steps) == (1, 8, 8)
    assert fgsm.eps_step == 0.1
    assert own.eps_step == pytest.approx(0.1 * 2.5 / 8)
    assert record.clean.objective is None
    assert (record.clean.n, record.clean.eps, record.seed) == (60, 0.0, 0)
    assert own.seconds > 0
    assert record.worst_case(0.1).seconds == pytest.approx(sum(each.seconds for each in record.attacks))
    low, high = own.interval
    assert low < own.accuracy < high


def test_steps_are_never_shorter_than_a_tenth_of_eps(inner):
    classifier = linear_classifier(2)
    y = classifier.predict(inner).argmax(axis=1)
    found = evaluate_robustness(classifier, inner[:5], y[:5], 0.1, steps=100, verbose=False)
    assert found.get(PGD_LOSS, 0.1).eps_step == pytest.approx(0.01)


def test_missing_records(record):
    with pytest.raises(ValueError, match=r"nothing was measured at eps 0.3, only at 0.02, 0.05, 0.1"):
        record.worst_case(0.3)
    with pytest.raises(ValueError, match="no record of attack 'PGD' at eps 0.1"):
        record.get("PGD", 0.1)


def test_worst_case_by_hand():
    def made(attack: str, eps: float, standing: list[int]) -> AttackRecord:
        return AttackRecord(attack, "margin", eps, eps, 1, 1.0, np.array(standing, bool))

    record = RobustnessRecord(
        made("clean", 0.0, [1, 1, 1, 1, 0]),
        (
            made("A", 0.1, [0, 1, 1, 1, 0]),
            made("B", 0.1, [1, 1, 1, 0, 0]),
            made("A", 0.2, [1, 1, 0, 1, 0]),  # the attack is weaker in the larger ball: that is no robustness
        ),
        seed=0,
    )
    assert record.worst_case(0.1).standing.tolist() == [False, True, True, False, False]
    assert record.worst_case(0.2).standing.tolist() == [False, True, False, False, False]
    assert record.worst_case(0.2).accuracy == 0.2


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Wilson, z = 1.959964: (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (400, 400, 0.99049, 1.0)],
)
def test_wilson_interval(correct, n, low, high):
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-5)


# -------------------------------------------------------------------------------------------- the world as it was found


def test_the_same_record_whatever_objective_labels_order_of_radii_and_random_states(record):
    """And the network and the random states are left as they were."""
    _, _, x, y = digits()
    np.random.seed(123)
    torch.manual_seed(123)
    mmc = taught("mmc")
    with mmc.using_objective("loss"), left_alone(mmc.model):  # the images are read-only
        found = evaluate_robustness(mmc, x[:60], np.eye(10)[y[:60]], EPS[::-1], steps=8, verbose=False)
        assert mmc.objective == "loss"
    assert found.eps == EPS
    for attack in ATTACKS:
        np.testing.assert_array_equal(found.get(attack, 0.1).standing, record.get(attack, 0.1).standing)
    np.testing.assert_array_equal(found.examples, record.examples)


# ------------------------------------------------------------------------------------------- attacks that misbehave


@pytest.mark.parametrize(
    ("change", "norm", "message"),
    [
        (lambda x: x * np.nan, math.inf, "gave NaN"),
        (lambda x: np.clip(x + 0.1001, 0, 1), math.inf, r"left the ball: L-inf distance 0\.1"),
        (lambda x: np.clip(x - 0.05, 0, 1), 2, r"left the ball: L2 distance 0\.[2-4]"),
        (lambda x: x - 0.05, math.inf, r"left the box: values from -0\.05"),
        (lambda x: x[:, :, :4], math.inf, r"gave shape \(\d+, 1, 4, 8\) for inputs of shape"),
    ],
    ids=["NaN", "ball", "L2 ball", "box", "shape"],
)
def test_an_attack_that_breaks_the_rules_raises(monkeypatch, change, norm, message):
    monkeypatch.setattr(FastGradientMethod, "generate", lambda self, x, y=None: change(x).astype(np.float32))
    with pytest.raises(AttackError, match=rf"attack 'the one' at eps 0.1 {message}"):
        run([plan_of("fgsm", norm=norm)])


def test_logits_that_are_no_numbers_raise(inner):
    classifier = linear_classifier(3)
    with torch.no_grad():
        classifier.model.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        evaluate_robustness(classifier, inner, np.zeros(300, int), 0.1, verbose=False)


# ------------------------------------------------------------------------------------------- each attack, if it crashes


#: method -> what its plan needs to find something
NEEDED = {
    **dict.fromkeys(("pgd", "bim", "mim"), {"steps": 2, "step_size": 0.05}),
    "apgd": {"steps": 3, "step_size": 0.2},
    "auto-pgd": {"steps": 3},
    "scheduled-pgd": {"steps": 3},
    "fab": {"steps": 5, "options": {"nb_targets": 3}},
    "square": {"steps": 50},
    "spsa": {"steps": 10, "step_size": 0.05, "options": {"nb_samples": 32}},
    "cw": {"steps": 20, "step_size": 0.05, "options": {"binary_search_steps": 6, "initial_const": 1.0}},
    "cw-adam": {"steps": 30, "step_size": 0.1, "options": {"binary_search_steps": 2}},
    "ead": {"steps": 20, "step_size": 0.05, "options": {"binary_search_steps": 4, "initial_const": 0.1}},
    "deepfool": {"steps": 20},
    "jsma": {"targets": "least_likely", "options": {"gamma": 0.3}},
    "noise": {"options": {"sigma": 0.5}},
    "rotation": {"options": {"degrees": 180.0}},
}


def plan_of(method: str, **changes) -> AttackPlan:
    ours = METHODS[method]
    settings = {"objective": "margin" if ours.white_box else None, "eps": 0.1 if ours.bounded else 0.0}
    return AttackPlan(**{"name": "the one", "method": method, **settings, **NEEDED.get(method, {}), **changes})


run = partial(evaluated, n=20)
FIRST = AttackPlan("first", "fgsm", "margin", 0.001)


@pytest.mark.parametrize(("method", "transfer"), [("cw", False), ("square", False), ("mim", True)])
def test_an_attack_crashes_by_name(method, transfer, monkeypatch):
    def generate(self, x, y=None, **kwargs):
        raise IndexError("planted")

    for cls in (evasion.CarliniL2Method, evasion.SquareAttack, evasion.MomentumIterativeMethod):
        monkeypatch.setattr(cls, "generate", generate)
    plans = [FIRST, plan_of(method, transfer=transfer)]  # the one before is sane
    crash = pytest.raises(AttackError, match=r"attack 'the one'.* failed: IndexError: planted")
    with left_alone(undefended().model), crash:
        run(plans, substitutes=[undefended()])
    assert undefended().objective == "adaptive"


@pytest.mark.parametrize("method", METHODS)
def test_each_method_fells_some_of_an_undefended_network(method):
    """A method that is built so that it cannot succeed would pass for robustness."""
    found = run([FIRST, plan_of(method, **({"eps": 0.2} if METHODS[method].bounded else {}))])
    assert found.clean.correct >= 18
    assert found.attacks[1].correct <= found.clean.correct - 5
    if not found.attacks[1].bounded:
        fell = found.clean.standing & ~found.attacks[1].standing
        assert (found.attacks[1].distances[fell] > 0).all()
        assert np.isnan(found.attacks[1].distances[~fell]).all()


@pytest.mark.parametrize("method", ["fgsm", "pgd", "mim", "apgd", "cw", "ead", "deepfool"])
def test_gradients_that_are_no_numbers_stop_the_evaluation(method):
    """ART's PGD would replace them by zeros, and the network would pass for robust."""
    classifier = around(before=lambda x: Hidden.apply(x, float("nan")))
    plans = [plan_of("square", name="sane", steps=1), plan_of(method)]
    why = "gradient is NaN or infinite" if method == "pgd" else "(NaN|not finite)"
    with pytest.raises(AttackError, match=f"attack 'the one'.* failed: .*{why}"):
        run(plans, classifier)


def test_logits_that_are_no_numbers_at_the_examples_alone():
    classifier = around(behind=lambda logits: torch.where(logits.amax(dim=1, keepdim=True) < 2, torch.nan, logits))
    assert np.isfinite(classifier.predict(digits()[2][:20])).all()
    with pytest.raises(
        FloatingPointError, match=r"'the one' at eps 0\.9: the classifier's logits are not finite for \d+"
    ):
        run([plan_of("pgd", objective="margin", eps=0.9, steps=10, step_size=0.2)], classifier)


# ------------------------------------------------------------------------------------------------ the points on the way


class Wavy(torch.nn.Module):
    """Two classes; which of them is likelier changes back and forth with the mean of the input."""

    def __init__(self, waves: float = 40.0) -> None:
        super().__init__()
        self.waves = torch.nn.Parameter(torch.tensor(waves))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.cos(self.waves * (x.flatten(1).mean(dim=1) - 0.5)) - 0.3
        return torch.stack([value, -value], dim=1)


def wavy(**settings) -> PyTorchClassifier:
    return plain(Wavy(), input_shape=(1, 2, 2), nb_classes=2, **settings)


@pytest.fixture
def flat() -> tuple[np.ndarray, np.ndarray]:
    x = np.full((12, 1, 2, 2), 0.5, np.float32) + np.linspace(-0.02, 0.02, 12, dtype=np.float32).reshape(-1, 1, 1, 1)
    return x, np.zeros(12, int)


@pytest.mark.parametrize("settings", [{}, {"preprocessing": None}, {"preprocessing": (0.1, 1.0)}], ids=str)
@pytest.mark.parametrize("method", ["pgd", "mim"])
def test_every_point_counts_or_only_the_last(flat, method, settings):
    """Large steps go over the class and come back: the last point is right again. With ART's preprocessing too."""
    x, _ = flat
    target = Target(wavy(**settings), x)
    y = target.classes(x)
    plan = AttackPlan("PGD", method, "margin", 0.16, steps=2, step_size=0.075)
    standing = np.ones(12, bool)
    all_points, examples, classes = run_plan(target, x, y, plan, standing, 3)
    last = AttackPlan("PGD", method, "margin", 0.16, steps=2, step_size=0.075, every_point=False)
    last_point, _, _ = run_plan(target, x, y, last, standing, 3)
    assert not (all_points.standing & ~last_point.standing).any()
    assert all_points.correct < last_point.correct
    fell = ~all_points.standing
    np.testing.assert_array_equal(target.classes(examples[fell]), classes[fell])
    assert (classes[fell] != y[fell]).all()
    assert (np.abs(examples - x) <= 0.16 + 1e-6).all()


def test_the_points_kept_are_those_of_an_independent_run(flat):
    x, y = flat
    classifier = wavy()
    visited = []

    class Spied(PyTorchClassifier):
        def loss_gradient(self, x, y, **kwargs):
            visited.append(np.array(x))
            return super().loss_gradient(x, y, **kwargs)

    plan = AttackPlan("PGD", "pgd", "cross_entropy", 0.16, steps=6, step_size=0.075)
    target = Target(classifier, x)
    outcome = attack_batch(target, x, y, plan, 11)
    spied = wavy(cls=Spied)
    attack = ProjectedGradientDescent(
        spied, eps=0.16, eps_step=0.075, max_iter=6, num_random_init=1, batch_size=12, verbose=False
    )
    with seeded(derived_seed(11, 0, 0, 0)):
        last = attack.generate(x, y)
    points = np.stack([*visited, last])
    wrong = np.stack([target.classes(each) != y for each in points])
    np.testing.assert_array_equal(outcome.standing, ~wrong.any(axis=0))
    assert (wrong[:-1] & ~wrong[-1]).any()
    for i in np.flatnonzero(wrong.any(axis=0)):
        first = -1 if wrong[-1, i] else wrong[:, i].argmax()
        np.testing.assert_allclose(outcome.examples[i], points[first, i], atol=1e-6)


@pytest.mark.parametrize("part", [slice(None, None, -1), slice(5, None)], ids=["another order", "some left out"])
def test_an_attack_that_changes_its_batch_keeps_no_wrong_point(part, monkeypatch):
    _, _, x, y = digits()
    right = undefended().predict(x).argmax(axis=1) == y
    x, y = x[right][:20], y[right][:20]

    def generate(self, x, y=None, **kwargs):
        self.estimator.loss_gradient(x[part].copy(), np.eye(10, dtype=np.float32)[np.asarray(y)[part]])
        return x

    monkeypatch.setattr(ProjectedGradientDescent, "generate", generate)
    outcome = attack_batch(Target(undefended(), x), x, y, plan_of("pgd"), 0)
    assert outcome.standing.all()
    np.testing.assert_array_equal(outcome.examples, x)


# --------------------------------------------------------------------------------------------------- what attacks cost


class Counted(torch.nn.Module):
    """Counts the samples that go through it, with and without a gradient being asked for."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.with_gradient, self.without = network, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            self.with_gradient += len(x)
        else:
            self.without += len(x)
        return self.network(x)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_and_queries_are_what_the_network_saw(method):
    _, _, x, y = digits()
    right = undefended().predict(x).argmax(axis=1) == y
    x, y = x[right][:10], y[right][:10]
    counted = Counted(undefended().model)
    target = Target(plain(counted), x)
    counted.with_gradient = counted.without = 0
    judged = []
    target.classes = lambda x: judged.append(len(x)) or Target.classes(target, x)
    plan = plan_of(method, **({"eps": 0.001} if METHODS[method].bounded else {}))
    outcome = attack_batch(target, x, y, plan, 0)
    if plan.targets is not None:
        judged.append(10)  # the logits from which the target is chosen
    passes = {"deepfool": 10}.get(method, 1)  # backward passes for one forward
    assert outcome.gradients == passes * counted.with_gradient
    assert outcome.queries == counted.without - sum(judged)
    if method == "square":
        # ART asks for each point three times; here it is predicted once: clean, stripes, and a new point a step, unless
        # it is the old one
        assert 30 < outcome.queries <= (2 + plan.steps) * 10
    by_hand = {"fgsm": 10, "pgd": 20, "bim": 20, "mim": 20, "apgd": 30, "square": 0, "spsa": 0, "noise": 0}
    if method in by_hand:
        assert outcome.gradients == by_hand[method]
    if method == "spsa":
        assert (
            outcome.queries == (1 + 1 + 10 * (32 + 1)) * 10
        )  # the input, the start, and a step's samples and the step


# ------------------------------------------------------------------------------------------------ killed, and run again


BATCHES = [
    AttackPlan("PGD", "pgd", "margin", 0.05, steps=3, step_size=0.02, restarts=2),
    AttackPlan("PGD", "pgd", "margin", 0.1, steps=3, step_size=0.04, independent=False),
    AttackPlan("transfer", "mim", None, 0.1, steps=2, step_size=0.05, transfer=True, independent=False),
    AttackPlan("random target", "cw", steps=2, step_size=0.1, targets="random", options={"binary_search_steps": 2}),
]


def facts(record: RobustnessRecord) -> str:
    """All but the time that it took."""
    return json.dumps(timeless(record.to_dict()))


def keeping(folder: Path, plans=BATCHES, **settings) -> RobustnessRecord:
    return run(plans, n=40, folder=folder, **{"batch_size": 16, "seed": 3, **settings})


@pytest.mark.processes
def test_killed_in_the_middle_and_run_again_gives_the_same_record(tmp_path):
    """A child is killed by signal 9 while it writes its fourth batch."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (it never comes back)
        write, written = robustness.write_atomically, []

        def stops(files):
            written.append(files)
            if len(written) == 5:  # the description and three batches are there
                (tmp_path / "now.tmp").write_bytes(b"half of a")
                os.write(told, b"!")
                signal.pause()
            return write(files)

        robustness.write_atomically = stops
        try:
            keeping(tmp_path)
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"!"
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(kept) == 3
    again = keeping(tmp_path)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept  # they did not run again
    through = run(BATCHES, n=40, batch_size=16, seed=3)
    assert facts(again) == facts(through)
    np.testing.assert_array_equal(again.examples, through.examples)
    assert 0 < again.worst_case(0.1).correct < again.clean.correct
    third = keeping(tmp_path)  # all is there, and not even the substitute is trained again
    assert facts(third) == facts(through)
    assert third.attacks[2].seconds == again.attacks[2].seconds


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "another seed"),
        ({"batch_size": 8}, "another batch_size"),
        ({"plans": BATCHES[:3]}, "another attacks"),
        ({"classifier": adversarially_trained}, "another classifier"),
        ({"classifier": lambda: plain(undefended().model, clip_values=(-1.0, 1.0))}, "another classifier"),
        ({"n": 39}, "another data"),
        ({"substitutes": lambda: [adversarially_trained()]}, "another substitutes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_folder_of_another_evaluation_is_refused(tmp_path, changes, named):
    plans = BATCHES[:1]
    run(plans, folder=tmp_path)
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    with pytest.raises(ValueError, match=rf"holds another evaluation \({named}\): take another folder, or delete"):
        run(**{"plans": plans, "folder": tmp_path, **changes})
    run(plans, folder=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "of another batch", "of a shorter batch"])
def test_a_damaged_batch_is_named(tmp_path, damage):
    keeping(tmp_path, BATCHES[:1])
    file = tmp_path / "000-0001.npz"
    content = file.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "of another batch": (tmp_path / "000-0000.npz").read_bytes(),
        "of a shorter batch": (tmp_path / "000-0002.npz").read_bytes(),
    }
    file.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"000-0001\.npz is damaged \(.*\): delete it, and its batch runs again"):
        keeping(tmp_path, BATCHES[:1])
    file.unlink()
    assert facts(keeping(tmp_path, BATCHES[:1])) == facts(run(BATCHES[:1], n=40, batch_size=16, seed=3))
    (tmp_path / "evaluation.json").write_text('{"classifier": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged"):
        keeping(tmp_path, BATCHES[:1])


# --------------------------------------------------------------------------------------------------- plans side by side


def test_what_fell_in_a_larger_ball_still_counts_in_a_smaller_one():
    """Plans may come in any order of radii: only what fell in this or a smaller ball is left out."""
    large = AttackPlan("large", "pgd", "margin", 0.3, steps=5, step_size=0.1)
    little = AttackPlan("little", "pgd", "margin", 0.01, steps=2, step_size=0.01, independent=False)
    found = run([large, little])
    assert found.eps == (0.01, 0.3)
    assert found.get("large", 0.3).correct < 5
    assert found.worst_case(0.01).correct >= found.clean.correct - 1
    np.testing.assert_array_equal(found.get("little", 0.01).attacked, found.clean.standing)
    again = run([little, large, AttackPlan("later", "pgd", "loss", 0.3, steps=2, step_size=0.1, independent=False)])
    np.testing.assert_array_equal(again.get("later", 0.3).attacked, again.get("large", 0.3).standing)


def test_the_first_samples_alone():
    found = run([FIRST, plan_of("fgsm", samples=5, eps=0.3)])
    attacked = found.attacks[1].attacked
    np.testing.assert_array_equal(np.flatnonzero(attacked), np.flatnonzero(found.clean.standing)[:5])
    np.testing.assert_array_equal(found.attacks[1].standing[~attacked], found.clean.standing[~attacked])
    assert found.attacks[1].gradients == 5


def test_labels_that_the_network_predicts_by_hand():
    """A misclassified sample is pushed away from its wrong class, onto the right one at times (MMC paper's code)."""
    _, _, x, y = digits()
    classifier = undefended()
    clean = classifier.predict(x).argmax(axis=1)
    y = np.where(np.arange(len(y)) < 20, (clean + 1) % 10, y)  # the first twenty count as misclassified
    view = classifier.with_objective("loss")
    attack = ProjectedGradientDescent(view, eps=0.1, eps_step=0.04, max_iter=5, batch_size=100, verbose=False)
    by_hand = classifier.predict(attack.generate(x, clean)).argmax(axis=1) == y
    plan = AttackPlan("BIM", "bim", "loss", 0.1, steps=5, step_size=0.04, labels="predicted", every_point=False)
    found = RobustnessEvaluation([plan], diagnostics=False, verbose=False).evaluate(classifier, x, y)
    np.testing.assert_array_equal(found.attacks[0].standing, by_hand)
    assert found.attacks[0].attacked.all()
    turned = found.attacks[0].standing & ~found.clean.standing
    assert turned.any()  # wrong ones that the attack has made right: in the paper's figure,
    assert not found.worst_case(0.1).standing[turned].any()  # but not in the worst case
    np.testing.assert_array_equal(found.worst_case(0.1).standing, by_hand & (clean == y))


def test_targets():
    """Another class than the true one; the least likely; all of them, the likeliest first."""
    _, _, x, _ = digits()
    target = Target(undefended(), x)
    y = target.classes(x)
    logits = undefended().predict(x)
    seen = []

    class Spy(FastGradientMethod):
        def generate(self, x, y=None, **kwargs):
            seen.append(np.array(y))
            assert self.targeted
            return x

    def aims(kind: str) -> list[np.ndarray]:
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evasion, "FastGradientMethod", Spy)
            attack_batch(target, x, y, AttackPlan("aimed", "fgsm", "margin", 0.1, targets=kind), 4)
        return list(seen)

    (random_ones,) = aims("random")
    assert (random_ones != y).all()
    assert len(np.unique(random_ones)) == 10
    others = np.where(np.arange(10) == y[:, None], -np.inf, logits)
    np.testing.assert_array_equal(aims("least_likely")[0], np.where(np.isinf(others), np.inf, others).argmin(axis=1))
    in_turn = np.stack(aims("all"), axis=1)
    np.testing.assert_array_equal(in_turn, np.argsort(-others, axis=1, kind="stable")[:, :9])
    np.testing.assert_array_equal(np.sort(np.column_stack([in_turn, y]), axis=1), np.tile(np.arange(10), (100, 1)))


# ------------------------------------------------------------------------------------------------ any ART classifier


class OneHotHinge(torch.nn.Module):
    """A user's loss: takes one-hot labels, has no `reduction`, gives one number."""

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert y.shape == logits.shape
        true = (logits * y).sum(dim=1)
        return (1 + (logits - 1e9 * y).amax(dim=1) - true).clamp_min(0).mean()


class Rounded(Preprocessor):
    """A defence in numpy, before the network: 64 grey values. ART takes its gradient for one."""

    def __init__(self) -> None:
        super().__init__(apply_fit=False, apply_predict=True)

    def __call__(self, x, y=None):
        return np.round(63 * x) / np.float32(63), y


HALVES = np.full((1, 8, 8), 0.5, np.float32), np.full((1, 8, 8), 0.25, np.float32)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("settings", "suite"),
    [
        ({"preprocessing_defences": Rounded(), "preprocessing": None, "clip_values": None}, "quick"),
        ({"preprocessing": HALVES, "loss": OneHotHinge()}, "standard"),
        ({"preprocessing": (0.5, 0.25), "clip_values": (-0.5, 1.5)}, "standard"),
    ],
    ids=["numpy defence, no box", "arrays, one-hot loss", "numbers, another box"],
)
def test_a_user_s_classifier_comes_back_as_it_was(settings, suite):
    with seeded(1):
        network = torch.nn.Sequential(
            *(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU()),
            torch.nn.Linear(32, 10),
        )
        adam = torch.optim.Adam(network.parameters(), 1e-2)
        plain(network, optimizer=adam).fit(*digits()[:2], nb_epochs=5, batch_size=64)
    classifier = plain(network, optimizer=torch.optim.SGD(network.parameters(), 0.1), **settings)
    classifier._model.train()
    network[3].eval()
    network[1].weight.requires_grad_(False)
    network[4].weight.grad = torch.ones_like(network[4].weight)
    plans = [
        AttackPlan(**{**vars(plan), "steps": min(plan.steps, 3), "samples": 5 if not plan.bounded else None})
        for plan in RobustnessEvaluation(suite, 0.1).suite.build([0.1], nb_classes=10, image_size=(8, 8))
    ]
    with left_alone(classifier._model):
        found = run(plans, classifier, diagnostics=suite == "quick", n=30)
    assert found.clean.accuracy > 0.5
    assert found.worst_case(0.1).correct < found.clean.correct


def test_the_same_network_in_art_s_class_and_in_ours_has_the_same_record():
    ours = run(BATCHES[:2] + [plan_of("square")])
    arts = run(BATCHES[:2] + [plan_of("square")], plain(undefended().model))
    for one, other in zip(ours.attacks, arts.attacks, strict=True):
        np.testing.assert_array_equal(one.standing, other.standing)


def test_a_network_of_probabilities_is_attacked_by_their_logarithms():
    """Not by what a defence behind the network makes of its logits."""
    probabilities = around(behind=lambda logits: logits.softmax(dim=1))
    x = digits()[2]
    target = Target(probabilities, x)
    assert target.probabilities
    logits = undefended().predict(x[:5])
    found = target.view("margin").predict(x[:5])
    np.testing.assert_allclose(
        found - found.max(axis=1, keepdims=True), logits - logits.max(axis=1, keepdims=True), atol=1e-3
    )
    np.testing.assert_allclose(target.view("loss").predict(x[:5]).sum(axis=1), 1, rtol=1e-5)
    plan = [plan_of("pgd", steps=5)]
    np.testing.assert_array_equal(run(plan, probabilities).attacks[0].standing, run(plan).attacks[0].standing)
    behind = plain(Around(undefended().model, behind=lambda z: z), postprocessing_defences=ReverseSigmoid())
    assert not Target(behind, x).probabilities


class Cut(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.detach())


def test_views_evaluations_and_suites_pickle():
    """Of a network of probabilities, and of one that cuts its input off from the gradient, too."""
    x, network = digits()[2], undefended().model
    for odd in (torch.nn.Sequential(network, torch.nn.Softmax(dim=1)), Cut(network)):
        target = Target(plain(odd), x)
        assert target.probabilities or target.cut
        view = target.view("margin")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(view)).predict(x[:3]), view.predict(x[:3]))
    for name in ("quick", "standard", "strong"):
        assert pickle.loads(pickle.dumps(SUITES[name])) == SUITES[name]
        assert pickle.loads(pickle.dumps(RobustnessEvaluation(name, eps=0.1))).suite == SUITES[name]


# ------------------------------------------------------------------------------------------------- the whole record


@pytest.fixture(scope="module")
def whole() -> RobustnessRecord:
    plans = [*BATCHES, plan_of("square", independent=False), plan_of("deepfool")]
    return run(plans, adversarially_trained(), n=60, diagnostics=True)


def test_json_round_trip_of_everything(whole):
    data = whole.to_dict()
    text = json.dumps(data, allow_nan=False)
    again = RobustnessRecord.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.verdict == whole.verdict
    assert isinstance(again.verdict, Verdict)
    assert again.diagnostics == whole.diagnostics
    assert isinstance(again.diagnostics[0], Diagnostic)
    np.testing.assert_array_equal(again.attacks[-1].distances, whole.attacks[-1].distances)
    np.testing.assert_array_equal(again.predictions, whole.predictions)
    assert again.provenance == whole.provenance
    assert {"classifier", "data", "attacks", "seed", "batch_size", "versions", "device", "quirks"} <= set(
        data["provenance"]
    )
    by_class = {each["class"]: (each["correct"], each["n"]) for each in data["class_accuracy"][-1]["classes"]}
    assert by_class == again.class_accuracy(0.1)  # whose figures by hand are on a page in `tests/pages`
    names = {"attack", "objective", "eps", "eps_step", "steps", "n", "correct", "accuracy", "interval", "seconds"}
    names |= {"norm", "restarts", "targets", "labels", "bounded", "black_box", "gradients", "queries", "attacked"}
    names |= {"round"}
    assert set(data["attacks"][0]) == names | {"distances", "standing"}
    assert data["attacks"][0]["correct"] == data["attacks"][0]["standing"].count("1")
    assert [each.black_box for each in again.attacks] == [False, False, True, False, True, False]
    assert data["worst_case"][-1]["correct"] == whole.worst_case(0.1).correct
    assert again.examples is None


def test_a_record_of_an_older_version_is_read(whole):
    data = json.loads(json.dumps(whole.to_dict()))
    data["attacks"] = [each for each in data["attacks"] if each["bounded"]]  # it knew no others
    for name in ("suite", "diagnostics", "verdict", "provenance", "predictions", "labels", "diagnostics_seconds"):
        del data[name]
    for each in (data["clean"], *data["attacks"]):
        for name in ("attacked", "distances", "norm", "restarts", "targets", "labels", "bounded", "black_box"):
            del each[name]
    again = RobustnessRecord.from_dict(data)
    assert again.attacks[0].norm == math.inf
    assert again.attacks[0].attacked is None
    np.testing.assert_array_equal(again.worst_case(0.05).standing, whole.worst_case(0.05).standing)


def test_the_examples_of_a_record(whole):
    _, _, x, y = digits()
    x, y = x[:60], y[:60]
    classifier = adversarially_trained()
    fell = whole.clean.standing & ~whole.worst_case(0.1).standing
    assert fell.any()
    classes = classifier.predict(whole.examples).argmax(axis=1)
    assert (classes[fell] != y[fell]).all()
    np.testing.assert_array_equal(whole.predictions, classes)
    np.testing.assert_array_equal(whole.examples[~fell], x[~fell])
    assert np.abs(whole.examples - x).max() <= 0.1 + 1e-6
    assert whole.examples.min() >= 0
    assert whole.examples.max() <= 1
    fell_early = whole.clean.standing & ~whole.worst_case(0.05).standing
    assert np.abs(whole.examples - x)[fell_early].max() <= 0.05 + 1e-6  # found in the small ball, kept from there


def test_figures_of_a_record(whole):
    worst = whole.worst_case(0.1)
    inside = [each for each in whole.attacks if each.bounded]
    assert worst.gradients == sum(each.gradients for each in inside)
    assert worst.queries == sum(each.queries for each in inside)
    assert whole.seconds == pytest.approx(
        whole.clean.seconds + sum(each.seconds for each in whole.attacks) + whole.diagnostics_seconds
    )
    assert whole.get(WORST_CASE, 0.1).correct == worst.correct
    assert worst.accuracy_of(np.zeros(60, bool)) != worst.accuracy_of(np.zeros(60, bool))  # NaN
    assert worst.accuracy_of(worst.standing) == 1
    with pytest.raises(ValueError, match="no labels"):
        RobustnessRecord(whole.clean, whole.attacks, 0).class_accuracy(0.1)


# ------------------------------------------------------------------------------------------------- step sizes (PC + LC)


@pytest.mark.thorough
def test_no_fixed_step_beats_the_suite_on_a_network_trained_by_pc():
    """The attack's step size decides how robust PC looks; the suite has several, and aims at each class."""
    eps = 0.08
    steps = [
        AttackPlan(f"PGD {share}", "pgd", objective, eps, steps=40, step_size=share * eps)
        for share in (0.05, 0.25, 1.0)
        for objective in ("loss", "cross_entropy", "margin")
    ]
    fixed = evaluated(steps, taught("pc"), 60)
    found = {suite: evaluated(suite, taught("pc"), 60, eps=eps) for suite in ("quick", "standard")}
    best = min(each.correct for each in fixed.attacks)
    assert max(each.correct for each in fixed.attacks) > best  # it matters
    assert found["standard"].worst_case(eps).correct <= best
    assert found["quick"].worst_case(eps).correct <= best + 1


def test_a_plan_shows_all_that_decides_the_outcome():
    plan = plan_of("cw")
    assert all(f"{name}=" in repr(plan) for name in vars(plan))
    assert "mappingproxy" not in repr(plan)


@pytest.mark.parametrize("norm", [math.inf, 2])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (100, 101), (-1e4, 1e4)])
@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (3, 224, 224)])
@pytest.mark.parametrize("share", [0.002, 0.5])
def test_the_ball_allows_for_rounding_and_for_nothing_else(norm, low, high, shape, share):
    """Points on the edge as an attack computes them in float32, equal moves of equal values among them, and beyond."""
    rng = np.random.default_rng(0)
    x = (low + (high - low) * rng.uniform(0.3, 0.7, (3, *shape))).astype(np.float32)
    x[2] = x[2].flat[0]
    move = rng.normal(size=x.shape).astype(np.float32)
    move[1:] = np.sign(move[1:])
    move[2] = 1
    eps = share * (high - low) * (1 if norm == math.inf else 0.3 * math.sqrt(x[0].size))
    move = torch.from_numpy(move)
    length = move.abs().flatten(1).amax(1) if norm == math.inf else move.flatten(1).norm(dim=1)
    edge = torch.from_numpy(x) + move * (eps / length).view(-1, *[1] * len(shape))
    assert not beyond_ball(edge.numpy(), x, eps, norm).any()
    assert not beyond_ball(x + (edge.numpy() - x), x, eps, norm).any()
    far = (x + (1 + 1e-3) * (edge.double().numpy() - x)).astype(np.float32)
    seen = beyond_ball(far, x, eps, norm)
    # what is beyond by a thousandth is seen, unless float32 itself is no finer there
    if 1e-3 * eps > 10 * np.spacing(np.float32(np.abs(x).max())) * (1 if norm == math.inf else math.sqrt(x[0].size)):
        assert seen.all()


@pytest.mark.parametrize(
    ("box", "inside", "outside"),
    [
        ((0.1, 0.3), [0.1, 0.3, np.float32(0.3)], [0.09999, 0.30001]),
        ((0, 255), [0, 255, 255.00002], [-0.001, 255.01]),
        ((100, 101), [100, 101.00001], [99.999, 101.001]),
        ((np.zeros(3), np.array([1.0, 2.0, 255.0])), [[1, 2, 255]], [[1.001, 0, 0], [0, 0, -0.001]]),
    ],
)
def test_the_box_allows_for_rounding_and_for_nothing_else(box, inside, outside):
    for values, expected in ((inside, False), (outside, True)):
        x = np.array(values, np.float32).reshape(len(values), -1)
        assert (beyond_box(x, box) == expected).all()
    assert not beyond_box(np.array([[1e30]]), None).any()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("box", "norm"),
    [
        ((0.0, 255.0), math.inf),
        ((100.0, 101.0), 2),
        (None, math.inf),
        ("arrays", 2),
    ],
    ids=str,
)
def test_the_unit_of_the_inputs_does_not_matter(box, norm):
    """The same network and images on another range, eps in its unit: the same figures and the same verdict."""
    _, _, x, y = digits()
    x, y = x[:16], y[:16]
    low, high = (-3.0, 5.0) if box is None else (0.0, 16.0) if box == "arrays" else box
    width = high - low
    network = Around(undefended().model, before=lambda inputs: (inputs - low) / width)
    clip = tuple(np.full((1, 8, 8), bound, np.float32) for bound in (low, high)) if box == "arrays" else box
    eps = 0.1 if norm == math.inf else 0.5

    def run(network, x, eps, clip):
        classifier = plain(network, clip_values=clip)
        found = RobustnessEvaluation("quick", eps, norm, verbose=False, diagnostics=box == (0.0, 255.0))
        return found.evaluate(classifier, x, y)

    expected = run(undefended().model, x, eps, (0.0, 1.0))
    found = run(network, (low + width * x).astype(np.float32), eps * width, clip)
    assert found.eps == (eps * width,)
    if box is not None:  # without a box the attacks have more room
        assert abs(found.worst_case(eps * width).correct - expected.worst_case(eps).correct) <= 1
    assert (found.verdict and found.verdict.status) == (expected.verdict and expected.verdict.status)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_no_pass_of_the_network_is_larger_than_the_batch(size):
    """Attacks by queries, the diagnostics, the planted examples, the substitute and the curves among them."""
    _, _, x, y = digits()
    seen = []
    network = Around(undefended().model, before=lambda inputs: seen.append(len(inputs)) or inputs)
    classifier = plain(network)
    plans = [
        AttackPlan("SPSA", "spsa", "margin", 0.1, steps=2, step_size=0.02),
        AttackPlan("Square", "square", None, 0.1, steps=5),
        AttackPlan("transfer", "fgsm", "margin", 0.1, transfer=True),
        AttackPlan("all", "pgd", "margin", 0.1, steps=2, step_size=0.05, targets="all"),
        AttackPlan("DeepFool", "deepfool", steps=2),
    ]
    RobustnessEvaluation(plans, batch_size=size, verbose=False).evaluate(classifier, x[:7], y[:7])
    measure_curves(classifier, x[:7], y[:7], 0.1, steps=(1,), steps_over_eps=1, batch_size=size)
    assert max(seen) == size
