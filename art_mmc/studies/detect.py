"""
Detectors of several classifiers under the attacks of the RCE paper, on the same images: what `art-mmc detect` runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier
from tqdm.auto import tqdm

from art_mmc.attacks.detector_aware import (
    PAPER_ATTACKS,
    DensityAwareCarliniL2,
    DetectorAwarePGD,
    batch_seed,
    check_budget,
    choose_targets,
    craft_batch,
    plain_settings,
    scaled,
)
from art_mmc.checks import check_eps, unknown_name
from art_mmc.data import Dataset
from art_mmc.detectors import DETECTORS, ScoreDetector, create_detector, network_outputs
from art_mmc.detectors.base import NetworkOutputs, check_count
from art_mmc.distributed import check_same, in_main_process, share_out, world
from art_mmc.evaluation.detection import DetectionRecord
from art_mmc.evaluation.records import Share
from art_mmc.evaluation.robustness import identity, identity_of_data
from art_mmc.state import derived_seed, seeded
from art_mmc.studies.setup import choose_test_images, machine

FORMAT, VERSION = "art_mmc.detection", 1

#: the three metrics of the RCE paper
PAPER_DETECTORS = ("confidence", "non-me", "kernel-density")

#: attacks that know the detector: name -> title. C&W-wb attacks the kernel density alone, PGD-wb each detector in turn
WHITE_BOX_ATTACKS = {"cw-wb": "C&W-wb", "pgd-wb": "PGD-wb"}

#: share of the iterations of the paper's C&W attacks: 200 of 10,000 for each constant, by FISTA enough to fool all but
#: a few images of LeNet-5 trained by CE or RCE
ATTACK_SHARE = 0.02

#: more clean images than this do not make a threshold better
_MOST_CALIBRATION = 5000

#: rounding may take an example this far out of the ball or the box
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class WhiteBoxRecord:
    """
    What C&W-wb made of a classifier and its kernel density, input by input.

    :param classifier: Name of the classifier.
    :param settings: The attack's settings; plain data.
    :param seconds: Time that it took.
    :param seed: Seed of the targets.
    :param hit: Whether the target is predicted, bool (N,).
    :param passed: Whether the density is that of a typical clean input, f_2 = 0, bool (N,).
    :param distortion: Root mean squared change of a pixel, in units of 1 / 255, (N,).
    """

    classifier: str
    settings: dict[str, Any]
    seconds: float
    seed: int
    hit: np.ndarray = field(repr=False)
    passed: np.ndarray = field(repr=False)
    distortion: np.ndarray = field(repr=False)

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

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return {
            "classifier": self.classifier,
            "settings": self.settings,
            "seconds": self.seconds,
            "seed": self.seed,
            "succeeded": self.succeeded.to_dict(),
            "failed": self.failed.to_dict(),
            "mean_distortion": self.mean_distortion,
            "hit": "".join("1" if each else "0" for each in self.hit),
            "passed": "".join("1" if each else "0" for each in self.passed),
            "distortion": self.distortion.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WhiteBoxRecord:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The record.
        """
        flags = {name: np.array([each == "1" for each in data[name]]) for name in ("hit", "passed")}
        return cls(
            data["classifier"], data["settings"], data["seconds"], data["seed"], **flags,
            distortion=np.array(data["distortion"]),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class DetectionStudy:
    """
    Detectors of classifiers under attacks, and under which conditions.

    :param records: One for each classifier, attack and detector, in this order.
    :param white_box: One for each classifier that C&W-wb attacked.
    :param provenance: The conditions: data, classifiers, settings, seed, versions, device, date; plain data.
    """

    records: tuple[DetectionRecord, ...]
    white_box: tuple[WhiteBoxRecord, ...]
    provenance: dict[str, Any]

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
        """
        :param classifier: Name of a classifier.
        :param detector: Name of a detector.
        :param attack: Name of an attack.
        :return: The record; None where there is none, as of C&W-wb against another detector than the density.
        """
        wanted = (classifier, detector, attack)
        return next((r for r in self.records if (r.classifier, r.detector, r.attack) == wanted), None)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return {
            "format": FORMAT,
            "version": VERSION,
            "provenance": self.provenance,
            "records": [record.to_dict() for record in self.records],
            "white_box": [record.to_dict() for record in self.white_box],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DetectionStudy:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The study.
        :raises ValueError: For anything else.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"expected a document of format '{FORMAT}', got '{data.get('format')}'.")
        return cls(
            tuple(DetectionRecord.from_dict(each) for each in data["records"]),
            tuple(WhiteBoxRecord.from_dict(each) for each in data["white_box"]),
            data["provenance"],
        )


def detection_eps(dataset: Dataset) -> float:
    """
    :param dataset: The data set.
    :return: The radius of FGSM, BIM and ILCM: 0.16, the default of the RCE paper's released code, for grey images;
             8 / 255, where attacks on colour images are usually compared.
    """
    return 8 / 255 if dataset.input_shape[0] == 3 else 0.16


def run_detection_study(
    classifiers: Mapping[str, PyTorchClassifier],
    dataset: Dataset,
    *,
    detectors: Sequence[str] = PAPER_DETECTORS,
    attacks: Sequence[str] = tuple(PAPER_ATTACKS),
    white_box: Sequence[str] = tuple(WHITE_BOX_ATTACKS),
    eps: float | None = None,
    budget: float = ATTACK_SHARE,
    nb_test: int | None = 500,
    nb_white_box: int = 100,
    fit_per_class: int = 1000,
    false_positive_rate: float = 0.05,
    detector_params: Mapping[str, Mapping[str, Any]] | None = None,
    carlini_params: Mapping[str, Any] | None = None,
    pgd_params: Mapping[str, Any] | None = None,
    objective: str = "cross_entropy",
    layer: int | str | None = None,
    seed: int = 0,
    batch_size: int = 256,
    sources: Mapping[str, Any] | None = None,
    verbose: bool = True,
    on_attack: Callable[[str, str, list[DetectionRecord]], None] | None = None,
) -> DetectionStudy:
    """
    Fit detectors on training images, attack the same test images of each classifier, and score them.

    The thresholds are set on clean test images that are not attacked, or, where there are too few of them, on a
    held-out share of the fitting data; each record says which.

    In a program that torchrun has started in several processes, once they have met, all must call this with the same:
    they share the batches of all attacks on a classifier among them, and each gets the study that one process would
    have got. The seconds of an attack are added up over the processes.

    :param classifiers: Name -> trained classifier of the data set's classes.
    :param dataset: The data set.
    :param detectors: Names of detectors.
    :param attacks: Names of attacks of :data:`.PAPER_ATTACKS`.
    :param white_box: Names of attacks that know the detector: "cw-wb", which needs "kernel-density" among the
           detectors, and "pgd-wb".
    :param eps: Radius of the L-inf attacks, in (0, 1]; None for :func:`detection_eps`.
    :param budget: Share, in (0, 1], of the iterations of the paper's C&W attacks.
    :param nb_test: Number of test images to attack; None for all but those that set the threshold (a tenth).
    :param nb_white_box: Number of them that C&W-wb attacks.
    :param fit_per_class: Training images of a class that the detectors are fitted on, drawn at random.
    :param false_positive_rate: Rate for which the thresholds are set, in (0, 1).
    :param detector_params: Name of a detector -> more of its parameters.
    :param carlini_params: Settings of C&W-wb in the place of the default ones. These are the paper's but for the
           confidence, 0 and not 5, since a lead of 5 is beyond the logits of some networks; and the learning rate, 0.01
           over the root of the budget, since few steps must be long to leave the border of the box.
    :param pgd_params: Settings of PGD-wb in the place of the default ones.
    :param objective: What FGSM, BIM and ILCM climb; the paper's is the cross-entropy.
    :param layer: Where the features are; None for the embedding of this package's networks.
    :param seed: Seed of all draws.
    :param batch_size: Samples that are attacked at once.
    :param sources: Name of a classifier -> where it comes from, plain data for the record.
    :param verbose: Whether to show a progress bar.
    :param on_attack: Called with classifier, attack and records as they come; in several processes they come together
           for each classifier.
    :return: The study.
    :raises ValueError: For unknown names or values out of range, before the first attack.
    :raises RuntimeError: When an attack leaves its ball or the box.
    """
    eps = check_eps(detection_eps(dataset) if eps is None else eps)
    check_budget(budget)
    for name, value in (("nb_white_box", nb_white_box), ("fit_per_class", fit_per_class), ("batch_size", batch_size)):
        check_count(name, value)
    for kind, given, known in (
        ("detector", detectors, DETECTORS),
        ("attack", attacks, PAPER_ATTACKS),
        ("white-box attack", white_box, WHITE_BOX_ATTACKS),
    ):
        for name in given:
            if name not in known:
                raise unknown_name(kind, name, known)
    if not classifiers or not detectors or not (attacks or white_box):
        raise ValueError("expected at least one classifier, one detector and one attack.")
    if "cw-wb" in white_box and "kernel-density" not in detectors:
        raise ValueError("white-box attack 'cw-wb' attacks the kernel density: add 'kernel-density' to the detectors.")
    fitted: dict[str, dict[str, ScoreDetector]] = {
        name: {
            each: create_detector(
                each,
                classifier,
                layer=layer if DETECTORS[each].needs_features else None,
                false_positive_rate=false_positive_rate,
                seed=seed,
                **(detector_params or {}).get(each, {}),
            )
            for each in detectors
        }
        for name, classifier in classifiers.items()
    }
    attacked, calibration = _split_test(dataset, nb_test, false_positive_rate, seed)
    fit_on = _draw_per_class(dataset.y_train, fit_per_class, seed)
    x, y = dataset.x_test[attacked].astype(np.float32, copy=False), dataset.y_test[attacked]
    with_features = any(DETECTORS[name].needs_features for name in detectors)

    records: list[DetectionRecord] = []
    white_box_records: list[WhiteBoxRecord] = []
    facts: dict[str, Any] = {}
    jobs = len(attacks) + sum(len(detectors) if each == "pgd-wb" else 1 for each in white_box)
    if world().size > 1:
        asked = [list(detectors), list(attacks), list(white_box), eps, budget, seed, batch_size]
        same = {"images": identity_of_data(x, y), "settings": asked}
        check_same({**same, **{name: identity(each) for name, each in classifiers.items()}}, "attack")
    shown = verbose and world().is_main
    with tqdm(total=jobs * len(classifiers), disable=not shown, desc="attacks", leave=False) as bar:
        for name, classifier in classifiers.items():

            def outputs(images: np.ndarray, classifier: PyTorchClassifier = classifier) -> NetworkOutputs:
                def batch(first: int) -> NetworkOutputs:
                    part = images[first : first + batch_size]
                    with seeded(derived_seed(seed, 41, first)):
                        return network_outputs(classifier, part, layer, batch_size, with_features)

                return _joined(list(share_out([partial(batch, first) for first in range(0, len(images), batch_size)])))

            start = time.perf_counter()
            fit_outputs = outputs(dataset.x_train[fit_on])
            calibration_outputs = outputs(dataset.x_test[calibration]) if len(calibration) else None
            for detector in fitted[name].values():
                detector.fit_outputs(fit_outputs, dataset.y_train[fit_on], calibration_outputs)
            fit_seconds = time.perf_counter() - start
            clean = outputs(x)
            facts[name] = {
                "defence": getattr(classifier, "defence", None),
                "clean_accuracy": Share(int((clean.predictions == y).sum()), len(y)).to_dict(),
                "detectors": {each: _detector_facts(detector) for each, detector in fitted[name].items()},
                "fit_seconds": fit_seconds,
                **({"source": sources[name]} if sources and name in sources else {}),
            }
            run = _Run(name, classifier, fitted[name], clean, x, y, outputs, seed, batch_size)
            groups = [[attempt] for attempt in _plain_attempts(run, attacks, detectors, eps, budget, objective)]
            if "cw-wb" in white_box:
                settings = {
                    "confidence": 0.0,
                    "learning_rate": 0.01 / math.sqrt(budget),
                    "max_iter": scaled(10000, budget),
                    "start_max_iter": scaled(5000, budget),
                    **(carlini_params or {}),
                }
                groups.append([_carlini(run, nb_white_box, settings)])
            if "pgd-wb" in white_box:
                settings = {"eps": eps, "max_iter": 40, **(pgd_params or {})}
                groups.append([_pgd(run, each, settings) for each in detectors])
            groups.sort(key=lambda group: [*attacks, *white_box].index(group[0].attack))
            # no attack waits for another: the batches of all of them are shared out at once
            every = [attempt for group in groups for attempt in group]
            parts = share_out([partial(attempt.run, first) for attempt in every for first in attempt.starts])
            for group in groups:
                some: list[DetectionRecord] = []
                for attempt in group:
                    against = f" on {attempt.detectors[0]}" if attempt.attack in WHITE_BOX_ATTACKS else ""
                    bar.set_postfix_str(f"{name}, {attempt.title}{against}")
                    made = [next(parts) for _ in attempt.starts]
                    some += run.score(attempt, made)
                    if attempt.attack == "cw-wb":
                        white_box_records.append(run.white_box(made))
                    bar.update()
                records += _report(some, on_attack)
    provenance = {
        "dataset": dataset.name,
        "n_train": len(dataset.y_train),
        "n_fit": len(fit_on),
        "n": len(attacked),
        "n_calibration": len(calibration),
        "eps": eps,
        "budget": budget,
        "false_positive_rate": false_positive_rate,
        "objective": objective,
        "seed": seed,
        "classifiers": facts,
        **machine(next(iter(classifiers.values())).device),
    }
    return DetectionStudy(tuple(records), tuple(white_box_records), provenance)


@dataclass(frozen=True, eq=False)
class _Part:
    """What an attack made of a batch: all that is kept of it."""

    outputs: NetworkOutputs
    settings: dict[str, Any]
    seconds: float
    #: of C&W-wb alone: its goals reached, bool (B,), and its distortion (B,)
    hit: np.ndarray | None = None
    passed: np.ndarray | None = None
    distortion: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Attempt:
    """An attack, to be scored by some of the detectors; its batches, by their first sample, do not depend on others."""

    attack: str
    title: str
    eps: float | None
    detectors: Sequence[str]
    starts: range
    run: Callable[[int], _Part]


@dataclass(frozen=True, eq=False)
class _Run:
    """One classifier with its fitted detectors and the clean images."""

    name: str
    classifier: PyTorchClassifier
    detectors: dict[str, ScoreDetector]
    clean: NetworkOutputs
    x: np.ndarray
    y: np.ndarray
    outputs: Callable[[np.ndarray], NetworkOutputs]
    seed: int
    batch_size: int

    def looked_at(self, title: str, x_adv: np.ndarray, x: np.ndarray, eps: float | None) -> NetworkOutputs:
        """What the network says to attacked images, once they have been seen to keep the rules."""
        _check_examples(title, x_adv, x, eps, self.classifier.clip_values)
        return self.outputs(x_adv)

    def score(self, attempt: _Attempt, parts: Sequence[_Part]) -> list[DetectionRecord]:
        """The records of an attack on the first ones of the clean images."""
        adversarial = _joined([part.outputs for part in parts])
        n = len(adversarial.logits)
        clean, y = self.clean.take(np.arange(n)), self.y[:n]

        def record(name: str) -> DetectionRecord:
            return DetectionRecord(
                classifier=self.name,
                detector=name,
                attack=attempt.title,
                eps=attempt.eps,
                settings=parts[0].settings,
                seconds=sum(part.seconds for part in parts),
                seed=self.seed,
                threshold=self.detectors[name].threshold,
                false_positive_rate=self.detectors[name].false_positive_rate,
                calibrated_on=self.detectors[name].calibrated_on,
                clean_scores=self.detectors[name].score_outputs(clean),
                adversarial_scores=self.detectors[name].score_outputs(adversarial),
                clean_correct=clean.predictions == y,
                adversarial_correct=adversarial.predictions == y,
            )

        return [record(name) for name in attempt.detectors]

    def white_box(self, parts: Sequence[_Part]) -> WhiteBoxRecord:
        """The record of C&W-wb."""
        hit, passed, distortion = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("hit", "passed", "distortion")
        )
        seconds = sum(part.seconds for part in parts)
        return WhiteBoxRecord(self.name, parts[0].settings, seconds, self.seed, hit, passed, distortion)


def _joined(parts: Sequence[NetworkOutputs]) -> NetworkOutputs:
    features = [part.features for part in parts if part.features is not None]
    return NetworkOutputs(
        np.concatenate([part.logits for part in parts]), np.concatenate(features) if features else None
    )


def _plain_attempts(
    run: _Run, attacks: Sequence[str], detectors: Sequence[str], eps: float, budget: float, objective: str
) -> list[_Attempt]:
    """The attacks that do not know the detectors."""

    def predict() -> np.ndarray:
        with seeded(derived_seed(run.seed, 40)):
            return run.classifier.predict(run.x, batch_size=run.batch_size)

    logits = in_main_process(predict) if attacks else np.empty((0, 1))

    def attempt(name: str) -> _Attempt:
        row = PAPER_ATTACKS[name]
        radius = eps if row.has_eps else None
        targets = choose_targets(logits, row.targets, run.seed)
        labels = logits.argmax(axis=1) if targets is None else targets

        def part(first: int) -> _Part:
            index = slice(first, first + run.batch_size)
            x, seed = run.x[index], batch_seed(run.seed, first)
            start = time.perf_counter()
            x_adv, settings = craft_batch(
                name, run.classifier, x, labels[index], eps, budget, objective, run.batch_size, seed
            )
            seconds = time.perf_counter() - start
            return _Part(run.looked_at(row.title, x_adv, x, radius), settings, seconds)

        return _Attempt(name, row.title, radius, detectors, range(0, len(run.x), run.batch_size), part)

    return [attempt(name) for name in attacks]


def _carlini(run: _Run, n: int, settings: dict[str, Any]) -> _Attempt:
    title = WHITE_BOX_ATTACKS["cw-wb"]
    attack = DensityAwareCarliniL2(
        run.classifier,
        run.detectors["kernel-density"],
        **{"batch_size": run.batch_size, "seed": run.seed, "verbose": False, **settings},
    )
    images = run.x[:n]
    targets = in_main_process(lambda: attack.targets(images))

    def part(first: int) -> _Part:
        index = slice(first, first + attack.batch_size)
        x, aims = images[index], targets[index]
        start = time.perf_counter()
        x_adv = attack.generate(x, aims)
        seconds = time.perf_counter() - start
        outputs = run.looked_at(title, x_adv, x, None)
        hit, excess = attack.outcome(x_adv, aims)
        distortion = 255 * np.sqrt(np.square(x_adv.astype(float) - x).reshape(len(x), -1).mean(axis=1))
        return _Part(outputs, plain_settings(attack), seconds, hit, excess == 0, distortion)

    return _Attempt("cw-wb", title, None, ("kernel-density",), range(0, len(images), attack.batch_size), part)


def _pgd(run: _Run, detector: str, settings: dict[str, Any]) -> _Attempt:
    title = WHITE_BOX_ATTACKS["pgd-wb"]
    given = {"batch_size": run.batch_size, "seed": run.seed, "verbose": False, **settings}
    whole = DetectorAwarePGD(run.classifier, run.detectors[detector], **given)

    def part(first: int) -> _Part:
        index = slice(first, first + whole.batch_size)
        own = {**given, "seed": batch_seed(whole.seed, first)}
        start = time.perf_counter()
        x_adv = DetectorAwarePGD(run.classifier, run.detectors[detector], **own).generate(run.x[index], run.y[index])
        seconds = time.perf_counter() - start
        return _Part(run.looked_at(title, x_adv, run.x[index], settings["eps"]), plain_settings(whole), seconds)

    return _Attempt("pgd-wb", title, settings["eps"], (detector,), range(0, len(run.x), whole.batch_size), part)


def _report(
    records: list[DetectionRecord], on_attack: Callable[[str, str, list[DetectionRecord]], None] | None
) -> list[DetectionRecord]:
    if on_attack is not None:
        on_attack(records[0].classifier, records[0].attack, records)
    return records


def _split_test(
    dataset: Dataset, nb_test: int | None, false_positive_rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which test images are attacked, and which set the threshold: none of the rest if they are too few for it."""
    n = len(dataset.y_test)
    attacked = choose_test_images(dataset, n - n // 10 if nb_test is None else nb_test, seed)
    rest = np.setdiff1d(np.arange(n), attacked)
    rest = np.sort(np.random.default_rng(seed).permutation(rest)[:_MOST_CALIBRATION])
    enough = 0 < false_positive_rate < 1 and len(rest) >= 5 / false_positive_rate
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


def _check_examples(attack: str, x_adv: np.ndarray, x: np.ndarray, eps: float | None, clip_values: Any) -> None:
    """An attack that breaks its own rules says nothing about a detector."""
    if not np.isfinite(x_adv).all():
        raise RuntimeError(f"attack {attack} gave NaN or infinite values.")
    distance = float(np.abs(x_adv - x).max(initial=0))
    if eps is not None and distance > eps + _TOLERANCE:
        raise RuntimeError(f"attack {attack} left the ball of eps {eps:g}: L-inf distance {distance:.8g}.")
    if clip_values is not None and (
        (x_adv < clip_values[0] - _TOLERANCE).any() or (x_adv > clip_values[1] + _TOLERANCE).any()
    ):
        raise RuntimeError(f"attack {attack} left the box: values from {x_adv.min():.8g} to {x_adv.max():.8g}.")
