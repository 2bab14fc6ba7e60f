"""The diagnostics and the verdict: planted defences are called out for the right reason, honest networks are not."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc import LossDefendedClassifier, create_classifier
from art_mmc.evaluation import (
    BOUND,
    BROKEN,
    FIRST_LOOK,
    HOLDS,
    NOT_CONVERGED,
    UNTRUSTWORTHY,
    AttackPlan,
    AttackRecord,
    Diagnostic,
    RobustnessEvaluation,
    RobustnessRecord,
    seeded,
)
from art_mmc.evaluation.diagnostics import (
    BLACK_BOX,
    GAP,
    NOISE,
    RISE,
    SAMPLES,
    ZERO_SHARE,
    Examination,
    difference_interval,
    judge,
    zero_gradient,
)
from art_mmc.evaluation.engine import Target, beyond_ball, predict_clean
from art_mmc.evaluation.records import DIAGNOSTICS
from art_mmc.reports import robustness_report
from tests.planted import (
    SHAPE,
    Around,
    Hidden,
    Memory,
    Nearest,
    OneHotWithNoise,
    adversarially_trained,
    around,
    create,
    digits,
    evaluated,
    linear,
    plain,
    taught,
    undefended,
)

pytestmark = pytest.mark.usefixtures("short_control")

EPS = 0.1


evaluate = partial(evaluated, n=60, diagnostics=True)
quick = partial(evaluate, "quick", eps=EPS)


def flagged(record: RobustnessRecord) -> set[str]:
    return {each.name for each in record.diagnostics if each.flagged}


def sentence(record: RobustnessRecord, name: str) -> str:
    (found,) = (each.sentence for each in record.diagnostics if each.name == name)
    return found


# ------------------------------------------------------------ planted defences


def noisy(sigma: float) -> PyTorchClassifier:
    return around(before=lambda x: x + sigma * torch.randn_like(x))


class Smoothed(PyTorchClassifier):
    """The majority over noisy copies, in numpy: as a class with a `predict` of its own."""

    def predict(self, x, batch_size=128, **kwargs):
        rng = np.random.default_rng(0)
        copies = [x + rng.normal(0, 0.1, x.shape).astype(np.float32) for _ in range(5)]
        return np.mean([super(Smoothed, self).predict(each, batch_size=batch_size) for each in copies], axis=0)


class OurSmoothed(LossDefendedClassifier):
    def predict(self, x, batch_size=128, **kwargs):
        return np.round(super().predict(x, batch_size=batch_size, **kwargs), 1)


#: raw distances for logits, no temperature: the gaps are a hundred and more
saturated_mmc = partial(taught, "mmc", 40, scale=20.0, temperature=1.0)


@cache
def of_an_honest_network() -> RobustnessRecord:
    return quick(diagnostics=False)


#: name -> the classifier, its verdict, and what must be flagged
PLANTED = {
    "zero gradients": (
        lambda: around(before=lambda x: Hidden.apply(x, 0.0)),
        {"zero gradients of soft_margin", "unbounded attack", "black box better", "planted examples found"},
    ),
    "quantised input": (
        lambda: around(before=lambda x: torch.round(x * 16) / 16),
        {"zero gradients of soft_margin", "unbounded attack", "planted examples found"},
    ),
    "softmax outputs": (
        lambda: around(behind=lambda logits: (12 * logits).softmax(dim=1)),
        {"softmax outputs"},
    ),
    "noise": (lambda: noisy(0.1), {"not deterministic"}),
    "own predict": (lambda: plain(undefended().model, Smoothed), {"predict of its own"}),
}


@pytest.mark.parametrize(
    "name", [each if each == "zero gradients" else pytest.param(each, marks=pytest.mark.thorough) for each in PLANTED]
)
def test_planted_defences(name):
    build, expected = PLANTED[name]
    found = quick(build())
    assert found.verdict.status in (BROKEN, UNTRUSTWORTHY)
    assert expected <= flagged(found)
    for each in found.diagnostics:
        assert (each.sentence in found.verdict.reasons) == each.flagged
    if name in ("zero gradients", "quantised input"):
        # what it leaves is far above what the same network leaves without its mask: that alone would flatter
        honest = of_an_honest_network()
        attacks = replace(found, attacks=tuple(each for each in found.attacks if each.attack != DIAGNOSTICS))
        assert attacks.worst_case(EPS).correct > honest.worst_case(EPS).correct + 10
        assert found.worst_case(EPS).correct < attacks.worst_case(EPS).correct  # by what the diagnostics broke
        assert "exactly zero for 100.0 % of" in " ".join(found.verdict.reasons)


@pytest.mark.thorough
def test_saturated_mmc():
    """Cross-entropy sees nothing, and leaves what it finds; the margin does not saturate."""
    found = quick(saturated_mmc())
    assert found.verdict.status in (BROKEN, UNTRUSTWORTHY)
    assert {"zero gradients of cross_entropy", "gap of cross-entropy"} <= flagged(found)
    assert "zero gradients of soft_margin" not in flagged(found)
    reasons = " ".join(found.verdict.reasons)
    assert "the cross-entropy hides the gradient" in reasons
    assert "'cross_entropy' is exactly zero for" in reasons


def test_random_logits():
    found = quick(around(behind=torch.randn_like))
    assert found.verdict.status == BROKEN
    assert "is no better than chance" in found.verdict.reasons[0]
    assert "not deterministic" in flagged(found)


def test_a_subclass_of_ours_with_a_predict_of_its_own():
    model = undefended().model
    classifier = OurSmoothed(model, torch.nn.CrossEntropyLoss(), SHAPE, 10, device_type="cpu")
    found = quick(classifier)
    assert found.verdict.status == UNTRUSTWORTHY
    assert "OurSmoothed has its own predict: attacks with gradients see its network alone" in found.verdict.reasons[0]
    assert Target(classifier, digits()[2]).own_methods == ("predict",)
    patched = create()
    patched.predict = patched.predict
    assert Target(patched, digits()[2]).own_methods == ("predict",)
    assert Target(undefended(), digits()[2]).own_methods == ()
    assert Target(undefended().with_objective("dlr"), digits()[2]).own_methods == ()


class NoGradient(LossDefendedClassifier):
    def loss_gradient(self, x, y, *args, **kwargs):
        return 0 * super().loss_gradient(x, y, *args, **kwargs)


def test_a_subclass_of_ours_that_hides_its_gradient():
    """The attacks take that of the network."""
    model, loss = undefended().model, torch.nn.CrossEntropyLoss()
    hides = NoGradient(model, loss, SHAPE, 10, clip_values=(0, 1), device_type="cpu")
    assert Target(hides, digits()[2]).own_methods == ("loss_gradient",)
    plans = [AttackPlan("PGD", "pgd", "margin", EPS, steps=10, step_size=EPS / 4)]
    found, honest = (evaluated(plans, each, 60) for each in (hides, undefended()))
    np.testing.assert_array_equal(found.attacks[0].standing, honest.attacks[0].standing)


class Impostor(PyTorchClassifier):
    """Shows a network that has nothing to do with its predictions."""

    def predict(self, x, batch_size=128, **kwargs):
        return undefended().predict(x, batch_size=batch_size)


def test_attacks_without_gradients_ask_the_class_itself():
    network = linear(np.random.default_rng(0).standard_normal((10, 64))).model
    found = quick(plain(network, Impostor), eps=0.2)
    assert {"predict of its own", "black box better"} <= flagged(found)
    plans = [
        AttackPlan("Square", "square", None, 0.2, steps=100),
        AttackPlan("SPSA", "spsa", None, 0.2, steps=5, step_size=0.1),
    ]
    found, honest = (evaluated(plans, each, 60) for each in (plain(network, Impostor), undefended()))
    for one, other in zip(found.attacks, honest.attacks, strict=True):
        np.testing.assert_array_equal(one.standing, other.standing)
        assert one.correct < found.clean.correct - 10


# ------------------------------------------------------------ honest networks


@pytest.mark.parametrize(("eps", "norm"), [(0.02, np.inf), (0.2, 2)])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (lambda network: Memory(network, 0.15), "gradients beside differences"),
        (OneHotWithNoise, "jump between classes"),
        (lambda network: Nearest(network, digits()[0]), "gradients beside differences"),
    ],
    ids=["memory", "one-hot with noise", "nearest image"],
)
def test_what_hides_behind_live_gradients_is_refused_at_any_radius(kind, name, eps, norm):
    """The attacks run on gradients that are not those of the answers, at radii at which little falls anyway."""
    _, _, x, y = digits()
    examined = examination(plain(kind(undefended().model)), x[:12], y[:12], eps, norm)
    flags = {each.name for each in (examined.differences(), examined.border()) if each.flagged}
    assert name in flags


def examination(classifier, x, y, eps, norm=np.inf):
    """Of a network that no attack was tried on."""
    target = Target(classifier, x)
    clean, _ = predict_clean(target, x, y)
    nothing = AttackRecord("none", None, eps, 0.0, 0, 0.0, clean.standing, norm=norm)
    return Examination(target, x, y, RobustnessRecord(clean, (nothing,), 0), 0)


def test_a_pristine_copy_judges_the_examples_and_its_judgement_counts():
    x, y = (each[:20] for each in digits()[2:])
    plans = [AttackPlan("PGD", "pgd", "margin", 0.1, steps=10, step_size=0.025)]
    honest = evaluated(plans, n=20)
    alone, found = (evaluated(plans, plain(Memory(undefended().model, 0.15)), 20, diagnostics=d) for d in (False, True))
    assert alone.worst_case(0.1).accuracy > 0.9
    assert "memory of questions" in flagged(found)
    assert abs(found.worst_case(0.1).correct - honest.worst_case(0.1).correct) <= 2
    broken = found.clean.standing & ~found.worst_case(0.1).standing
    assert (undefended().predict(found.examples[broken]).argmax(axis=1) != y[broken]).all()
    assert not beyond_ball(found.examples, x, 0.1, np.inf).any()


@pytest.mark.parametrize("classes", [2, 200])
@pytest.mark.parametrize(("eps", "norm"), [(0.02, np.inf), (0.1, np.inf), (0.3, 2)])
def test_honest_networks_of_few_and_of_many_classes_are_not_accused(classes, eps, norm):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, classes)
    )
    _, _, x, _ = digits()
    classifier = plain(network, nb_classes=classes)
    examined = examination(classifier, x[:20], classifier.predict(x[:20]).argmax(axis=1), eps, norm)
    seen = examined.memory(), examined.differences(), examined.border()
    assert [each.flagged for each in seen] == [False] * 3
    assert seen[1].value > 0.9


def test_a_diagnosis_that_fails_loses_nothing_and_is_tried_again(monkeypatch, tmp_path):
    """A network that folds two copies of its batch into one pass, and a crash."""
    _, _, x, y = digits()
    x, y = x[:8], y[:8]
    network = undefended().model
    doubled = Around(network, before=lambda x: torch.cat([x, x]), behind=lambda z: z[: len(z) // 2])
    plans = [AttackPlan("PGD", "pgd", "margin", 0.1, steps=10, step_size=0.025)]
    evaluation = RobustnessEvaluation(plans, verbose=False, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Examination, "black_box", lambda self: 1 / 0)
        found = evaluation.evaluate(plain(doubled), x, y)
    assert found.get("PGD", 0.1).correct == evaluated(plans, n=8).get("PGD", 0.1).correct
    failed = {each.name: each.sentence for each in found.diagnostics if math.isnan(each.value)}
    sentence = "'black box better' could not be looked at: ZeroDivisionError: division by zero"
    assert failed == {"black box better": sentence}
    assert found.verdict.status != HOLDS
    assert sentence in found.verdict.reasons
    again = RobustnessRecord.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert math.isnan({each.name: each for each in again.diagnostics}["black box better"].value)
    assert again.to_dict() == found.to_dict()
    assert sentence in robustness_report(found)
    mended = evaluation.evaluate(plain(doubled), x, y)
    assert [each.name for each in mended.diagnostics] == [each.name for each in found.diagnostics]
    assert not any(math.isnan(each.value) for each in mended.diagnostics)


@pytest.mark.thorough
def test_an_adversarially_trained_network_holds():
    found = evaluate("standard", adversarially_trained(), n=100, eps=EPS)
    assert flagged(found) == set()
    assert found.verdict.status == HOLDS
    assert found.worst_case(EPS).accuracy > 0.6
    reason, *more = found.verdict.reasons
    assert ["'standard'" in each and BOUND in each for each in more] == [True]
    worst = found.worst_case(EPS)
    low, high = worst.interval
    assert f"at eps 0.1 is {100 * worst.accuracy:.1f} % of {worst.n} samples" in reason
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %" in reason
    assert "alone leaves" in reason


CHANCE = "At chance (10.0 %) or below: the worst case over 6 attacks at eps 0.3 is "


@pytest.mark.parametrize(("eps", "status", "reason"), [(0.05, FIRST_LOOK, ""), (0.3, BROKEN, CHANCE)])
def test_an_undefended_network_is_judged_by_its_figure(eps, status, reason):
    found = quick(eps=eps)
    assert flagged(found) == set()
    assert found.verdict.status == status
    assert found.verdict.reasons[0].startswith(reason)


@pytest.mark.thorough
@pytest.mark.parametrize("norm", [math.inf, 2])
def test_a_linear_model_with_a_certified_margin_holds(norm):
    rng = np.random.default_rng(3)
    w = rng.normal(size=64) / 8
    x = rng.uniform(0.2, 0.8, (200, *SHAPE)).astype(np.float32)
    logit = x.reshape(200, -1) @ w - w.sum() / 2
    reach = np.abs(w).sum() if norm == math.inf else np.linalg.norm(w)
    eps = float(np.quantile(np.abs(logit) / reach, 0.3))
    classifier = linear(np.stack([w, -w]), np.array([-w.sum() / 2, w.sum() / 2]))
    y = (logit < 0).astype(int)
    found = RobustnessEvaluation("quick", eps, norm, verbose=False).evaluate(classifier, x, y)
    np.testing.assert_array_equal(found.worst_case(eps).standing, np.abs(logit) > eps * reach)
    assert flagged(found) == set()
    assert found.verdict.status == FIRST_LOOK


@pytest.mark.thorough
def test_a_gap_of_a_little_trained_network_is_no_accusation():
    """Where half of the images fall, an attack on the loss may leave an eighth more of them than another."""
    x_train, y_train, x, y = digits()
    gaps = []
    for defence, eps, norm in (("sce", 0.15, math.inf), ("mmc", 0.15, math.inf), ("rce", 1.0, 2)):
        with seeded(2):
            classifier = create_classifier(defence, "cnn", input_shape=SHAPE, nb_classes=10)
            classifier.fit(x_train, y_train, nb_epochs=5)
        examined = examination(classifier, x[:60], y[:60], eps, norm)
        gaps += [examined.gap("loss"), examined.gap("cross_entropy")]
    assert max(gap.value for gap in gaps) > GAP
    assert [gap.sentence for gap in gaps if gap.flagged] == []


def test_one_class_after_the_other():
    """Test sets are sorted by class now and then: the samples looked at are spread over all of them."""
    _, _, x, y = digits()
    order = np.argsort(y, kind="stable")
    plans = [AttackPlan("FGSM", "fgsm", "margin", EPS)]
    evaluation = RobustnessEvaluation(plans, diagnostics=False, verbose=False)
    found = evaluation.evaluate(undefended(), x[order], y[order])
    examined = Examination(Target(undefended(), x), x[order], y[order], found, 0, samples=20)
    assert len(np.unique(examined.y)) == 10
    assert examined.n == len(np.unique(examined.index)) == 20
    assert found.clean.standing[examined.index].all()
    assert Examination(Target(undefended(), x), x, y, found, 0).n == min(SAMPLES, found.clean.correct)


# ------------------------------------------------------------ each diagnostic alone


def examine(classifier, plans=None, samples: int = 40, n: int = 60, eps: float = EPS) -> Examination:
    x, y = (each[:n] for each in digits()[2:])
    found = evaluated(plans or [AttackPlan("FGSM", "fgsm", "margin", eps)], classifier, n)
    return Examination(Target(classifier, x), x, y, found, 0, samples)


@pytest.fixture(scope="module")
def sane() -> Examination:
    names = {"own loss": "loss", "cross-entropy": "cross_entropy", "adaptive": "adaptive"}
    plans = [AttackPlan(f"PGD {name}", "pgd", names[name], EPS, steps=20, step_size=EPS / 8) for name in names]
    return examine(adversarially_trained(), plans)


def test_no_diagnostic_is_flagged_on_a_sane_network(sane):
    found = sane.run()
    assert [each.sentence for each in found if each.flagged] == []
    assert all(each.sentence.endswith(".") and json.dumps(each.to_dict(), allow_nan=False) for each in found)
    assert {each.name for each in found} == {
        *("not deterministic", "softmax outputs", "predict of its own", "stored examples fail", "gain of more steps"),
        *("gain of restarts", "gap of own loss", "gap of cross-entropy", "zero gradients of soft_margin"),
        *("zero gradients of loss", "zero gradients of cross_entropy", "unbounded attack", "black box better"),
        *("rise with eps of adaptive", "one step better on adaptive", "planted examples found"),
        *("memory of questions", "gradients beside differences", "jump between classes"),
    }


def nearest_image(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far inputs are from the nearest clean one, in a shape that broadcasts, and that one."""
    clean = torch.from_numpy(digits()[2][:60].copy())
    far, nearest = torch.cdist(x.flatten(1), clean.flatten(1), p=math.inf).min(dim=1)
    return far.view(-1, 1, 1, 1), clean[nearest]


def test_a_larger_ball_that_helps():
    """Behind a wall at 1.27 eps the logits are those of the clean input: attacks that go further fail."""

    def one_way(x: torch.Tensor) -> torch.Tensor:
        far, clean = nearest_image(x)
        return torch.where(far > 0.19, clean + 0 * x, x)

    found = examine(around(before=one_way), eps=0.15).monotone("adaptive")
    assert found.flagged
    assert found.value > RISE
    assert "at 0.075, " in found.sentence
    assert "a larger ball cannot make a network more robust" in found.sentence


def test_one_step_that_does_better_than_many():
    """At the input the gradient is the right one, a step away it is not."""

    def turned(x: torch.Tensor) -> torch.Tensor:
        right = (nearest_image(x.detach())[0] < 1e-6).float()
        return x.detach() + (2 * right - 1) * (x - x.detach())

    found = examine(around(before=turned), eps=0.15).one_step("adaptive")
    assert found.flagged
    assert found.value > RISE
    assert "one step (FGSM) leaves" in found.sentence
    assert found.sentence.endswith("the gradients near the inputs mislead.")


def test_an_attack_that_has_not_converged():
    """The suite had one short step; twenty of them break many more."""
    examined = examine(undefended(), [AttackPlan("short", "pgd", "margin", 0.15, steps=1, step_size=1e-4)], eps=0.15)
    for found, what in ((examined.more_steps(), "100 steps"), (examined.restarts(), "from five new starts")):
        assert found.flagged
        assert what in found.sentence
        assert found.sentence.endswith("the attacks have not converged.")
    standing = int(examined.standing.sum())
    assert f"Of {examined.n} samples {standing} withstand the attacks" in examined.more_steps().sentence
    # figures by hand: what falls, of all that are looked at
    broken = round(examined.more_steps().value * examined.n)
    assert f"breaks {broken} more ({100 * broken / examined.n:.1f} %)" in examined.more_steps().sentence
    assert 0.1 * examined.n < broken <= standing


def test_one_sample_of_a_few_is_no_rise(sane):
    """Of 16 one more is 6 %, above the threshold, and nothing; of 100 fifteen more are."""
    weak, strong = np.arange(16) < 9, np.arange(16) < 8
    assert sane._rise("it", [strong, weak], "It rises", "so").value == 1 / 16 > RISE
    assert sane._rise("it", [strong, weak], "It rises", "so").sentence == "It rises."
    many = [np.arange(100) < count for count in (60, 40, 55)]
    assert sane._rise("it", many, "It rises", "so").sentence == "It rises: so."
    assert sane._rise("it", many[:2], "It falls", "so").value == pytest.approx(-0.2)


def test_restarts_that_matter():
    """A network whose gradient is right in one start of five: what restarts break, more steps do not."""

    def lucky(x: torch.Tensor) -> torch.Tensor:
        # a start's first pixels decide, which never change since their gradient is zero
        key = torch.floor(x[:, :, 0, :2].flatten(1).sum(dim=1) * 1000) % 5
        shown = torch.cat([x[:, :, :1].detach(), x[:, :, 1:]], dim=2)
        return torch.where((key == 0).view(-1, 1, 1, 1), shown, shown.detach())

    examined = examine(
        around(before=lucky), [AttackPlan("PGD", "pgd", "margin", 0.2, steps=20, step_size=0.05)], eps=0.2
    )
    assert examined.restarts().flagged


def test_accuracy_that_is_left_when_anything_is_allowed():
    found = examine(around(before=lambda x: Hidden.apply(x, 0.0))).unbounded()
    assert found.flagged
    assert found.threshold == 0.1
    assert "With eps 1, where any input is allowed" in found.sentence
    wide = plain(undefended().model, clip_values=(-1.0, 2.0))
    assert "With eps 3, where" in examine(wide).unbounded().sentence
    examined = examine(undefended(), [AttackPlan("L2", "fgsm", "margin", 0.5, 2)], 20)
    assert "With eps 8, where" in examined.unbounded().sentence  # the box' diagonal, sqrt(64)
    assert not examined.unbounded().flagged


def test_black_box_attacks_that_do_better():
    masked = around(before=lambda x: Hidden.apply(x, 0.0))
    found = examine(masked, eps=0.2, plans=[AttackPlan("FGSM", "fgsm", "margin", 0.2)]).black_box()
    assert found.flagged
    assert found.value > BLACK_BOX
    assert "(Square with 100 queries): the gradients are masked." in found.sentence
    # one that the suite has is not run again
    plans = [
        AttackPlan("FGSM", "fgsm", "margin", 0.2),
        AttackPlan("my search", "square", None, 0.2, steps=100, independent=False),
    ]
    assert "(my search): the gradients" in examine(masked, plans).black_box().sentence
    # what no attack with gradients has tried tells nothing about them
    untried = examine(masked, [replace(plans[1], independent=True), replace(plans[0], independent=False)]).black_box()
    assert untried.value < found.value


def test_a_search_that_finds_something_goes_over_all_the_samples():
    """Of a few samples some fall to it: so it is run on those, too, that were not looked at."""
    masked = around(before=lambda x: Hidden.apply(x, 0.0))
    examined = examine(masked, eps=0.2, plans=[AttackPlan("FGSM", "fgsm", "margin", 0.2)], samples=16)
    assert examined.black_box().flagged
    others = set(examined.found) - set(examined.index.tolist())
    assert len(others) > 10
    found = examined.record_of_found()
    broken = [i for i in examined.found if not found.standing[i]]
    assert set(broken) == set(examined.found)
    assert found.attacked[broken].all()
    examples = np.stack([examined.found[i][0] for i in broken])
    assert (masked.predict(examples).argmax(axis=1) != examined.all_y[broken]).all()
    assert not beyond_ball(examples, examined.all_x[broken], 0.2, np.inf).any()


def test_stored_examples_that_fail(sane):
    stored = sane.record.examples
    fell = np.flatnonzero(sane.record.clean.standing & ~sane.record.worst_case(EPS).standing)
    assert len(fell) >= 4
    broken = stored.copy()
    broken[fell[0]] = sane.all_x[fell[0]]  # right again
    broken[fell[1]] = np.clip(stored[fell[1]] + 0.3, 0, 1)  # out of the ball
    broken[fell[2]] -= 0.01  # out of the box
    examined = Examination(sane.target, sane.all_x, sane.all_y, replace(sane.record, examples=broken), 0)
    found = examined.examples()
    assert found.flagged
    assert found.value == pytest.approx(3 / len(fell))
    assert f"Of {len(fell)} stored examples {300 / len(fell):.1f} % are no longer misclassified" in found.sentence


def test_determinism(sane):
    slightly = examine(noisy(1e-7)).determinism()
    assert not slightly.flagged
    assert 0 < slightly.value < NOISE
    much = examine(noisy(0.3)).determinism()
    assert much.flagged
    assert "an attack has to average over the randomness" in much.sentence
    assert sane.determinism().value == 0


@pytest.mark.thorough
def test_gaps_without_the_suite_s_figures_are_measured():
    """Own plans, or a paper's protocol, have no figures side by side."""
    examined = examine(saturated_mmc(), samples=30)
    found = examined.gap("cross_entropy")
    assert found.flagged
    assert "with 20 steps on the cross-entropy leaves" in found.sentence
    assert "of 30 samples" in found.sentence
    assert examined.gap("loss").name == "gap of own loss"


def test_gaps_with_the_suite_s_figures():
    """
    A gap is a reason for distrust where it is no chance and the gradient vanishes; that one attack finds more than
    another is none.
    """

    def of(own: np.ndarray, zero: float) -> Diagnostic:
        _, _, x, y = digits()
        attacks = replace(made("PGD own loss", 0, "loss"), standing=own), made("PGD adaptive", 40, "margin")
        record = RobustnessRecord(made("clean", 100), attacks, 0, examples=x)
        examined = Examination(Target(undefended(), x), x, y, record, 0)
        examined._zero_share = {"loss": zero}.get
        return examined.gap("loss")

    # 18 in a row more: 0.18 - 1.96 sqrt(0.18 * 0.82 / 100) = 0.105; 17: 0.096
    sure, unsure = np.arange(100) < 58, np.arange(100) < 57
    assert (difference_interval(sure, np.arange(100) < 40)) == pytest.approx((0.1047, 0.2553), abs=1e-4)
    assert of(sure, ZERO_SHARE + 0.01).flagged
    assert of(sure, ZERO_SHARE + 0.01).value == pytest.approx(0.18)
    said = (
        "PGD with 5 steps on the own loss leaves 58.0 % of 100 samples, on the adaptive objective 'soft_margin' 40.0 %"
    )
    assert f"{said}: the own loss hides the gradient." in of(sure, 1.0).sentence
    assert not of(unsure, 1.0).flagged
    assert not of(sure, ZERO_SHARE).flagged
    assert (
        f"{said} (95 % interval of the difference 10.5 % to 25.5 %); the worst case has both." in of(sure, 0).sentence
    )
    # as many more, but others: 38 of the 40 and 20 more are less sure than 18 more
    assert not of((np.arange(100) < 60) & (np.arange(100) >= 2), 1.0).flagged
    assert not of(np.arange(100) < 30, 1.0).flagged


def test_zero_gradients():
    half = digits()[2][:60].mean(axis=(1, 2, 3))
    cut = float(np.median(half))
    masked = around(before=lambda x: torch.where((x.mean(dim=(1, 2, 3), keepdim=True) > cut), x.detach(), x))
    _, _, x, y = digits()
    zero = zero_gradient(Target(masked, x).view("margin"), x[:60], y[:60], batch_size=7)
    np.testing.assert_array_equal(zero, half > cut)
    examined = examine(masked)
    found = examined.zero_gradients("margin")
    assert found.flagged
    assert found.value == pytest.approx((half > cut)[examined.index].mean())
    assert (
        f"exactly zero for {100 * found.value:.1f} % of 40 clean inputs: an attack on it sees nothing" in found.sentence
    )
    # where a loss is zero for safe samples and the attack on it does no worse for that, it is no fault
    gap = Diagnostic("gap of own loss", 0.0, GAP, False, "")
    assert not examined.zero_gradients("loss", gap).flagged
    assert "which costs an attack on it little" in examined.zero_gradients("loss", gap).sentence
    assert examined.zero_gradients("loss", replace(gap, flagged=True)).flagged
    broken = around(before=lambda x: Hidden.apply(x, float("nan")))
    with pytest.raises(FloatingPointError, match="gradient of the objective 'margin' is not finite"):
        zero_gradient(Target(broken, x).view("margin"), x, y)


def test_nothing_is_classified_correctly():
    _, _, x, y = digits()
    wrong = (undefended().predict(x).argmax(axis=1) + 1) % 10
    found = RobustnessEvaluation("quick", EPS, verbose=False).evaluate(undefended(), x, wrong)
    assert found.verdict.status == BROKEN
    assert len(found.diagnostics) == 4


# ------------------------------------------------------------ the verdict


def made(attack: str, standing: int, objective: str | None = None, **settings) -> AttackRecord:
    settings = {"eps": 0.0 if attack == "clean" else EPS, **settings}
    return AttackRecord(
        attack, objective, eps_step=0.0, steps=5, seconds=0.0, standing=np.arange(100) < standing, **settings
    )


SEEN = Diagnostic("a symptom", 0.5, 0.1, True, "A symptom of 50.0 %.")
NOT_SEEN = Diagnostic("no symptom", 0.0, 0.1, False, "Nothing.")


@pytest.mark.parametrize(
    ("attacks", "status", "reason"),
    [
        ([made("PGD", 60, "margin")], HOLDS, "No diagnostic is flagged, and the worst case over 1 attacks"),
        ([made("PGD", 10, "margin")], BROKEN, r"At chance \(10\.0 %\) or below: .* is 10\.0 % of 100 samples"),
        ([made("PGD", 11, "margin")], HOLDS, "is 11.0 %"),
        # less than half of what the own loss leaves, and 20 points below
        ([made("A", 60, "loss"), made("B", 29, "margin")], BROKEN, "A on the own loss with 5 steps leaves 60.0 %"),
        ([made("A", 60, "loss"), made("B", 30, "margin")], HOLDS, "No diagnostic"),
        ([made("A", 30, "loss"), made("B", 11, "margin")], HOLDS, "No diagnostic"),
        ([made("A", 90, "cross_entropy"), made("B", 40, "margin")], BROKEN, "A on the cross-entropy"),
        # both kinds flatter: one sentence, which does not say the figure again
        (
            [made("A", 60, "loss"), made("C", 70, "cross_entropy"), made("B", 5, "margin")],
            BROKEN,
            r"^A on .* leaves 60\.0 % .* and C on .* leaves 70\.0 % at eps 0\.\d+, but the worst case is far below\.$",
        ),
        # the strongest of the papers' attacks counts, not FGSM
        (
            [*(made(*each, "cross_entropy") for each in (("FGSM", 90), ("PGD", 50))), made("B", 40, "margin")],
            HOLDS,
            "No",
        ),
        # targeted ones and transfer are weak by their nature
        ([made("A", 90, "loss", targets="random"), made("B", 40, "margin")], HOLDS, "No diagnostic"),
        ([made("A", 90, "cross_entropy", black_box=True), made("B", 40, "margin")], HOLDS, "No diagnostic"),
        # another radius
        ([made("A", 90, "loss", eps=0.05), made("B", 40, "margin")], HOLDS, "No diagnostic"),
        # no ball, no part in it
        ([made("B", 40, "margin"), made("C&W", 0, eps=0.0, bounded=False)], HOLDS, "the worst case over 1 attacks"),
    ],
)
def test_verdicts_by_hand(attacks, status, reason):
    found = judge(RobustnessRecord(made("clean", 95), tuple(attacks), 0), [NOT_SEEN], 10)
    assert found.status == status
    assert any(re.search(reason, each) for each in found.reasons)


def test_verdicts_on_a_symptom_and_on_a_network_at_chance():
    found = judge(RobustnessRecord(made("clean", 95), (made("PGD", 60, "margin"),), 0), [NOT_SEEN, SEEN], 10)
    assert (found.status, SEEN.sentence in found.reasons) == (UNTRUSTWORTHY, True)
    found = judge(RobustnessRecord(made("clean", 12), (made("PGD", 11, "margin"),), 0), [], 10)
    assert found.status == BROKEN
    assert any("The clean accuracy, 12.0 %, is no better than chance" in each for each in found.reasons)


def rounds(*broken: int, start: int = 60) -> list[AttackRecord]:
    """Records of rounds that broke so many each, in two attacks, on what stood."""
    made_of = [made("PGD", start, "margin")]
    for number, count in enumerate(broken, 1):
        for part in (count // 2, count - count // 2):
            standing = made_of[-1].correct
            attacked = np.arange(100) < standing
            made_of.append(made(f"round {number}", standing - part, "margin", attacked=attacked, round=number))
    return made_of


@pytest.mark.parametrize(
    ("broken", "converged", "status", "told"),
    [
        # the last gain by its ratio to the one before; Poisson means with 1 in 40 below or above, from tables
        ((4, 2), 0.002, NOT_CONVERGED, r"broke 2 of 100 samples \(2\.0 %\); .* another 1\.0 % .* 0\.0 % to 7\.2 %\)"),
        ((4, 2), 0.03, HOLDS, "The last of 2 rounds"),
        ((3, 0), 0.002, HOLDS, r"broke 0 of 100 samples .* another 0\.0 % .* 0\.0 % to 3\.7 %\)"),
        ((10,), 0.002, NOT_CONVERGED, r"The last of 1 rounds .* another 10\.0 % .* 4\.0 % to 18\.4 %\)"),
        ((0, 40), 0.002, NOT_CONVERGED, r"another 20\.0 % .* 12\.0 % to 20\.0 %\)"),  # more than stand it can't break
        ((40, 10), 0.002, BROKEN, "At chance"),
    ],
)
def test_what_a_further_round_would_break_by_hand(broken, converged, status, told):
    found = judge(RobustnessRecord(made("clean", 95), tuple(rounds(*broken)), 0, "strong"), [], 10, converged)
    assert found.status == status
    assert re.search(told, " ".join(found.reasons))
    quick = judge(RobustnessRecord(made("clean", 95), tuple(rounds(*broken)), 0, "quick"), [], 10, converged)
    assert quick.status in (BROKEN, FIRST_LOOK)


def test_on_fewer_than_a_hundred_samples_nothing_is_said_to_hold():
    for n, status in ((100, HOLDS), (99, FIRST_LOOK)):
        records = [replace(each, standing=each.standing[:n]) for each in (made("clean", 95), made("PGD", 60, "margin"))]
        found = judge(RobustnessRecord(records[0], (records[1],), 0, "strong"), [], 10)
        assert found.status == status
        assert any("99 samples say too little" in each for each in found.reasons) == (n == 99)


def test_the_deadliest_attack_is_named():
    part = made("on the rest", 20, "dlr", attacked=np.arange(100) < 40)
    attacks = (made("first", 60, "loss"), made("second", 40, "margin"), part)
    reason, bound = judge(RobustnessRecord(made("clean", 95), attacks[1:], 0, "own plans"), [], 10).reasons
    assert BOUND in bound
    assert "is 20.0 % of 100 samples" in reason
    assert reason.endswith("; second on 'margin' alone leaves 40.0 %.")
