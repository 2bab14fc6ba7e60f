"""What every attack of the package promises, whatever it does: a row an attack, and one test a promise."""

from __future__ import annotations

import inspect
import itertools
import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.attack import EvasionAttack
from art.defences.preprocessor import SpatialSmoothing
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
from art.exceptions import EstimatorError
from torch import nn

from art_mmc import ConfidenceDetector, LossDefendedClassifier
from art_mmc.attacks import (
    SPSA,
    AutoAttackStandard,
    AutoPGD,
    CarliniL2,
    FastAdaptiveBoundary,
    GaussianNoise,
    RandomRotation,
    ScheduledPGD,
)
from art_mmc.attacks.detector_aware import DensityAwareCarliniL2, DetectorAwarePGD
from art_mmc.detectors import NetworkOutputs
from art_mmc.evaluation.engine import beyond_box
from art_mmc.objectives import margin
from art_mmc.state import seeded
from tests.conftest import left_alone
from tests.planted import Around, Hidden, Linear, digits, plain, undefended

NAN, INF = math.nan, math.inf
#: attack -> settings with which it takes no time
QUICK: dict[type, dict[str, Any]] = {
    SPSA: {"max_iter": 3, "nb_samples": 6, "eps": 0.3},
    GaussianNoise: {"sigma": 0.4, "nb_trials": 3},
    RandomRotation: {"degrees": 60.0, "nb_trials": 3},
    AutoPGD: {"max_iter": 8, "eps": 0.1},
    ScheduledPGD: {"max_iter": 8, "eps": 0.1},
    FastAdaptiveBoundary: {"max_iter": 8, "eps": 0.1, "nb_targets": 0},
    AutoAttackStandard: {"eps": 0.1},
    CarliniL2: {"max_iter": 20, "binary_search_steps": 3},
    DensityAwareCarliniL2: {"max_iter": 3, "start_max_iter": 2, "binary_search_steps": 1},
    DetectorAwarePGD: {"max_iter": 3, "eps": 0.1},
}
SWITCHES = "abort_early clip clip_samples early_stop random_start return_best targeted verbose"
COUNTS = "batch_size binary_search_steps max_iter max_queries_per_forward nb_restarts nb_trials start_max_iter"
POSITIVE = "degrees delta eps eps_step learning_rate sigma start_initial_const"
#: parameter -> values that every attack that has it refuses
REFUSED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(SWITCHES.split(), (1, "no")),
    **dict.fromkeys(COUNTS.split(), (0, -1, 1.5, True)),
    **dict.fromkeys(POSITIVE.split(), (0, -1.0, NAN, INF)),
    "alpha_max": (1.1,),
    "beta": (1,),
    "confidence": (-1.0, NAN),
    "distance_from": ("here",),
    "eta": (NAN, 0.9),  # the one is a factor above 1, the other takes any finite number
    "initial_const": (-1, NAN),
    "interpolation": ("bicubic", None),
    "lengths": ((INF, 0),),
    "momentum": (1, -0.1, NAN, None, "0.9"),
    "nb_samples": (0, 7, -2, 2.0, None),
    "nb_targets": (-1,),
    "norm": (1, 0, "two", None),
    "num_random_init": (-1,),
    "objective": ("margins", None, 3),
    "optimizer": ("sgd", None),
    "radii": (2.0, (), (0.5,), (1.5, INF)),
    "seed": (-1, 1.5, "0", True),
    "sharpness": (3.0, (1, -1)),
    "start_binary_search_steps": (-1, 1.5),
    "success_on": ("logit",),
    "weights": ((), (-1.0,)),
}
BY_QUERIES = [SPSA, GaussianNoise, RandomRotation]
STEPWISE = [AutoPGD, ScheduledPGD, FastAdaptiveBoundary]
BY_DETECTOR = [DensityAwareCarliniL2, DetectorAwarePGD]
WHITE_BOX = [*STEPWISE, AutoAttackStandard, CarliniL2]
each_attack = pytest.mark.parametrize("cls", QUICK)


def make(cls: type, classifier: Any = None, **settings: Any) -> Any:
    classifier = undefended() if classifier is None else classifier
    detectors = []
    if cls in BY_DETECTOR:
        detectors.append(ConfidenceDetector(classifier, false_positive_rate=0.5))
        logits = np.random.default_rng(0).standard_normal((20, classifier.nb_classes)).astype(np.float32)
        detectors[0].fit_outputs(NetworkOutputs(logits, None), None, NetworkOutputs(logits, None))
    seed = {"seed": 0} if "seed" in cls.attack_params else {}
    return cls(classifier, *detectors, **{**QUICK[cls], **seed, "verbose": False, **settings})


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's own steps and queries, which a user can't change, made few."""
    monkeypatch.setattr("art_mmc.attacks.auto_attack._STEPS", 8)
    monkeypatch.setattr("art_mmc.attacks.auto_attack._QUERIES", 20)


def some(n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Test images, read-only, and the classes that the network predicts for them."""
    x = digits()[2][:n]
    return x, undefended().predict(x).argmax(axis=1)


# --- what comes back, and what stays ----------------------------------------------------------------------------------


@each_attack
def test_the_world_stays_as_it_was(cls):
    """Of ART's own class too, with batch normalisation, dropout and a gradient that was there."""
    with seeded(0):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)
        )
    # of ART's own class the prediction itself leaves another mode
    classifier, (x, y) = plain(Around(net), LossDefendedClassifier if cls in BY_QUERIES else PyTorchClassifier), some()
    net.train()
    net[3].eval()
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[0].bias.requires_grad_(False)
    attack = make(cls, classifier)
    with left_alone(net):
        x_adv = attack.generate(x, y)
    assert (x_adv.dtype, x_adv.shape) == (np.float32, x.shape)
    assert np.isfinite(x_adv).all()
    assert not np.shares_memory(x_adv, x)
    assert "predict" not in vars(classifier)


@each_attack
def test_labels_in_any_form_and_none(cls):
    x, y = some()
    want = make(cls).generate(x, y)
    forms = [y[:, None], np.eye(10)[y], np.eye(10, dtype=int)[y], *([None] if cls is not DensityAwareCarliniL2 else [])]
    for labels in forms:
        np.testing.assert_array_equal(make(cls).generate(x, labels), want)
    if cls in WHITE_BOX:  # and on the same network in ART's own class
        np.testing.assert_array_equal(make(cls, plain(undefended().model)).generate(x, y), want)
    assert make(cls).generate(x.astype(np.float64), y).dtype == np.float32
    assert cls in BY_DETECTOR or not np.array_equal(want, x)
    if cls in WHITE_BOX:  # what is misclassified needs no attack
        np.testing.assert_allclose(make(cls).generate(x, (y + 1) % 10), x, atol=1e-6)


@pytest.mark.parametrize("cls", [*BY_QUERIES, AutoPGD])
def test_seeds(cls):
    """A seed fixes the result and leaves the global states alone; without one numpy's global state decides."""
    x, y = some()
    with left_alone():
        first, again, other = (make(cls, seed=seed).generate(x, y) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn = []
    for _ in range(2):
        np.random.seed(1)
        drawn += [make(cls, seed=None).generate(x, y) for _ in range(2)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.array_equal(*drawn[:2])


@pytest.mark.parametrize("cls", [*BY_QUERIES, *STEPWISE])
def test_the_result_for_an_image_does_not_depend_on_the_others(cls):
    """Neither on what stands beside it, nor on the batch that it is in; and one drawn twice is drawn in two ways."""
    x, y = some()
    settings = {"eps": 0.05, "nb_targets": 3, "nb_restarts": 3} if cls in STEPWISE else {}
    together = make(cls, **settings).generate(x, y)
    others, labels = (each[[5, 4, 2, 1, 0, 3]] for each in (x, y))
    among_others = make(cls, **settings).generate(others, labels)
    np.testing.assert_allclose(among_others[2], together[2], atol=1e-4)
    for batch_size in (1, 4):
        np.testing.assert_allclose(make(cls, batch_size=batch_size, **settings).generate(x, y), together, atol=1e-4)
    same = make(cls, **settings).generate(np.repeat(x[:1], 3, axis=0), np.repeat(y[:1], 3))
    assert len(np.unique(same.reshape(3, -1), axis=0)) == 3 or cls in STEPWISE


@pytest.mark.parametrize("cls", [SPSA, AutoPGD, ScheduledPGD])
def test_an_objective_of_the_user_s_gets_logits_and_class_indices(cls):
    x, y = some()
    seen = set()

    def objective(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.add((logits.is_floating_point(), logits.shape[1], labels.dtype, labels.shape == logits.shape[:1]))
        return margin(logits, labels)

    settings = {"sharpness": None} if cls is ScheduledPGD else {}
    by_name, by_function = (make(cls, objective=each, **settings).generate(x, y) for each in ("margin", objective))
    np.testing.assert_array_equal(by_function, by_name)
    assert seen == {(True, 10, torch.int64, True)}
    with pytest.raises(ValueError, match=r"objective.*expected one value a sample, shape \(.*got shape \(\d+, 10\)"):
        make(cls, objective=lambda logits, labels: logits, **settings).generate(x, y)


@pytest.mark.parametrize("cls", BY_QUERIES)
def test_success_rate_is_logged_and_bars_are_silent(cls, caplog, capfd):
    x, y = some()
    with caplog.at_level(logging.INFO, logger="art_mmc.attacks"):
        x_adv = make(cls).generate(x, y)
    rate = 100 * (undefended().predict(x_adv).argmax(axis=1) != y).mean()
    assert f"Success rate of {cls.__name__} attack: {rate:.2f}%" in caplog.text
    assert capfd.readouterr().err == ""
    make(cls, verbose=True).generate(x, y)
    assert cls.__name__ in capfd.readouterr().err


# --- inputs of other kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", WHITE_BOX)
def test_preprocessing_and_boxes_of_another_range(cls):
    """A defence in numpy before the network, a mean and a deviation, and inputs in 0 to 255."""
    x = 255 * some()[0]
    more = {"initial_const": 1e5, "max_iter": 100} if cls is CarliniL2 else {"eps": 40.0}
    for settings in (
        {"preprocessing_defences": SpatialSmoothing(window_size=2, channels_first=True, clip_values=(0, 255))},
        {"preprocessing": (100.0, 50.0)},
    ):
        classifier = plain(Around(undefended().model, before=lambda z: z / 255), clip_values=(0.0, 255.0), **settings)
        labels = classifier.predict(x).argmax(axis=1)
        x_adv = make(cls, classifier, **more).generate(x, labels)
        assert (classifier.predict(x_adv).argmax(axis=1) != labels).any()
        assert not beyond_box(x_adv, (0.0, 255.0)).any()
        assert cls is CarliniL2 or np.abs(x_adv - x).max() <= 40 * (1 + 1e-6)


@pytest.mark.parametrize("cls", WHITE_BOX)
@pytest.mark.parametrize("box", [(0.0, 1.0), None], ids=str)
def test_inputs_that_are_no_images(cls, box, caplog):
    rng = np.random.default_rng(0)
    network = Linear(rng.standard_normal((3, 12)), np.zeros(3))
    classifier = plain(network, input_shape=(12,), nb_classes=3, clip_values=box)
    x = rng.uniform(0.3, 0.7, (8, 12)).astype(np.float32)
    y = classifier.predict(x).argmax(axis=1)
    attack = make(cls, classifier, **({} if cls is CarliniL2 else {"eps": 0.3}))
    assert (classifier.predict(attack.generate(x, y)).argmax(axis=1) != y).any()
    if cls is AutoAttackStandard:
        assert "Square is for images, and the inputs have 2 dimensions: it is left out." in caplog.text
        assert list(attack.robust_accuracy) == ["clean", "APGD-CE", "APGD-T", "FAB-T"]


# --- parameters -------------------------------------------------------------------------------------------------------


@each_attack
def test_attack_params_are_the_arguments(cls):
    parameters = inspect.signature(cls.__init__).parameters
    arguments = list(parameters)[2:]
    assert sorted(cls.attack_params) == sorted(EvasionAttack.attack_params + arguments)
    attack = make(cls)
    for name in set(arguments) - {"verbose", "seed", *QUICK[cls]}:
        default = parameters[name].default
        assert default in (None, inspect.Parameter.empty) or getattr(attack, name) == default, name
        assert f"{name}=" in repr(attack)
    assert all(getattr(attack, name) == value for name, value in QUICK[cls].items())
    assert all(f":param {name}:" in cls.__init__.__doc__ for name in arguments)
    assert "| Paper link: https://arxiv.org/abs/" in cls.__doc__
    attack.set_params(batch_size=3)
    assert attack.batch_size == 3


@each_attack
def test_parameters_are_checked_at_once_and_when_they_are_set(cls):
    for name in set(cls.attack_params) - {*EvasionAttack.attack_params, "detector"}:
        for value in REFUSED[name]:
            if (cls, name, value) == (DensityAwareCarliniL2, "eta", 0.9):
                continue
            for set_it in (lambda given: make(cls, **given), lambda given: make(cls).set_params(**given)):
                with pytest.raises(ValueError, match=f"^({name}: expected|unknown {name}) "):
                    set_it({name: value})
    with pytest.raises(ValueError, match="cannot be set"):
        make(cls).set_params(epsilon=0.1)


@each_attack
def test_what_a_user_derives_keeps_what_is_its_own(cls):
    """The list of parameters, attributes, keywords of the class and `set_params`, which no constructor calls."""

    class Registered:
        def __init_subclass__(cls, tag: str) -> None:
            cls.tag = tag

    class Derived(cls, Registered, tag="mine"):
        attack_params = [*EvasionAttack.attack_params, "batch_size"]

        def __init__(self, *given: Any, unit: float = 3.0, **settings: Any) -> None:
            self.unit, self.clip_values = unit, "own"
            super().__init__(*given, **settings)
            self.calls = 0

        def set_params(self, **settings: Any) -> None:
            self.calls += 1
            super().set_params(**settings)

        def targets(self, x: np.ndarray) -> np.ndarray:
            self.calls += 10
            return super().targets(x)

    classifier, (x, y) = undefended(), some(2)
    detectors = [make(cls).detector] if cls in BY_DETECTOR else []
    attack = Derived(classifier, *detectors, **QUICK[cls], verbose=False)
    assert (attack.tag, attack.unit, attack.clip_values, attack.calls) == ("mine", 3.0, "own", 0)
    assert Derived.attack_params == [*EvasionAttack.attack_params, "batch_size"]
    attack.generate(x, None if cls is DensityAwareCarliniL2 else y)
    attack.set_params(batch_size=1)
    assert (attack.calls, attack.batch_size) == (11 if cls is DensityAwareCarliniL2 else 1, 1)


def test_of_several_mistakes_the_first_is_told():
    with pytest.raises(ValueError, match="batch_size"):
        GaussianNoise(undefended(), batch_size=0, verbose=1)


@pytest.mark.parametrize("cls", STEPWISE)
def test_targets_of_the_user_s(cls):
    x, y = some(12)
    targets = (y + 1) % 10
    attack = make(cls, targeted=True, eps=0.4, max_iter=40)
    assert (undefended().predict(attack.generate(x, targets)).argmax(axis=1) == targets).mean() > 0.9
    with pytest.raises(ValueError, match="nb_targets"):
        make(cls, targeted=True, nb_targets=2)


# --- what is refused --------------------------------------------------------------------------------------------------


@each_attack
def test_classifiers_that_do_not_fit(cls):
    """As ART's `backend_test_classifier_type_check_fail`: without any one of the required kinds, EstimatorError."""
    required = cls._estimator_requirements
    assert (required == (PyTorchClassifier,)) == (cls not in BY_QUERIES)
    for missing in required:
        bases = tuple(each for each in required if each is not missing)
        abstract = {name: None for base in bases for name in base.__abstractmethods__}
        estimator = object.__new__(type("Estimator", bases, abstract)) if bases else object()
        with pytest.raises(EstimatorError) as error:
            cls(estimator, *[None] * (cls in BY_DETECTOR))
        assert missing in error.value.class_expected_list


def after(good: int, bad: float) -> BlackBoxClassifierNeuralNetwork:
    """Two classes; after so many calls the last logit is bad."""
    calls = itertools.count()

    def predict(x: np.ndarray) -> np.ndarray:
        logits = np.tile([1.0, 0.0], (len(x), 1))
        logits[-1, 1] = bad if next(calls) >= good else 0.0
        return logits

    return BlackBoxClassifierNeuralNetwork(predict, (1, 8, 8), 2, clip_values=(0, 1))


def single_output() -> PyTorchClassifier:
    return plain(Linear(np.ones((1, 64)), np.zeros(1)), loss=nn.BCEWithLogitsLoss(), nb_classes=2)


def broken() -> PyTorchClassifier:
    return plain(Around(undefended().model, behind=lambda z: z / 0))


X = np.zeros((2, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:0], None, "empty"),
        (X + np.float32(NAN), None, "NaN"),
        (X + 255, None, "x ranges from 255 to 255, far outside"),
        (X.astype(str), None, "x: expected an array of numbers"),
        (X + 1j, None, "x: expected an array of numbers"),
        (X, np.array([0, 10]), "expected 0 to 9"),
        (X, np.array([-1, 0]), "expected 0 to 9"),
        (X, np.array([0, 1, 2]), "3 labels for 2 samples"),
        (X, np.eye(11)[:2], "expected"),
    ],
)
@each_attack
def test_inputs_and_labels_that_do_not_fit(cls, x, y, message):
    with pytest.raises(ValueError, match=message):
        make(cls).generate(x, y)
    with pytest.raises(ValueError, match=r"x has shape \(2, 8, 8\)"):
        make(cls).generate(X[:, 0])


@each_attack
def test_a_mask_is_heeded_or_refused(cls):
    masked = cls in (SPSA, GaussianNoise)
    with pytest.raises(ValueError, match="^mask: expected a shape" if masked else "^mask: expected None"):
        make(cls).generate(X, mask=np.ones((3, 3)))


@pytest.mark.parametrize("cls", [cls for cls in QUICK if "targeted" in cls.attack_params])
def test_a_targeted_attack_needs_its_targets(cls):
    more = {"nb_targets": 0} if cls in STEPWISE else {}
    with pytest.raises(ValueError, match="^y: expected target labels"):
        make(cls, targeted=True, **more).generate(X)


@pytest.mark.parametrize("cls", [*BY_QUERIES, *STEPWISE])
def test_a_single_output_is_refused(cls):
    with pytest.raises(ValueError, match="binary classification with a single output"):
        make(cls, single_output(), **({"nb_targets": 0} if cls in STEPWISE else {})).generate(X)


@pytest.mark.parametrize("cls", BY_QUERIES)
def test_a_network_of_another_number_of_classes_is_refused(cls):
    five = plain(Linear(np.ones((5, 64)), np.zeros(5)), nb_classes=10)
    with pytest.raises(ValueError, match=r"expected predictions \(N, 10\), its nb_classes, got \(2, 5\)"):
        make(cls, five).generate(X, np.array([0, 9]))


@pytest.mark.parametrize("cls", BY_QUERIES)
@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize("bad", [NAN, -INF])
def test_predictions_that_are_no_numbers_never_count_as_robustness(cls, good, bad):
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 2"):
        make(cls, after(good, bad)).generate(X, np.zeros(2, int))


@pytest.mark.parametrize("cls", WHITE_BOX)
def test_gradients_and_logits_that_are_no_numbers_are_refused(cls):
    x, _ = some(4)
    error = RuntimeError if cls is AutoAttackStandard else FloatingPointError
    hidden = plain(Around(undefended().model, before=lambda z: Hidden.apply(z, NAN)))
    with pytest.raises(error, match="a gradient is NaN or infinite"):
        make(cls, hidden).generate(x, hidden.predict(x).argmax(axis=1))
    with pytest.raises(FloatingPointError, match="gradient is NaN" if cls is CarliniL2 else "(logits|outputs) are NaN"):
        make(cls, broken()).generate(x, np.zeros(4))
    flat = plain(Around(undefended().model, before=lambda z: Hidden.apply(z, 0.0)))
    labels = flat.predict(x).argmax(axis=1)
    assert make(cls, flat).generate(x, labels).shape == x.shape  # no gradient is no crash
