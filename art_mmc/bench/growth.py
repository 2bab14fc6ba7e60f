"""
How time and memory grow with the number of samples and with the number of classes.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from art_mmc.attacks.build import build_attack
from art_mmc.bench.measure import OURS, Settings, in_fresh_process, peak_megabytes, seconds
from art_mmc.bench.subjects import BATCH, SHAPES, classifiers, images, repeatable
from art_mmc.detectors import DETECTORS, create_detector

SAMPLES, CLASSES = (1_000, 3_000, 10_000, 50_000), (10, 100, 1_000)

#: samples at which the number of classes grows, and on which detectors are fitted: ten of each of the most classes, of
#: which a tenth is held out
_AT, _FITTED_ON = 3_000, 10_000

_BACKBONE = "lenet5"

_STEPS = 3

_DETECTORS: dict[str, dict[str, Any]] = {"kernel-density": {"bandwidth": 1.0}, "mahalanobis": {}, "lid": {}}

#: what grows -> in words
SUBJECTS = {
    "predict": "predict",
    "pgd": f"PGD, {_STEPS} steps",
    **{name: f"{DETECTORS[name].__name__}.scores" for name in _DETECTORS},
}

#: names of the curves: a subject along an axis
CURVES = [f"{subject}-{axis}" for axis in ("samples", "classes") for subject in SUBJECTS]


def subject_of(name: str, nb_classes: int, settings: Settings) -> Callable[[np.ndarray, np.ndarray], object]:
    """A function of images (N, C, H, W) and labels (N,) that does what a subject stands for."""
    # a few steps on 1,000 classes would leave most features at zero, and detectors with nothing to tell apart
    classifier = classifiers(_BACKBONE, replace(settings.plain, trained=False), nb_classes)[OURS]
    if name == "predict":
        return lambda x, y: classifier.predict(x, batch_size=BATCH)
    if name == "pgd":
        return build_attack("pgd", classifier, eps=0.1, step_size=0.05, steps=_STEPS, batch_size=BATCH).generate
    detector = create_detector(name, classifier, layer="backbone", **_DETECTORS[name])
    detector.fit(*images(SHAPES[_BACKBONE], settings.size(_FITTED_ON, 400), nb_classes))
    return lambda x, y: detector.scores(x, batch_size=BATCH)


def measure_curve(name: str, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Seconds, median of up to three runs, and peak memory in MiB at each size; to be called in a fresh process."""
    asked = Settings(**settings)
    subject, _, axis = name.rpartition("-")
    samples, classes = axis == "samples", axis == "classes"
    sizes: Sequence[int] = asked.size(*((SAMPLES, (40, 80, 160)) if samples else (CLASSES, (5, 20))))
    points = []
    for size in sizes:
        if classes or size == sizes[0]:
            x, y = images(SHAPES[_BACKBONE], sizes[-1] if samples else asked.size(_AT, 40), 10 if samples else size)
            run = subject_of(subject, 10 if samples else size, asked)
            warm = sizes[0] if samples else BATCH
            run(x[:warm], y[:warm])
        job = repeatable(partial(run, x[:size] if samples else x, y[:size] if samples else y))
        peak = peak_megabytes(job, asked.device)
        times = [seconds(job)]
        while len(times) < 3 and sum(times) < 3:
            times.append(seconds(job))
        points.append({"size": size, "seconds": statistics.median(times), "megabytes": peak})
    return points


def grow(name: str, settings: Settings) -> dict[str, Any]:
    """A curve's points, measured in a process of its own, its slopes and the largest step up; plain data."""
    points = in_fresh_process(measure_curve, name, asdict(settings))
    sizes, times = [point["size"] for point in points], [point["seconds"] for point in points]
    subject, _, axis = name.rpartition("-")
    return {
        "name": name,
        "title": SUBJECTS[subject],
        "axis": axis,
        "points": points,
        "slope_seconds": slope(sizes, times),
        "slope_megabytes": slope(sizes, [max(point["megabytes"], 1.0) for point in points]),
        "worst_step": worst_step(sizes, times),
    }


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The exponent of the power law through figures at sizes, by least squares on logarithms: 1 for linear growth."""
    return float(np.polyfit(np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(figures, np.float64)), 1)[0])


def worst_step(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The largest factor by which the figure for one unit of size rises from one size to the next: 1 for linear."""
    each = [figure / size for size, figure in zip(sizes, figures, strict=True)]
    return max((after / before for before, after in zip(each, each[1:], strict=False)), default=math.nan)
