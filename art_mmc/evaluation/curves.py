"""
Curves for a report: what PGD on each objective leaves over eps and over the number of its steps, and where its gradient
is exactly zero. On few samples: they are to be looked at, not to be quoted.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import UNIT_BOX, box_width, check_images, check_labels, check_radii
from art_mmc.distributed import in_main_process, progress, share_out
from art_mmc.evaluation.diagnostics import zero_gradient
from art_mmc.evaluation.engine import Target, run_plan, timed
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import Curves
from art_mmc.evaluation.suites import crossing
from art_mmc.state import Stream, derived_seed, seeded

#: numbers of steps of the second curve, and steps of PGD on the first one
STEPS, STEPS_OVER_EPS = (1, 2, 5, 10, 20, 50, 100), 20

#: shares of the largest radius at which the first curve is measured; beyond 1 to see whether it goes on down
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def curve_radii(eps: float | Sequence[float], norm: float = math.inf, clip_values: Any = UNIT_BOX) -> tuple[float, ...]:
    """Radii for a curve, ascending: the evaluation's, parts of the largest, up to twice that or the box's width."""
    radii, widest = check_radii(eps, norm, clip_values), box_width(clip_values)
    grid = list(radii)
    for share in SHARES:
        radius = share * radii[-1]
        if (norm == math.inf and radius > widest) or any(math.isclose(radius, each, rel_tol=1e-6) for each in grid):
            continue
        grid.append(radius)
    return tuple(sorted(grid))


def measure_curves(
    classifier: PyTorchClassifier,
    x: np.ndarray,
    y: np.ndarray,
    eps: float | Sequence[float],
    norm: float = math.inf,
    *,
    samples: int = 64,
    steps: Sequence[int] = STEPS,
    steps_over_eps: int = STEPS_OVER_EPS,
    batch_size: int = 256,
    seed: int = 0,
    keep: Callable[[str, Callable[[], tuple[int, float]]], tuple[int, float]] | None = None,
    verbose: bool = False,
) -> Curves:
    """
    The curves on the first so many inputs (N, ...) of any ART `PyTorchClassifier`: PGD with one random start on the
    loss, the cross-entropy and the adaptive objective, over the radii that :func:`curve_radii` makes and over numbers
    of steps at the largest of the evaluation's, by several processes together. `keep` is called as (name, run) for each
    point instead of `run()`, to keep its count and seconds or take kept ones; the name says what decides them, but for
    classifier and data.
    """
    if samples < 1 or not steps or min(steps) < 1 or steps_over_eps < 1:
        raise ValueError("samples and steps: expected whole numbers of at least 1.")
    x, y = check_images(x, classifier.input_shape), np.asarray(y)
    y = check_labels(y, classifier.nb_classes, length=len(x))[:samples]
    x = x[:samples].astype(np.float32, copy=False)
    target = Target(classifier, x)
    classes, seconds = in_main_process(lambda: timed(lambda: target.classes(x, batch_size)))
    standing = classes == y
    radii = curve_radii(eps, norm, classifier.clip_values)
    at = check_radii(eps, norm, classifier.clip_values)[-1]
    ladder = tuple(sorted(set(steps)))

    def left(objective: str, radius: float, count: int) -> int:
        plan = AttackPlan("PGD", "pgd", objective, radius, norm, count, crossing(radius, count))
        # the same seed for each, so that the random starts of all curves point the same way
        record, _, _ = run_plan(target, x, y, plan, standing, derived_seed(seed, Stream.CURVE), batch_size)
        return record.correct

    points = [x[standing], *(_random_points(x[standing], radius, norm, classifier, seed) for radius in radii)]

    def without_gradient(objective: str, at: np.ndarray) -> int:
        with seeded(derived_seed(seed, Stream.ANSWERS)):
            return int(zero_gradient(target.view(objective), at, y[standing], batch_size).sum())

    objectives = tuple(dict.fromkeys(("loss", "cross_entropy", target.adaptive)))
    jobs: dict[str, Callable[[], int]] = {}
    for objective in objectives:
        jobs |= {f"{objective}, eps {each}": partial(left, objective, each, steps_over_eps) for each in radii}
        jobs |= {f"{objective}, {count} steps": partial(left, objective, at, count) for count in ladder}
        jobs |= {f"{objective}, zero {i}": partial(without_gradient, objective, x) for i, x in enumerate(points)}
    told = f"{samples} {steps_over_eps} {radii} {norm} {seed} {batch_size}"
    counts = []
    with progress(verbose, total=len(jobs), desc="curves", unit="point") as bar:

        def job(name: str, measure: Callable[[], int]) -> tuple[int, float]:
            run = partial(timed, measure)
            return run() if keep is None else keep(f"{name} {told}", run)

        for count, took in share_out([partial(job, *each) for each in jobs.items()]):
            counts.append(count)
            seconds += took
            bar.update()
    rest = iter(counts)
    taken = {name: [tuple(next(rest) for _ in each) for each in (radii, ladder, points)] for name in objectives}
    over_eps, over_steps, zero = ({name: found[i] for name, found in taken.items()} for i in range(3))
    return Curves(
        len(x), int(standing.sum()), radii, over_eps, steps_over_eps, at, ladder, over_steps, zero, norm, seed, seconds
    )


def _random_points(x: np.ndarray, radius: float, norm: float, classifier: PyTorchClassifier, seed: int) -> np.ndarray:
    """A point of each ball, uniform in it, cut to the box, (N, ...)."""
    rng = np.random.default_rng(derived_seed(seed, Stream.CURVE_POINTS))
    if norm == math.inf:
        move = rng.uniform(-1, 1, x.shape)
    else:
        move = rng.normal(size=x.shape)
        shape = (-1, *[1] * (x.ndim - 1))
        size = int(np.prod(x.shape[1:]))
        length = np.sqrt(np.square(move).reshape(len(x), -1).sum(axis=1)).reshape(shape)
        move = move / length * rng.uniform(size=len(x)).reshape(shape) ** (1 / size)
    low, high = (-math.inf, math.inf) if classifier.clip_values is None else classifier.clip_values
    return np.clip(x + radius * move, low, high).astype(np.float32)
