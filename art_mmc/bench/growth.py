"""
How time and memory grow with the number of samples and with the number of classes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from art_mmc.bench.contest import Settings
from art_mmc.bench.memory import peak_megabytes, run_in_child
from art_mmc.bench.subjects import BATCH, SHAPES, art_classifier, images, network, our_classifiers
from art_mmc.bench.timing import clocked
from art_mmc.evaluation.engine import seeded

SAMPLES, CLASSES = (1_000, 3_000, 10_000, 50_000), (10, 100, 1_000)

#: samples at which the number of classes grows, and on which detectors are fitted: ten of each of the most classes, of
#: which a tenth is held out
_AT, _FITTED_ON = 3_000, 10_000

_BACKBONE = "lenet5"

_STEPS = 3


@dataclass(frozen=True)
class Curve:
    """
    One subject along one axis.

    :param name: Short name.
    :param title: What is done, in words.
    :param axis: "samples" or "classes".
    :param subject: What is done; see :func:`subject`.
    """

    name: str
    title: str
    axis: str
    subject: str


_SUBJECTS = {
    "predict": "predict",
    "pgd": f"PGD, {_STEPS} steps",
    "kernel-density": "KernelDensityDetector.scores",
    "mahalanobis": "MahalanobisDetector.scores",
    "lid": "LIDDetector.scores",
}

#: name -> curve
CURVES: dict[str, Curve] = {
    f"{name}-{axis}": Curve(f"{name}-{axis}", title, axis, name)
    for axis in ("samples", "classes")
    for name, title in _SUBJECTS.items()
}


def subject(name: str, nb_classes: int, settings: Settings) -> Callable[[np.ndarray, np.ndarray], object]:
    """
    :param name: "predict", "pgd", "kernel-density", "mahalanobis" or "lid".
    :param nb_classes: Number of classes K.
    :param settings: How to measure.
    :return: A function of images (N, C, H, W) and labels (N,) that does it.
    """
    # a few steps on 1,000 classes would leave most features at zero, and detectors with nothing to tell apart
    net = network(_BACKBONE, replace(settings, trained=False), nb_classes)
    theirs = art_classifier(net, _BACKBONE, settings, nb_classes)
    (classifier,) = our_classifiers(theirs, Settings()).values()
    if name == "predict":
        return lambda x, y: classifier.predict(x, batch_size=BATCH)
    if name == "pgd":
        from art.attacks.evasion import ProjectedGradientDescent

        attack = ProjectedGradientDescent(
            classifier, eps=0.1, eps_step=0.05, max_iter=_STEPS, num_random_init=1, batch_size=BATCH, verbose=False
        )
        return lambda x, y: attack.generate(x, y)
    from art_mmc import detectors

    x, y = images(SHAPES[_BACKBONE], settings.size(_FITTED_ON, 400), nb_classes)
    detector: Any = {
        "kernel-density": lambda: detectors.KernelDensityDetector(classifier, layer="backbone", bandwidth=1.0),
        "mahalanobis": lambda: detectors.MahalanobisDetector(classifier, layer="backbone"),
        "lid": lambda: detectors.LIDDetector(classifier, layer="backbone"),
    }[name]()
    detector.fit(x, y)
    return lambda x, y: detector.scores(x, batch_size=BATCH)


def measure_curve(name: str, settings: Settings) -> list[dict[str, float]]:
    """
    :param name: Name of a curve.
    :param settings: How to measure.
    :return: For each size its seconds, median of up to three runs, and its peak memory in MiB.
    """
    curve = CURVES[name]
    if curve.axis == "samples":
        sizes: Sequence[int] = settings.size(SAMPLES, (40, 80, 160))
        x, y = images(SHAPES[_BACKBONE], sizes[-1])
        run = subject(curve.subject, 10, settings)
        run(x[: sizes[0]], y[: sizes[0]])  # warm
        return [_point(run, x[:size], y[:size], size, settings) for size in sizes]
    points = []
    samples = settings.size(_AT, 40)
    for size in settings.size(CLASSES, (5, 20)):
        x, y = images(SHAPES[_BACKBONE], samples, size)
        run = subject(curve.subject, size, settings)
        run(x[:BATCH], y[:BATCH])
        points.append(_point(run, x, y, size, settings))
    return points


def _point(
    run: Callable[[np.ndarray, np.ndarray], object], x: np.ndarray, y: np.ndarray, size: int, settings: Settings
) -> dict[str, float]:
    def job() -> object:
        with seeded(0):
            return run(x, y)

    peak = peak_megabytes(job, settings.device_type)
    timed = clocked(job, settings.device_type)
    seconds = [timed()]
    while len(seconds) < 3 and sum(seconds) < 3:
        seconds.append(timed())
    return {"size": size, "seconds": statistics.median(seconds), "megabytes": peak}


def grow(curve: Curve, settings: Settings) -> dict[str, Any]:
    """
    Measure a curve in a process of its own.

    :param curve: The curve.
    :param settings: How to measure.
    :return: Its points, its slopes and the largest step up; plain data.
    """
    points = run_in_child({"curve": curve.name, "settings": settings.to_dict()})
    sizes, seconds = [point["size"] for point in points], [point["seconds"] for point in points]
    return {
        "name": curve.name,
        "title": curve.title,
        "axis": curve.axis,
        "points": points,
        "slope_seconds": slope(sizes, seconds),
        "slope_megabytes": slope(sizes, [max(point["megabytes"], 1.0) for point in points]),
        "worst_step": worst_step(sizes, seconds),
    }


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """
    :param sizes: Sizes, positive.
    :param figures: A figure at each size, positive.
    :return: Exponent of the power law through them, by least squares on logarithms: 1 for linear growth.
    """
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(figures, np.float64))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def worst_step(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """
    :param sizes: Sizes, ascending.
    :param figures: A figure at each size, positive.
    :return: Largest factor by which the figure for one unit of size rises from one size to the next: 1 or less where
             growth is linear or below.
    """
    each = [figure / size for size, figure in zip(sizes, figures, strict=True)]
    return max((after / before for before, after in zip(each, each[1:], strict=False)), default=math.nan)
