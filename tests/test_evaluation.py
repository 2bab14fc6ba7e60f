"""The evaluation: against closed forms on linear models, and against attacks that misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

from art_mmc import LossDefendedClassifier, create_classifier
from art_mmc.evaluation import (
    ATTACKS,
    FGSM,
    PGD_ADAPTIVE,
    PGD_LOSS,
    WORST_CASE,
    AttackRecord,
    RobustnessRecord,
    evaluate_robustness,
    seeded,
    wilson_interval,
)

EPS = (0.02, 0.05, 0.1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are as fast on one thread, and other processes then do not slow them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linear(torch.nn.Module):
    """A linear classifier."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(weight))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.flatten(1), self.weight, self.bias)


def linear_classifier(nb_classes: int, loss: torch.nn.Module | None = None) -> LossDefendedClassifier:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(nb_classes, 16)).astype(np.float32)
    bias = -weight.sum(axis=1) / 2  # the classes meet in the middle of the box
    return LossDefendedClassifier(
        Linear(weight, bias),
        loss or torch.nn.CrossEntropyLoss(),
        input_shape=(1, 4, 4),
        nb_classes=nb_classes,
        device_type="cpu",
    )


@pytest.fixture
def inner() -> np.ndarray:
    """Inputs so far inside the box that no attack meets its walls."""
    return np.random.default_rng(4).uniform(0.3, 0.7, size=(300, 1, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def mmc(digits) -> LossDefendedClassifier:
    with seeded(0):
        classifier = create_classifier("mmc", "cnn", input_shape=(1, 8, 8), nb_classes=10, device_type="cpu")
        classifier.fit(digits.x_train[:400], digits.y_train[:400], nb_epochs=8, batch_size=50)
    return classifier


@pytest.fixture(scope="module")
def record(mmc, digits) -> RobustnessRecord:
    return evaluate_robustness(mmc, digits.x_test[:60], digits.y_test[:60], EPS, steps=8, verbose=False)


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


def test_no_attack_beats_the_certificate_of_a_linear_model(inner):
    classifier = linear_classifier(5)
    logits = classifier.predict(inner)
    y = logits.argmax(axis=1)
    weight = classifier.model.weight.detach().numpy()
    reach = np.abs(weight[y][:, None] - weight[None]).sum(axis=2)  # (N, K)
    gaps = logits.max(axis=1, keepdims=True) - logits
    found = evaluate_robustness(classifier, inner, y, EPS, steps=10, verbose=False)
    for eps in EPS:
        certified = np.all((gaps > eps * reach + 1e-5) | (np.arange(5) == y[:, None]), axis=1)
        assert np.all(found.worst_case(eps).standing[certified])
        # the margin follows the nearest class, though another may be easier to reach: a few in a hundred are missed
        assert found.get(PGD_ADAPTIVE, eps).correct <= certified.sum() + 0.05 * len(y)


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


def test_nothing_is_left_to_attack(inner):
    classifier = linear_classifier(2)
    y = 1 - classifier.predict(inner).argmax(axis=1)
    found = evaluate_robustness(classifier, inner, y, EPS, steps=2, verbose=False)
    assert found.clean.correct == found.worst_case(EPS[0]).correct == 0


# -------------------------------------------------------------------------------------------------------------- records


def test_worst_case_is_below_every_attack_and_falls_with_eps(record):
    assert record.eps == EPS
    for i, eps in enumerate(EPS):
        worst = record.worst_case(eps)
        for attack in ATTACKS:
            for smaller in EPS[: i + 1]:
                assert not (worst.standing & ~record.get(attack, smaller).standing).any()
        assert not (worst.standing & ~record.clean.standing).any()
        if i:
            assert not (worst.standing & ~record.worst_case(EPS[i - 1]).standing).any()
    assert record.worst_case(EPS[-1]).correct < record.clean.correct


def test_what_a_record_says(record, mmc):
    assert [(each.attack, each.eps) for each in record.attacks] == [(a, e) for a in ATTACKS for e in EPS]
    fgsm, own, adaptive = (record.get(attack, 0.1) for attack in ATTACKS)
    assert (fgsm.objective, own.objective, adaptive.objective) == ("margin", "loss", mmc.row.objectives[0])
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


def test_json_round_trip(record):
    text = json.dumps(record.to_dict(), allow_nan=False)
    again = RobustnessRecord.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    np.testing.assert_array_equal(again.worst_case(0.1).standing, record.worst_case(0.1).standing)
    data = record.attacks[0].to_dict()
    names = {"attack", "objective", "eps", "eps_step", "steps", "n", "correct", "accuracy", "interval", "seconds"}
    names |= {"norm", "restarts", "targets", "labels", "bounded", "gradients", "queries", "attacked", "distances"}
    assert set(data) == names | {"standing"}
    assert data["correct"] == data["standing"].count("1")


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


def test_global_random_states_and_classifier_are_as_before(mmc, digits):
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()
    x = digits.x_test[:20].copy()
    weights = {name: tensor.clone() for name, tensor in mmc.model.state_dict().items()}
    evaluate_robustness(mmc, x, digits.y_test[:20], 0.1, steps=3, verbose=False)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert np.random.get_state()[2] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(x, digits.x_test[:20])
    assert mmc.objective == "adaptive"
    assert not any(module.training for module in mmc.model.modules())
    for name, tensor in mmc.model.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_the_same_seed_gives_the_same_record_whatever_the_global_state(mmc, digits):
    def run(seed: int) -> list[str]:
        found = evaluate_robustness(mmc, digits.x_test[:40], digits.y_test[:40], EPS, steps=2, seed=seed, verbose=False)
        return [each.to_dict()["standing"] for each in found.attacks]

    first = run(1)
    np.random.seed(123)
    torch.manual_seed(123)
    assert run(1) == first


def test_the_classifier_s_own_objective_does_not_matter(mmc, digits, record):
    with mmc.using_objective("loss"):
        found = evaluate_robustness(mmc, digits.x_test[:60], digits.y_test[:60], EPS, steps=8, verbose=False)
        assert mmc.objective == "loss"
    for attack in ATTACKS:
        np.testing.assert_array_equal(found.get(attack, 0.1).standing, record.get(attack, 0.1).standing)


def test_labels_as_indices_or_one_hot(mmc, digits, record):
    y = np.eye(10, dtype=np.float32)[digits.y_test[:60]]
    found = evaluate_robustness(mmc, digits.x_test[:60], y, EPS[::-1], steps=8, verbose=False)
    assert found.eps == EPS
    np.testing.assert_array_equal(found.worst_case(0.1).standing, record.worst_case(0.1).standing)


# ------------------------------------------------------------------------------------------- attacks that misbehave


@pytest.mark.parametrize("attack", [FastGradientMethod, ProjectedGradientDescent])
def test_an_attack_that_raises_raises(mmc, digits, monkeypatch, attack):
    def generate(self, x, y=None, **kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr(attack, "generate", generate)
    state = np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError, match="planted"):
        evaluate_robustness(mmc, digits.x_test[:5], digits.y_test[:5], 0.1, steps=2, verbose=False)
    assert mmc.objective == "adaptive"
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * np.nan, "gave NaN"),
        (lambda x: np.clip(x + 0.1001, 0, 1), r"left the ball: L-inf distance 0\.1"),
        (lambda x: x - 0.05, r"left the box: values from -0\.05"),
    ],
    ids=["NaN", "ball", "box"],
)
def test_an_attack_that_breaks_the_rules_raises(mmc, digits, monkeypatch, change, message):
    monkeypatch.setattr(FastGradientMethod, "generate", lambda self, x, y=None: change(x).astype(np.float32))
    with pytest.raises(RuntimeError, match=rf"attack 'FGSM' at eps 0.1 {message}"):
        evaluate_robustness(mmc, digits.x_test[:5], digits.y_test[:5], 0.1, steps=2, verbose=False)


def test_logits_that_are_no_numbers_raise(inner):
    classifier = linear_classifier(3)
    with torch.no_grad():
        classifier.model.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        evaluate_robustness(classifier, inner, np.zeros(300, int), 0.1, verbose=False)


def test_a_loss_without_gradient_flatters_and_the_adaptive_objective_sees_through(inner):
    """The planted defence: the training loss is constant, so PGD on it only walks at random."""

    class Constant(torch.nn.Module):
        reduction = "mean"

        def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            values = 0 * logits.sum(dim=1)
            return values if self.reduction == "none" else values.mean()

    classifier = linear_classifier(2, Constant())
    y = classifier.predict(inner).argmax(axis=1)
    found = evaluate_robustness(classifier, inner, y, 0.05, steps=5, verbose=False)
    assert found.get(PGD_LOSS, 0.05).accuracy > found.get(PGD_ADAPTIVE, 0.05).accuracy + 0.1
    assert found.worst_case(0.05).correct <= found.get(PGD_ADAPTIVE, 0.05).correct


# ------------------------------------------------------------------------------------------------------- user's errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 8}, r"eps: expected a number in \(0, 1\], .* got 8; did you mean 8 / 255\?"),
        ({"eps": [0.1, 0]}, "eps: expected a number"),
        ({"eps": [float("nan")]}, "eps: expected a number"),
        ({"eps": []}, "eps: expected at least one radius"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"x": np.zeros((2, 8, 8), np.float32)}, r"expected \(N, 1, 8, 8\)"),
        ({"x": np.full((2, 1, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"y": np.array([0, 10])}, "labels from 0 to 10"),
        ({"y": np.array([0])}, "1 labels for 2 samples"),
    ],
)
def test_bad_arguments(mmc, digits, changes, message):
    arguments = {"x": digits.x_test[:2], "y": digits.y_test[:2], "eps": 0.1, "verbose": False, **changes}
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(mmc, **arguments)


def test_other_classifiers_are_refused():
    with pytest.raises(TypeError, match="expected a LossDefendedClassifier, got str"):
        evaluate_robustness("mmc", np.zeros((1, 1, 8, 8)), np.zeros(1, int), 0.1)
