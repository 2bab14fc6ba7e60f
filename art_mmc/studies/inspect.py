"""
All measurements of one trained classifier: what `art-mmc inspect` runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import check_radii, check_seed, check_type, whole
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.loading import check_fits
from art_mmc.data import Dataset
from art_mmc.evaluation import wilson_interval
from art_mmc.evaluation.engine import Target, run_plan
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.suites import crossing
from art_mmc.heads import CenterTrackingHead, DistanceHead, LinearHead
from art_mmc.pretrained import find_network
from art_mmc.state import seeded
from art_mmc.studies.history import find_history, read_history
from art_mmc.studies.settings import Inspect
from art_mmc.studies.setup import Job, choose_test_images, default_eps, load_data, load_trained
from art_mmc.theory import boundary
from art_mmc.theory.density import binned, compactness_ratio, contour_shell_density, feature_scale, knn_density
from art_mmc.theory.embedding import FeatureMap, map_features
from art_mmc.theory.features import FeatureError, class_means, features_and_logits, head_centers, head_weights
from art_mmc.theory.probability import probability_gap
from art_mmc.theory.ranks import RankStudy, rank_study

#: names of the sets of features
TRAIN, TEST, ADVERSARIAL = "train", "test", "adversarial"

#: layers of the features that the head reads
_READ = (None, "embedding")

#: names of the two estimates of the density
KNN, SHELL = "k nearest neighbours", "contour shells"


@dataclass(frozen=True, eq=False)
class BoundaryMeasure:
    """The MMLDA paper's robustness measure RB, by theory and as measured."""

    means: str  # "head's centers", or "class means" of the training features
    covariance: str  # "identity", or "measured" about the class means of the training features
    rb: float  # by theory
    approximation: float  # half the smallest distance of two means
    limit: float  # the most that the approximation can be at the largest norm of the means
    measured: dict[str, float]  # set of features -> smallest, over pairs of classes, mean distance to their boundary


@dataclass(frozen=True, eq=False)
class Inspection:
    """
    What was measured on one classifier. Features are in the network's own unit; densities are of features divided by
    `scale`.

    :param name: Name in tables and pictures.
    :param defence: Name of the defence, or None.
    :param nb_train: Number of training images.
    :param nb_test: Number of test images.
    :param correct: For each test image whether it is classified correctly when clean, bool (N,).
    :param dim: Width d of the features.
    :param scale: Mean distance between the class means of the training features.
    :param compactness: Set -> ratio of squared distances within and between classes; see :func:`.compactness_ratio`.
    :param loss: Set -> training loss of each sample, (N,).
    :param density: "k nearest neighbours" and "contour shells" -> set -> log density (N,).
    :param k: Number of neighbours.
    :param knn_dim: Dimension in which they were looked for.
    :param shell_centers: Around what the shells are: "head's centers" or "class means".
    :param boundaries: The robustness measure: for the head's centers, if it has any, and for the class means.
    :param distances: Set -> signed distance to the nearest boundary (N,), the head's or that of the class means.
    :param distance_limit: The upper bound of the mean distance in the same unit, where the head has centers; or None.
    :param gaps: "clean" and "adversarial" -> probability gap of each test image, (N,).
    :param ranks: The study of the ranks that attacks land on.
    :param maps: Feature maps.
    :param eps: Radius of the adversarial examples of the maps, gaps and distances.
    :param history: One record an epoch of the training, or None.
    """

    name: str
    defence: str | None
    nb_train: int
    nb_test: int
    correct: np.ndarray = field(repr=False)
    dim: int
    scale: float
    compactness: dict[str, float]
    loss: dict[str, np.ndarray] = field(repr=False)
    density: dict[str, dict[str, np.ndarray]] = field(repr=False)
    k: int
    knn_dim: int
    shell_centers: str
    boundaries: tuple[BoundaryMeasure, ...]
    distances: dict[str, np.ndarray] = field(repr=False)
    distance_limit: float | None
    gaps: dict[str, np.ndarray] = field(repr=False)
    ranks: RankStudy
    maps: tuple[FeatureMap, ...] = field(repr=False)
    eps: float
    history: list[dict[str, Any]] | None = field(repr=False)

    def density_trend(self, kind: str, part: str) -> float | None:
        """
        :param kind: "k nearest neighbours" or "contour shells".
        :param part: "train" or "test".
        :return: Spearman's rank correlation of log density and training loss; None where one of them is constant.
        """
        from scipy.stats import spearmanr

        loss, density = self.loss[part], self.density[kind][part]
        if not (np.ptp(loss) and np.ptp(density)):
            return None
        return float(spearmanr(loss, density).statistic)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold: of what is measured on each sample mean and quantiles, the rank study in
                 full.
        """
        accuracy = int(self.correct.sum())
        return {
            "name": self.name,
            "defence": self.defence,
            "n_train": self.nb_train,
            "n_test": self.nb_test,
            "clean_accuracy": {
                "correct": accuracy,
                "accuracy": accuracy / self.nb_test,
                "interval": list(wilson_interval(accuracy, self.nb_test)),
            },
            "feature_width": self.dim,
            "feature_scale": self.scale,
            "compactness_ratio": self.compactness,
            "training_loss": {part: _summary(values) for part, values in self.loss.items()},
            "log_density": {
                kind: {
                    part: {
                        **_summary(values),
                        "correlation_with_loss": self.density_trend(kind, part),
                        "median_by_tenth_of_loss": binned(self.loss[part], values)[1].tolist(),
                    }
                    for part, values in sets.items()
                }
                for kind, sets in self.density.items()
            },
            "knn": {"k": self.k, "dim": self.knn_dim},
            "shell_centers": self.shell_centers,
            "robustness_measure": [vars(each) for each in self.boundaries],
            "nearest_boundary": {
                part: {**_summary(values), "share_on_wrong_side": float((values < 0).mean())}
                for part, values in self.distances.items()
            },
            "adversarial_eps": self.eps,
            "probability_gap": {part: _summary(values) for part, values in self.gaps.items()},
            "ranks": self.ranks.to_dict(),
            "history": self.history,
        }


def _summary(values: np.ndarray) -> dict[str, float]:
    names = ("q05", "q25", "median", "q75", "q95")
    quantiles = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    return {"mean": float(values.mean()), **dict(zip(names, map(float, quantiles), strict=True))}


class Inspections(NamedTuple):
    """Measurements of several classifiers on the same data, and their files, as :func:`.write_inspection` is told."""

    inspections: list[Inspection]
    dataset: Dataset
    device: torch.device
    seed: int
    sources: dict[str, str]


def prepare(settings: Inspect, device_type: str = "cpu") -> Job:
    """Load classifiers and histories. It gives :class:`Inspections`, and each :class:`Inspection` as it comes."""
    files = [find_network(path) for path in settings.checkpoints]
    dataset = load_data(settings, networks=files)
    classifiers = load_trained(files, dataset, device_type)
    sources = dict(zip(classifiers, (file.name for file in files), strict=True))
    places = {name: find_history(file) for name, file in zip(classifiers, files, strict=True)}
    histories = {name: None if place is None else read_history(place) for name, place in places.items()}

    def run(on_result: Callable[[Inspection], None] | None = None) -> Inspections:
        inspections = []
        for name, classifier in classifiers.items():
            try:
                inspection = inspect_classifier(
                    classifier,
                    dataset,
                    settings.eps or default_eps(dataset),
                    name=name,
                    nb_train=settings.nb_train,
                    nb_test=settings.nb_test,
                    nb_points=settings.nb_points,
                    k=settings.neighbours,
                    dim=settings.components,
                    steps=settings.steps,
                    seed=settings.seed,
                    history=histories[name],
                )
            except FeatureError as err:  # too few of a class, or a network whose features have collapsed
                raise FeatureError(f"{name}: {err}") from err
            inspections.append(inspection)
            if on_result is not None:
                on_result(inspection)
        return Inspections(inspections, dataset, classifier.device, settings.seed, sources)

    return Job(dataset, Path(settings.output).expanduser(), run)


def inspect_classifier(
    classifier: PyTorchClassifier,
    dataset: Dataset,
    eps: float | Sequence[float],
    *,
    name: str | None = None,
    layer: int | str | None = None,
    nb_train: int | None = None,
    nb_test: int = Inspect.nb_test,
    nb_points: int = Inspect.nb_points,
    k: int = Inspect.neighbours,
    dim: int | None = None,
    steps: int = Inspect.steps,
    batch_size: int = 256,
    seed: int = 0,
    history: list[dict[str, Any]] | None = None,
) -> Inspection:
    """
    Measure on a trained classifier what the papers explain their losses by: sample density (MMC), distances to the
    boundaries (MMLDA), probability gap and landing ranks (PC); and map its features to the plane.

    The adversarial examples of the maps, gaps and distances come from ART's PGD on the classifier's own objective
    ("adaptive" unless set otherwise), at the middle one of the radii.

    :param classifier: Any ART `PyTorchClassifier`, trained.
    :param dataset: The data set that it was trained on.
    :param eps: L-inf radius or radii of the study of ranks, inputs being in [0, 1].
    :param name: Name in tables and pictures; None for the defence's.
    :param layer: The layer of the features where it is not what the head reads; see :func:`.features_and_logits`.
    :param nb_train: Number of training images whose features are measured; None for 2000, or 50 a class where that is
           more.
    :param nb_test: Number of test images, at most; these are attacked.
    :param nb_points: Number of test images in the feature maps, at most.
    :param k: Number of neighbours of the density.
    :param dim: Dimension in which they are looked for; see :func:`.knn_density`.
    :param steps: Steps of MIM and PGD.
    :param batch_size: Samples in one pass.
    :param seed: Seed of the choice of images, of PGD's start and of t-SNE.
    :param history: The training's records, for the convergence curves.
    :return: The measurements.
    :raises ValueError: For a data set that does not fit the classifier, bad radii or numbers.
    :raises FeatureError: For classes with fewer than k features, features that have collapsed, `dim` above their width.
    :raises FloatingPointError: When features or logits are not finite.
    """
    check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
    check_type("dataset", dataset, Dataset, "a Dataset, as load_dataset gives it")
    check_seed(seed)
    check_fits(classifier, dataset.x_test, dataset.nb_classes, dataset.name)
    radii = check_radii(eps, clip_values=classifier.clip_values)
    for label, value in (("nb_test", nb_test), ("nb_points", nb_points), ("steps", steps), ("batch_size", batch_size)):
        whole(label, value)
    wanted = max(2000, 50 * dataset.nb_classes) if nb_train is None else whole("nb_train", nb_train)
    train = np.sort(np.random.default_rng(seed).permutation(len(dataset.y_train))[:wanted])
    test = choose_test_images(dataset, nb_test, seed)
    x = {TRAIN: dataset.x_train[train], TEST: dataset.x_test[test]}
    y = {TRAIN: dataset.y_train[train], TEST: dataset.y_test[test]}

    z, logits, loss = {}, {}, {}
    for part in (TRAIN, TEST):
        z[part], logits[part] = features_and_logits(classifier, x[part], layer, batch_size)
        loss[part] = _training_loss(classifier, x[part], y[part], logits[part], batch_size)
    radius = radii[(len(radii) - 1) // 2]
    pgd: dict[str, Any] = {"steps": steps, "step_size": crossing(radius, steps), "every_point": False}
    plan = AttackPlan("PGD", "pgd", getattr(classifier, "objective", "loss"), radius, **pgd)
    with seeded(seed):
        target = Target(classifier, x[TEST])
    x_adv = run_plan(target, x[TEST], y[TEST], plan, np.ones(len(test), bool), seed, batch_size)[1]
    z[ADVERSARIAL], logits[ADVERSARIAL] = features_and_logits(classifier, x_adv, layer, batch_size)
    y[ADVERSARIAL] = y[TEST]

    features = _Features(classifier, getattr(classifier.model, "head", None) if layer in _READ else None, z, y)
    scale = feature_scale(*features.reference)
    boundaries, distances, limit = features.boundaries()
    return Inspection(
        name=name or getattr(classifier, "defence", None) or type(classifier).__name__,
        defence=getattr(classifier, "defence", None),
        nb_train=len(train),
        nb_test=len(test),
        correct=logits[TEST].argmax(axis=1) == y[TEST],
        dim=z[TRAIN].shape[1],
        scale=scale,
        compactness={part: compactness_ratio(z[part], y[part], features.reference) for part in (TRAIN, TEST)},
        loss=loss,
        density=features.densities(scale, k, dim),
        k=k,
        knn_dim=min(5, z[TRAIN].shape[1]) if dim is None else dim,
        shell_centers="class means" if features.centers is None else "head's centers",
        boundaries=boundaries,
        distances=distances,
        distance_limit=limit,
        gaps={
            "clean": probability_gap(logits[TEST], y[TEST]),
            ADVERSARIAL: probability_gap(logits[ADVERSARIAL], y[TEST]),
        },
        ranks=rank_study(classifier, x[TEST], y[TEST], radii, steps=steps, batch_size=batch_size, seed=seed),
        maps=features.maps(nb_points, seed),
        eps=radius,
        history=history,
    )


def _training_loss(
    classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray, logits: np.ndarray, batch_size: int
) -> np.ndarray:
    """Per sample, (N,); for another classifier than ours, whose loss may know none a sample, the cross-entropy."""
    if not isinstance(classifier, LossDefendedClassifier) or classifier.row is None:
        from scipy.special import logsumexp

        scores = logits.astype(np.float64)
        return logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
    view = classifier.with_objective("loss")
    parts = [
        np.asarray(view.compute_loss(x[start : start + batch_size], y[start : start + batch_size]), np.float64)
        for start in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Features:
    """Features (N, d) and labels of each set; and the head, where it is what reads them."""

    classifier: PyTorchClassifier
    head: Any
    z: dict[str, np.ndarray]
    y: dict[str, np.ndarray]

    @property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        return self.z[TRAIN], self.y[TRAIN]

    @cached_property
    def centers(self) -> np.ndarray | None:
        """The head's, if it has any, (K, d)."""
        has_centers = isinstance(self.head, (DistanceHead, CenterTrackingHead))
        return head_centers(self.classifier) if has_centers else None

    def densities(self, scale: float, k: int, dim: int | None) -> dict[str, dict[str, np.ndarray]]:
        centers = None if self.centers is None else self.centers / scale
        density: dict[str, dict[str, np.ndarray]] = {KNN: {}, SHELL: {}}
        for part in (TRAIN, TEST):
            z, y = self.z[part] / scale, self.y[part]
            reference = None if part == TRAIN else (self.z[TRAIN] / scale, self.y[TRAIN])
            density[KNN][part] = knn_density(z, y, k, dim, reference)
            density[SHELL][part] = contour_shell_density(z, y, centers, reference)
        return density

    def boundaries(self) -> tuple[tuple[BoundaryMeasure, ...], dict[str, np.ndarray], float | None]:
        """The robustness measure, and the distances to the nearest boundary with their limit."""
        measures = []
        if self.centers is not None:
            measures.append(self._measure("head's centers", self.centers, None, self.z))
        means = class_means(*self.reference, self.classifier.nb_classes)
        # about their middle, which changes no distance but gives the limit a meaning
        middle = means.mean(axis=0)
        means, z = means - middle, {part: features - middle for part, features in self.z.items()}
        measures.append(self._measure("class means", means, boundary.within_class_covariance(*self.reference), z))
        decides = isinstance(self.head, (LinearHead, DistanceHead))
        weights, biases = head_weights(self.classifier) if decides else boundary.lda_boundaries(means)
        distances = {
            part: boundary.boundary_distances(features, self.y[part], weights, biases).min(axis=1)
            for part, features in (self.z if decides else z).items()
        }
        # a head that decides by its centers has the bound for them
        return tuple(measures), distances, measures[0].limit if isinstance(self.head, DistanceHead) else None

    def _measure(
        self, title: str, means: np.ndarray, covariance: np.ndarray | None, z: Mapping[str, np.ndarray]
    ) -> BoundaryMeasure:
        weights, biases = boundary.lda_boundaries(means, covariance)
        squared_norm = float((weights * means).sum(axis=1).max())  # in the norm of the covariance
        measured = {
            part: float(np.nanmin(boundary.mean_boundary_distances(z[part], self.y[part], weights, biases, covariance)))
            for part in z
        }
        return BoundaryMeasure(
            title,
            "identity" if covariance is None else "measured",
            boundary.robustness_bound(means, covariance),
            boundary.approximate_robustness_bound(means, covariance),
            boundary.robustness_limit(squared_norm, len(means)),
            measured,
        )

    def maps(self, nb_points: int, seed: int) -> tuple[FeatureMap, ...]:
        """Test images and what became of them, by PCA and t-SNE; none of features in one dimension."""
        shown = np.sort(np.random.default_rng(seed).permutation(len(self.y[TEST]))[:nb_points])
        if self.z[TEST].shape[1] < 2 or len(shown) < 3:
            return ()
        points = self.z[TEST][shown], self.y[TEST][shown], self.z[ADVERSARIAL][shown], self.centers
        return tuple(map_features(*points, method, seed=seed) for method in ("pca", "tsne"))
