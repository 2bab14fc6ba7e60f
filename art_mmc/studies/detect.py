"""
Detectors of several classifiers under the attacks of the RCE paper, on the same images: what `art-mmc detect` runs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_mmc.attacks.detector_aware import DensityAwareCarliniL2, DetectorAwarePGD
from art_mmc.attacks.papers import PAPER_ATTACKS, batch_seed, choose_targets, craft_batch, plain_settings, scaled
from art_mmc.checks import check_name, number
from art_mmc.data import Dataset
from art_mmc.detectors import DETECTORS, ScoreDetector, create_detector, network_outputs
from art_mmc.detectors.base import NetworkOutputs
from art_mmc.distributed import check_same, in_main_process, progress, share_out, world
from art_mmc.evaluation.codec import FLAGS, Record, array, encode
from art_mmc.evaluation.detection import DetectionRecord
from art_mmc.evaluation.engine import check_examples
from art_mmc.evaluation.records import Share
from art_mmc.evaluation.robustness import StateFolder, identity, identity_of_data
from art_mmc.pretrained import find_network
from art_mmc.state import Stream, derived_seed, seeded
from art_mmc.studies.settings import Detect
from art_mmc.studies.setup import (
    SAME_COMMAND,
    Job,
    build_classifier,
    choose_test_images,
    load_run,
    load_trained,
    machine,
    train_defence,
)

#: the three metrics of the RCE paper
PAPER_DETECTORS = ("confidence", "non-me", "kernel-density")

#: attacks that know the detector: name -> title. C&W-wb attacks the kernel density alone, PGD-wb each detector in turn
WHITE_BOX_ATTACKS = {"cw-wb": "C&W-wb", "pgd-wb": "PGD-wb"}

#: all of them, in the order of the tables
ATTACKS = (*PAPER_ATTACKS, *WHITE_BOX_ATTACKS)

#: what FGSM, BIM and ILCM climb, as in the paper
OBJECTIVE = "cross_entropy"

#: the detector that C&W-wb attacks
KERNEL = "kernel-density"

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
    passed: np.ndarray = array(FLAGS)  # whether the density is that of a typical clean input, f_2 = 0, (N,)
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
    """
    Detectors of classifiers under attacks: a record for each classifier, attack and detector, in this order, one for
    each classifier that C&W-wb attacked, and the conditions, plain data.
    """

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
    """
    The radius of FGSM, BIM and ILCM: 0.16, the default of the RCE paper's released code, for grey images; 8 / 255,
    where attacks on colour images are usually compared.
    """
    return 8 / 255 if dataset.input_shape[0] == 3 else 0.16


def settled(settings: Detect, dataset: Dataset) -> Detect:
    """
    The settings with all that they leave open decided: detectors, attacks, radius and number of images. ValueError for
    unknown names, or what does not fit together.
    """
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
    """The detectors of a classifier, not yet fitted."""
    more = {KERNEL: {"bandwidth": settings.bandwidth}}
    common: dict[str, Any] = {"false_positive_rate": settings.fpr, "seed": settings.seed}
    return {name: create_detector(name, classifier, **common, **more.get(name, {})) for name in settings.detector or ()}


def prepare(settings: Detect, device_type: str = "cpu") -> Job:
    """
    Train classifiers or load them, fit detectors, attack. It gives a :class:`DetectionStudy`, and classifier, attack
    and records as they come.
    """
    given = settings.checkpoint or []
    dataset, recipe, backbone = load_run(settings, [find_network(path) for path in given])
    wanted = settled(settings, dataset)
    classifiers: dict[str, PyTorchClassifier] = dict(
        load_trained(given, dataset, device_type, settings.factory if given else None)
    )
    sources: dict[str, Any] = {name: {"checkpoint": path} for name, path in zip(classifiers, given, strict=True)}
    defences = [] if given else settings.defence or ["sce", "rce"]
    for classifier in (*classifiers.values(), *(build_classifier(name, dataset, backbone) for name in defences)):
        _create(wanted, classifier)

    def run(on_attack: Callable[[str, str, list[DetectionRecord]], None] | None = None) -> DetectionStudy:
        for name in defences:
            trained = train_defence(
                name,
                dataset,
                recipe,
                backbone=backbone,
                seed=settings.seed,
                device_type=device_type,
                verbose=not settings.quiet,
                folder=state / f"{name}.run",
                resume=True,
            )
            classifiers[name], sources[name] = trained.classifier, trained.source
        return run_detection_study(classifiers, dataset, wanted, sources, on_attack, state)

    folder = Path(settings.output).expanduser()
    state = folder / "state"
    places = [state / place for name in (*classifiers, *defences) for place in (name, f"{name}.run")]
    return Job(dataset, folder, run, goes_on=SAME_COMMAND, states=(*places, state))


def run_detection_study(
    classifiers: Mapping[str, PyTorchClassifier],
    dataset: Dataset,
    wanted: Detect,
    sources: Mapping[str, Any] | None = None,
    on_attack: Callable[[str, str, list[DetectionRecord]], None] | None = None,
    folder: Path | None = None,
) -> DetectionStudy:
    """
    Fit detectors on training images, attack the same test images of each classifier, and score them; the settings are
    :func:`settled`. The thresholds are set on clean test images that are not attacked, or, where there are too few of
    them, on a held-out share of the fitting data; each record says which.

    Several processes, once they have met, must all call this with the same: they share the batches of all attacks on a
    classifier, and each gets the study that one process would have got; seconds are added up. AttackError when an
    attack leaves its ball or the box. In `folder` the finished batches of each classifier are kept, from which a killed
    study goes on.
    """
    fitted = {name: _create(wanted, classifier) for name, classifier in classifiers.items()}
    seed, batch_size, detectors, attacks = wanted.seed, wanted.batch_size, wanted.detector or [], wanted.attack or []
    attacked, calibration = _split_test(dataset, wanted.nb_test, wanted.fpr, seed)
    fit_on = _draw_per_class(dataset.y_train, wanted.fit_per_class, seed)
    x, y = dataset.x_test[attacked].astype(np.float32, copy=False), dataset.y_test[attacked]
    with_features = any(DETECTORS[name].needs_features for name in detectors)

    records: list[DetectionRecord] = []
    white_box_records: list[WhiteBoxRecord] = []
    facts: dict[str, Any] = {}
    jobs = sum(len(detectors) if each == "pgd-wb" else 1 for each in attacks)
    if world().size > 1:
        same = {"images": identity_of_data(x, y), "settings": repr(wanted)}
        check_same({**same, **{name: identity(each) for name, each in classifiers.items()}}, "attack")
    with progress(not wanted.quiet, total=jobs * len(classifiers), desc="attacks") as bar:
        for name, classifier in classifiers.items():

            def outputs(images: np.ndarray, classifier: PyTorchClassifier = classifier) -> NetworkOutputs:
                def batch(first: int) -> NetworkOutputs:
                    part = images[first : first + batch_size]
                    with seeded(derived_seed(seed, Stream.NETWORK_OUTPUTS, first)):
                        return network_outputs(classifier, part, None, batch_size, with_features)

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
            run = _Run(name, classifier, fitted[name], clean, x, y, outputs, wanted)
            attempts = run.attempts()
            # no attack waits for another: the batches of all of them are shared out at once
            about = {"classifier": identity(classifier), "data": identity_of_data(x, y), "settings": repr(wanted)}
            state = None if folder is None else in_main_process(partial(StateFolder, folder / name, about))

            def part(number: int, attempt: _Attempt, first: int, run: _Run = run, state: Any = state) -> _Part:
                made = partial(run.part, attempt, first)
                file = f"{number:03d}-{first // attempt.batch_size:04d}"
                return made() if state is None else state.kept(file, made, _Part.facts, _Part.read)

            numbered = enumerate(attempts)
            parts = share_out([partial(part, i, each, first) for i, each in numbered for first in each.starts])
            for title, group in groupby(attempts, lambda attempt: attempt.title):
                some: list[DetectionRecord] = []
                for attempt in group:
                    against = f" on {attempt.detectors[0]}" if attempt.attack in WHITE_BOX_ATTACKS else ""
                    bar.set_postfix_str(f"{name}, {title}{against}")
                    made = [next(parts) for _ in attempt.starts]
                    some += run.score(attempt, made)
                    if attempt.attack == "cw-wb":
                        white_box_records.append(run.white_box(made))
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
        **machine(next(iter(classifiers.values())).device),
    }
    return DetectionStudy(provenance, tuple(records), tuple(white_box_records))


@dataclass(frozen=True, eq=False)
class _Attempt:
    """An attack, to be scored by some of the detectors; its batches do not depend on others."""

    attack: str
    title: str
    eps: float | None
    detectors: Sequence[str]
    x: np.ndarray
    batch_size: int
    #: which of x -> the examples and the attack's settings
    craft: Callable[[slice], tuple[np.ndarray, dict[str, Any]]]
    #: of C&W-wb alone: which of x, and the examples -> its goals reached, bool (B,), and its distortion (B,)
    goals: Callable[[slice, np.ndarray], dict[str, np.ndarray]] = lambda index, x_adv: {}

    @property
    def starts(self) -> range:
        """The first sample of each batch."""
        return range(0, len(self.x), self.batch_size)


class _Part(NamedTuple):
    """What an attack made of a batch: all that is kept of it."""

    outputs: NetworkOutputs
    settings: dict[str, Any]
    seconds: float
    goals: dict[str, np.ndarray]

    def facts(self) -> dict[str, Any]:
        """For a file of arrays."""
        features = {} if self.outputs.features is None else {"features": self.outputs.features}
        told = {"settings": json.dumps(encode(self.settings)), "seconds": self.seconds}
        return {"logits": self.outputs.logits, **features, **told, **{f"goal {k}": v for k, v in self.goals.items()}}

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> _Part:
        """What :meth:`facts` gave."""
        outputs = NetworkOutputs(kept["logits"], kept.get("features"))
        goals = {name.removeprefix("goal "): kept[name] for name in kept if name.startswith("goal ")}
        return cls(outputs, json.loads(str(kept["settings"])), float(kept["seconds"]), goals)


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
    wanted: Detect

    @property
    def eps(self) -> float:
        return float(self.wanted.eps or 0)

    def attempts(self) -> list[_Attempt]:
        """What is tried; PGD-wb is another one for each detector."""
        names = self.wanted.attack or []
        plain = self._plain([name for name in names if name in PAPER_ATTACKS])
        made: list[_Attempt] = []
        for name in names:
            if name == "pgd-wb":
                made += [self._pgd(each) for each in self.detectors]
            else:
                made.append(self._carlini() if name == "cw-wb" else plain[name])
        return made

    def part(self, attempt: _Attempt, first: int) -> _Part:
        """A batch is crafted, seen to keep the rules, and shown to the network."""
        index = slice(first, first + attempt.batch_size)
        start = time.perf_counter()
        x_adv, settings = attempt.craft(index)
        seconds = time.perf_counter() - start
        radius = math.inf if attempt.eps is None else attempt.eps  # C&W keeps to the box too
        what, clip_values = f"attack '{attempt.title}'", self.classifier.clip_values
        check_examples(x_adv, attempt.x[index], what, radius, math.inf, clip_values)
        return _Part(self.outputs(x_adv), settings, seconds, attempt.goals(index, x_adv))

    def _plain(self, names: Sequence[str]) -> dict[str, _Attempt]:
        """The attacks that do not know the detectors."""
        wanted, eps = self.wanted, self.eps

        def predict() -> np.ndarray:
            with seeded(derived_seed(wanted.seed, Stream.CLEAN_PREDICTIONS)):
                return self.classifier.predict(self.x, batch_size=wanted.batch_size)

        logits = in_main_process(predict) if names else np.empty((0, 1))

        def attempt(name: str) -> _Attempt:
            row = PAPER_ATTACKS[name]
            targets = choose_targets(logits, row.targets, wanted.seed)
            labels = logits.argmax(axis=1) if targets is None else targets

            def craft(index: slice) -> tuple[np.ndarray, dict[str, Any]]:
                batch = name, self.classifier, self.x[index], labels[index]
                seed = batch_seed(wanted.seed, index.start)
                return craft_batch(*batch, eps, wanted.attack_share, OBJECTIVE, wanted.batch_size, seed)

            radius = eps if row.has_eps else None
            return _Attempt(name, row.title, radius, list(self.detectors), self.x, wanted.batch_size, craft)

        return {name: attempt(name) for name in names}

    def _carlini(self) -> _Attempt:
        """C&W-wb, on the first images."""
        wanted, title = self.wanted, WHITE_BOX_ATTACKS["cw-wb"]
        settings: dict[str, Any] = {  # the paper's, but for two
            "confidence": 0.0,  # not 5, which is beyond the logits of some networks
            "learning_rate": 0.01 / math.sqrt(wanted.attack_share),  # few steps must be long to leave the box's border
            "max_iter": scaled(10000, wanted.attack_share),
            "start_max_iter": scaled(5000, wanted.attack_share),
            "batch_size": wanted.batch_size,
            "seed": wanted.seed,
            "verbose": False,
        }
        settings |= wanted.carlini_params
        attack = DensityAwareCarliniL2(self.classifier, self.detectors[KERNEL], **settings)
        x = self.x[: wanted.nb_white_box]
        targets = in_main_process(lambda: attack.targets(x))

        def craft(index: slice) -> tuple[np.ndarray, dict[str, Any]]:
            return attack.generate(x[index], targets[index]), plain_settings(attack)

        def goals(index: slice, x_adv: np.ndarray) -> dict[str, np.ndarray]:
            hit, excess = attack.outcome(x_adv, targets[index])
            change = np.square(x_adv.astype(float) - x[index]).reshape(len(x_adv), -1)
            return {"hit": hit, "passed": excess == 0, "distortion": 255 * np.sqrt(change.mean(axis=1))}

        return _Attempt("cw-wb", title, None, (KERNEL,), x, attack.batch_size, craft, goals)

    def _pgd(self, detector: str) -> _Attempt:
        """PGD-wb on one of the detectors."""
        wanted, title = self.wanted, WHITE_BOX_ATTACKS["pgd-wb"]
        settings: dict[str, Any] = {
            "batch_size": wanted.batch_size,
            "seed": wanted.seed,
            "verbose": False,
            "max_iter": 40,
        }
        settings |= {"eps": self.eps, **wanted.pgd_params}
        whole = DetectorAwarePGD(self.classifier, self.detectors[detector], **settings)

        def craft(index: slice) -> tuple[np.ndarray, dict[str, Any]]:
            own = {**settings, "seed": batch_seed(whole.seed, index.start)}
            attack = DetectorAwarePGD(self.classifier, self.detectors[detector], **own)
            return attack.generate(self.x[index], self.y[index]), plain_settings(whole)

        return _Attempt("pgd-wb", title, settings["eps"], (detector,), self.x, whole.batch_size, craft)

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
                seed=self.wanted.seed,
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
        goals = {name: np.concatenate([part.goals[name] for part in parts]) for name in parts[0].goals}
        seconds = sum(part.seconds for part in parts)
        return WhiteBoxRecord(self.name, parts[0].settings, seconds, self.wanted.seed, **goals)


def _joined(parts: Sequence[NetworkOutputs]) -> NetworkOutputs:
    features = [part.features for part in parts if part.features is not None]
    return NetworkOutputs(
        np.concatenate([part.logits for part in parts]), np.concatenate(features) if features else None
    )


def _split_test(
    dataset: Dataset, nb_test: int | None, false_positive_rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which test images are attacked, and which set the threshold: none of the rest if they are too few for it."""
    n = len(dataset.y_test)
    attacked = choose_test_images(dataset, nb_test, seed)
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
