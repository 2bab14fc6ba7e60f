"""
Detectors of several classifiers under the attacks of the RCE paper, on the same images: what `art-mmc detect` runs.

| Paper link: https://arxiv.org/abs/1706.00633 (Section 4)
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from art_mmc.attacks.detector_aware import DensityAwareCarliniL2, DetectorAwarePGD
from art_mmc.checks import ROUNDING, check_name, number
from art_mmc.data import Dataset
from art_mmc.detectors import DETECTORS, ScoreDetector, create_detector, network_outputs
from art_mmc.detectors.base import NetworkOutputs
from art_mmc.distributed import check_same, in_main_process, progress
from art_mmc.evaluation.codec import FLAGS, Record, array
from art_mmc.evaluation.detection import DetectionRecord
from art_mmc.evaluation.engine import Target, check_examples, run_plan
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import Share
from art_mmc.evaluation.robustness import StateFolder, identity, identity_of_data
from art_mmc.evaluation.suites import get_suite
from art_mmc.pretrained import find_network
from art_mmc.state import Stream, derived_seed, seeded
from art_mmc.studies import setup
from art_mmc.studies.settings import Detect

#: the three metrics of the RCE paper
PAPER_DETECTORS = ("confidence", "non-me", "kernel-density")

#: attacks, in the order of the tables -> titles; the last two know the detector: C&W-wb attacks the kernel density
#: alone, PGD-wb each detector in turn
ATTACKS = {
    "fgsm": "FGSM",
    "bim": "BIM",
    "ilcm": "ILCM",
    "jsma": "JSMA",
    "cw": "C&W",
    "cw-hc": "C&W-hc",
    "cw-wb": "C&W-wb",
    "pgd-wb": "PGD-wb",
}

#: what FGSM, BIM and ILCM climb, as in the paper
OBJECTIVE = "cross_entropy"

#: the detector that C&W-wb attacks
KERNEL = "kernel-density"

#: settings that decide the outcome for a network
_DECISIVE = (
    *("detector", "attack", "eps", "attack_share", "nb_test", "nb_white_box", "fpr", "bandwidth", "fit_per_class"),
    *("seed", "batch_size"),
)

#: more clean images than this do not make a threshold better
_MOST_CALIBRATION = 5000


@dataclass(frozen=True, eq=False)
class WhiteBoxRecord(Record):
    """What C&W-wb made of a classifier and its kernel density, input by input."""

    DERIVED = ("succeeded", "failed", "mean_distortion")

    classifier: str
    settings: dict[str, Any]  # the attack's; plain data
    seconds: float
    seed: int  # of the targets
    hit: np.ndarray = array(FLAGS)  # whether the target is predicted, (N,)
    passed: np.ndarray = array(FLAGS)  # whether the density is that of a typical clean input of it, f_2 = 0, (N,)
    distortion: np.ndarray = array()  # root mean squared change of a pixel, in units of 1 / 255, (N,)

    @property
    def succeeded(self) -> Share:
        """Inputs that the attack took to the target, past the density."""
        return Share(int((self.hit & self.passed).sum()), len(self.hit))

    @property
    def failed(self) -> Share:
        """Inputs whose result has f_2 > 0, the ratio of the paper's Table 3."""
        return Share(int((~self.passed).sum()), len(self.hit))

    @property
    def mean_distortion(self) -> float | None:
        """Mean distortion of the inputs that :attr:`succeeded` counts; None without any."""
        reached = self.hit & self.passed
        return float(self.distortion[reached].mean()) if reached.any() else None


@dataclass(frozen=True, eq=False)
class DetectionStudy(Record):
    """A record for each classifier, attack and detector, in this order, those of C&W-wb, and the conditions."""

    FORMAT = "art_mmc.detection"

    provenance: dict[str, Any]
    records: tuple[DetectionRecord, ...]
    white_box: tuple[WhiteBoxRecord, ...]

    @property
    def classifiers(self) -> list[str]:
        """Names of the classifiers, in order."""
        return list(dict.fromkeys(record.classifier for record in self.records))

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors, in order."""
        return list(dict.fromkeys(record.detector for record in self.records))

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks, in order."""
        return list(dict.fromkeys(record.attack for record in self.records))

    def get(self, classifier: str, detector: str, attack: str) -> DetectionRecord | None:
        """The record; None where there is none, as of C&W-wb against another detector than the density."""
        wanted = (classifier, detector, attack)
        return next((r for r in self.records if (r.classifier, r.detector, r.attack) == wanted), None)


def detection_eps(dataset: Dataset) -> float:
    """The radius: 0.16, the default of the RCE paper's code, for grey images; 8 / 255, as usual, for colour."""
    return 8 / 255 if dataset.input_shape[0] == 3 else 0.16


def settled(settings: Detect, dataset: Dataset) -> Detect:
    """The settings with all that they leave open decided; ValueError for what is unknown or does not fit."""
    detectors, attacks = settings.detector or list(PAPER_DETECTORS), settings.attack
    if attacks is None:
        attacks = [name for name in ATTACKS if name != "cw-wb" or KERNEL in detectors]
    for kind, given, known in (("detector", detectors, DETECTORS), ("attack", attacks, ATTACKS)):
        for name in given:
            check_name(kind, name, known)
    if "cw-wb" in attacks and KERNEL not in detectors:
        raise ValueError("--attack cw-wb attacks the kernel density: add kernel-density to --detector")
    number("attack_share", settings.attack_share, 0, 1, "(]")
    return replace(
        settings,
        detector=detectors,
        attack=attacks,
        eps=settings.eps or detection_eps(dataset),
        nb_test=settings.nb_test or min(500, max(1, len(dataset.y_test) // 2)),
    )


def _create(settings: Detect, classifier: PyTorchClassifier) -> dict[str, ScoreDetector]:
    more = {KERNEL: {"bandwidth": settings.bandwidth}}
    common: dict[str, Any] = {"false_positive_rate": settings.fpr, "seed": settings.seed}
    return {name: create_detector(name, classifier, **common, **more.get(name, {})) for name in settings.detector or ()}


def prepare(settings: Detect, device_type: str = "cpu") -> setup.Job:
    """Train or load, fit, attack. It gives a :class:`DetectionStudy`, and classifier, attack, records as they come."""
    given = settings.checkpoint or []
    dataset, recipe, backbone = setup.load_run(settings, [find_network(path) for path in given])
    wanted = settled(settings, dataset)
    classifiers: dict[str, PyTorchClassifier] = dict(
        setup.load_trained(given, dataset, device_type, settings.factory if given else None)
    )
    sources: dict[str, Any] = {name: {"checkpoint": path} for name, path in zip(classifiers, given, strict=True)}
    defences = [] if given else settings.defence or ["sce", "rce"]
    for classifier in (*classifiers.values(), *(setup.build_classifier(name, dataset, backbone) for name in defences)):
        _create(wanted, classifier)

    def run(on_attack: Callable[[str, str, list[DetectionRecord]], None] | None = None) -> DetectionStudy:
        for name in defences:
            kept = state / f"{name}.run"
            trained = setup.train_defence(
                name, dataset, recipe, backbone=backbone, folder=kept, **setup.told(settings, device_type)
            )
            classifiers[name], sources[name] = trained.classifier, trained.source
        return run_detection_study(classifiers, dataset, wanted, sources, on_attack, state)

    folder = Path(settings.output).expanduser()
    state = folder / "state"
    places = [state / place for name in (*classifiers, *defences) for place in (name, f"{name}.run")]
    return setup.Job(dataset, folder, run, goes_on=setup.SAME_COMMAND, states=(*places, state))


@dataclass(frozen=True, repr=False)
class _AwarePlan(AttackPlan):
    """An attack that knows a fitted detector, one of its `options`: in a ball PGD-wb, else C&W-wb."""

    def build(self, view: Any, restart: int, batch: int, seed: int) -> EvasionAttack:
        settings = {"max_iter": self.steps, "batch_size": batch, "seed": seed, "verbose": False, **self.options}
        classifier = self.options["detector"].classifier
        if self.bounded:
            return DetectorAwarePGD(classifier, eps=self.eps, **settings)
        return DensityAwareCarliniL2(classifier, learning_rate=self.step_sizes[0], **settings)


def attack_plan(name: str, wanted: Detect, **aware: Any) -> AttackPlan:
    """As in "pang2018-rce", by predicted labels; C&W by a share of its iterations, `aware` of a fitted `detector`."""

    def iterations(paper: int) -> int:
        return max(10, round(paper * wanted.attack_share))

    eps, suite = float(wanted.eps or 0), get_suite("pang2018-rce")
    for plan in (*suite.plans(eps, math.inf), *suite.once):
        if plan.name == ATTACKS[name] and not name.startswith("cw"):
            return replace(plan, labels="predicted", samples=None, every_point=False)
    search: dict[str, Any] = {"targets": "random", "steps": iterations(10000), "step_size": 0.01}
    # by FISTA: in as few steps the paper's Adam leaves a third of the images of a network trained by RCE, and more than
    # half where the density is in its way
    fista: dict[str, Any] = {"binary_search_steps": 9, "initial_const": 1.0, "optimizer": "fista"}
    # without the paper's confidence of 5, beyond the logits of some networks, and from a smaller c
    density = {**fista, "confidence": 0.0, "initial_const": 0.01, "start_max_iter": iterations(5000), **aware}
    density["start_initial_const"] = 1.0
    rows: dict[str, dict[str, Any]] = {
        "cw": {"method": "cw-adam", **search, "options": {**fista, "confidence": 0.0}},
        "cw-hc": {"method": "cw-adam", **search, "options": {**fista, "confidence": 10.0}},
        "cw-wb": {"method": "cw-adam", **search, "samples": wanted.nb_white_box, "options": density},
        "pgd-wb": {"method": "pgd", "eps": eps, "steps": 40, "labels": "true", "options": aware},
    }
    kind = _AwarePlan if aware else AttackPlan
    return kind(ATTACKS[name], every_point=False, **{"labels": "predicted", **rows[name]})


def _plans(wanted: Detect, fitted: Mapping[str, ScoreDetector]) -> list[tuple[AttackPlan, list[str]]]:
    """Attacks, and the detectors that score what each makes; PGD-wb is another one for each detector."""
    made: list[tuple[AttackPlan, list[str]]] = []
    for name in wanted.attack or ():
        aware = {"cw-wb": [KERNEL], "pgd-wb": list(fitted)}.get(name, [])
        made += [(attack_plan(name, wanted, detector=fitted[each]), [each]) for each in aware]
        made += [] if aware else [(attack_plan(name, wanted), list(fitted))]
    return made


def run_detection_study(
    classifiers: Mapping[str, PyTorchClassifier],
    dataset: Dataset,
    wanted: Detect,
    sources: Mapping[str, Any] | None = None,
    on_attack: Callable[[str, str, list[DetectionRecord]], None] | None = None,
    folder: Path | None = None,
) -> DetectionStudy:
    """
    Fit detectors on training images, attack the same test images of each classifier, and score them, by settings that
    are :func:`settled`; thresholds are set on clean test images that are not attacked, or, where those are too few, on
    a held-out share of the fitting data. Several processes share the batches of each attack, which are kept in
    `folder`, from where a killed study goes on. AttackError when an attack leaves its ball or the box.
    """
    seed, batch_size, attacks = wanted.seed, wanted.batch_size, wanted.attack or []
    attacked, calibration = _split_test(dataset, wanted.nb_test, wanted.fpr, seed)
    fit_on = _draw_per_class(dataset.y_train, wanted.fit_per_class, seed)
    x, y = dataset.x_test[attacked].astype(np.float32, copy=False), dataset.y_test[attacked]
    with_features = any(DETECTORS[name].needs_features for name in wanted.detector or ())
    decisive = {
        "data": identity_of_data(dataset.x_test, dataset.y_test),
        "fitting": identity_of_data(dataset.x_train[fit_on], dataset.y_train[fit_on]),
        "settings": {name: getattr(wanted, name) for name in _DECISIVE},
        "versions": setup.versions(),
    }
    records: list[DetectionRecord] = []
    white_box: list[WhiteBoxRecord] = []
    facts: dict[str, Any] = {}
    with progress(not wanted.quiet, total=len(attacks) * len(classifiers), desc="attacks") as bar:
        for name, classifier in classifiers.items():
            same = {"classifier": identity(classifier), **decisive}
            check_same(same, "attack")
            state = None if folder is None else in_main_process(partial(StateFolder, folder / name, same))

            def outputs(images: np.ndarray, classifier: PyTorchClassifier = classifier) -> NetworkOutputs:
                with seeded(derived_seed(seed, Stream.NETWORK_OUTPUTS)):
                    run = partial(network_outputs, classifier, images, None, batch_size, with_features)
                    return in_main_process(run)

            start = time.perf_counter()
            fitted, fit_outputs = _create(wanted, classifier), outputs(dataset.x_train[fit_on])
            calibration_outputs = outputs(dataset.x_test[calibration]) if len(calibration) else None
            for detector in fitted.values():
                detector.fit_outputs(fit_outputs, dataset.y_train[fit_on], calibration_outputs)
            fit_seconds = time.perf_counter() - start
            clean = outputs(x)
            facts[name] = {
                "defence": getattr(classifier, "defence", None),
                "clean_accuracy": Share(int((clean.predictions == y).sum()), len(y)).to_dict(),
                "detectors": {each: _detector_facts(detector) for each, detector in fitted.items()},
                "fit_seconds": fit_seconds,
                **({"source": sources[name]} if sources and name in sources else {}),
            }
            with seeded(seed):
                target = Target(classifier, x)
            for title, group in groupby(enumerate(_plans(wanted, fitted)), lambda each: each[1][0].name):
                bar.set_postfix_str(f"{name}, {title}")
                some: list[DetectionRecord] = []
                for number, (plan, against) in group:
                    kept = None if state is None else partial(state.batch, number, x, whole=True)
                    own, every = derived_seed(seed, Stream.ATTACK, number), np.ones(len(x), bool)
                    record, x_adv, _ = run_plan(target, x, y, plan, every, own, batch_size, on_batch=kept)
                    check_examples(x_adv, x, f"attack '{plan.name}'", math.inf, plan.norm, classifier.clip_values)
                    first = np.arange(len(x))[: plan.samples]
                    before, after = clean.take(first), outputs(x_adv[first])
                    settings = {**vars(plan), **plan.options}
                    about: dict[str, Any] = {
                        "classifier": name,
                        "settings": {k: v for k, v in settings.items() if isinstance(v, (bool, int, float, str))},
                        "seconds": record.seconds,
                        "seed": seed,
                    }
                    some += _scored(about, plan, {each: fitted[each] for each in against}, before, after, y[first])
                    if plan.name == ATTACKS["cw-wb"]:
                        # at its target, as no other class comes, and past the density of a typical image of that
                        hit = after.predictions != before.predictions
                        typical = fitted[KERNEL].typical_scores(after.predictions)
                        passed = hit & (some[-1].adversarial_scores <= typical + ROUNDING * np.abs(typical))
                        change = np.square(x_adv[first].astype(float) - x[first]).reshape(len(first), -1)
                        distortion = 255 * np.sqrt(change.mean(axis=1))
                        white_box.append(WhiteBoxRecord(**about, hit=hit, passed=passed, distortion=distortion))
                bar.update()
                records += some
                if on_attack is not None:
                    on_attack(name, title, some)
    provenance = {
        "dataset": dataset.name,
        "n_train": len(dataset.y_train),
        "n_fit": len(fit_on),
        "n": len(attacked),
        "n_calibration": len(calibration),
        "eps": wanted.eps,
        "budget": wanted.attack_share,
        "false_positive_rate": wanted.fpr,
        "objective": OBJECTIVE,
        "seed": seed,
        "classifiers": facts,
        **setup.machine(next(iter(classifiers.values())).device),
    }
    return DetectionStudy(provenance, tuple(records), tuple(white_box))


def _scored(
    about: Mapping[str, Any],
    plan: AttackPlan,
    detectors: Mapping[str, ScoreDetector],
    before: NetworkOutputs,
    after: NetworkOutputs,
    y: np.ndarray,
) -> list[DetectionRecord]:
    """What detectors make of images with true labels (N,) before an attack and after it."""
    return [
        DetectionRecord(
            **about,
            detector=name,
            attack=plan.name,
            eps=plan.eps if plan.bounded else None,
            threshold=detector.threshold,
            false_positive_rate=detector.false_positive_rate,
            calibrated_on=detector.calibrated_on,
            clean_scores=detector.score_outputs(before),
            adversarial_scores=detector.score_outputs(after),
            clean_correct=before.predictions == y,
            adversarial_correct=after.predictions == y,
        )
        for name, detector in detectors.items()
    ]


def _split_test(
    dataset: Dataset, nb_test: int | None, false_positive_rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which test images are attacked, and which set the threshold: none of the rest if they are too few for it."""
    n = len(dataset.y_test)
    attacked = setup.choose_test_images(dataset, nb_test, seed)
    rest = np.setdiff1d(np.arange(n), attacked)
    rest = np.sort(np.random.default_rng(seed).permutation(rest)[:_MOST_CALIBRATION])
    enough = len(rest) >= 5 / false_positive_rate
    return attacked, rest if enough else rest[:0]


def _draw_per_class(y: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Indices of up to so many samples of each class, ascending."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(y == k))[:number] for k in np.unique(y)]
    return np.sort(np.concatenate(drawn))


def _detector_facts(detector: ScoreDetector) -> dict[str, Any]:
    params = {name: value for name, value in detector.get_params().items() if name != "classifier"}
    bandwidth = getattr(detector, "fitted_bandwidth", None)
    return {
        **params,
        "threshold": detector.threshold,
        "calibrated_on": detector.calibrated_on,
        **({} if bandwidth is None else {"fitted_bandwidth": bandwidth}),
    }
