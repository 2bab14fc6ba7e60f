"""
Distances to the decision boundaries of linear discriminant analysis: the robustness measure of the MMLDA paper.

| Paper link: https://arxiv.org/abs/1802.09308 (Section 3)
"""

from typing import Any

import numpy as np

from art_mmc.checks import as_array, number, whole
from art_mmc.theory.features import FeatureError, check_features, check_reference, class_means


def expected_boundary_distance(delta: Any) -> np.ndarray:
    """
    The expected distance of a sample of one Gaussian to the boundary between it and another of the same covariance and
    weight, `E[d] = sqrt(2 / pi) exp(-delta^2 / 8) + (delta / 2) (1 - 2 Phi(-delta / 2))`: the mean of |N(delta / 2,
    1)|.

    | Paper link: https://arxiv.org/abs/1802.09308 (Theorem 1)

    :param delta: Mahalanobis distance of the two means, not negative; a number or an array.
    :return: The expected Mahalanobis distance, of the shape of `delta`; above delta / 2, and next to it when delta is
             large.
    :raises ValueError: For negative or non-finite distances.
    """
    from scipy.special import ndtr

    delta = as_array("delta", delta, float)
    if not (np.isfinite(delta) & (delta >= 0)).all():
        raise ValueError("delta: expected finite distances, none negative.")
    return np.sqrt(2 / np.pi) * np.exp(-np.square(delta) / 8) + delta / 2 * (1 - 2 * ndtr(-delta / 2))


def mahalanobis_distances(means: np.ndarray, covariance: np.ndarray | None = None) -> np.ndarray:
    """
    :param means: Class means (L, d), L >= 2, finite.
    :param covariance: Covariance (d, d) that all classes share, positive definite; None for the identity.
    :return: Distances (L, L) of the means.
    :raises ValueError: For what does not fit.
    """
    from scipy.spatial.distance import cdist

    means = _check_means(means)
    if covariance is not None:
        means = np.linalg.solve(_cholesky(covariance, means.shape[1]), means.T).T
    return cdist(means, means)


def robustness_bound(means: np.ndarray, covariance: np.ndarray | None = None) -> float:
    """
    The MMLDA paper's robustness measure RB: the smallest, over pairs of classes, of the expected distance of a sample
    to the boundary between them.

    | Paper link: https://arxiv.org/abs/1802.09308 (Section 3.1)

    :param means: Class means (L, d), L >= 2.
    :param covariance: Covariance (d, d) that all classes share; None for the identity.
    :return: RB.
    """
    distances = mahalanobis_distances(means, covariance)
    return float(expected_boundary_distance(_smallest(distances)))


def approximate_robustness_bound(means: np.ndarray, covariance: np.ndarray | None = None) -> float:
    """
    Half the smallest distance of two class means, which RB comes down to when the classes are far apart.

    | Paper link: https://arxiv.org/abs/1802.09308 (Section 3.1)

    :param means: Class means (L, d), L >= 2.
    :param covariance: Covariance (d, d) that all classes share; None for the identity.
    :return: The approximation of RB, at most :func:`robustness_limit`.
    """
    return _smallest(mahalanobis_distances(means, covariance)) / 2


def robustness_limit(squared_norm: float, nb_classes: int) -> float:
    """
    The largest :func:`approximate_robustness_bound` that means of squared norm C or less can have under the identity as
    covariance: `sqrt(L C / (2 (L - 1)))`, reached by the Max-Mahalanobis centers (inner products -C / (L - 1)) and by
    no others.

    | Paper link: https://arxiv.org/abs/1802.09308 (Theorem 2)

    :param squared_norm: C, the largest squared norm of a mean; not negative.
    :param nb_classes: Number of classes L, at least 2.
    :return: The limit.
    :raises ValueError: When an argument is out of range.
    """
    number("squared_norm", squared_norm, ends="[)")
    whole("nb_classes", nb_classes, 2)
    return float(np.sqrt(nb_classes * squared_norm / (2 * (nb_classes - 1))))


def _smallest(distances: np.ndarray) -> float:
    return float(distances[~np.eye(len(distances), dtype=bool)].min())


def _check_means(means: np.ndarray) -> np.ndarray:
    means = as_array("means", means, float)
    if means.ndim != 2 or len(means) < 2 or means.shape[1] < 1:
        raise ValueError(f"means: expected shape (L, d) with at least two classes, got {means.shape}.")
    if not np.isfinite(means).all():
        raise FeatureError("means: NaN or infinite values; is there a class without features?")
    return means


def _cholesky(covariance: np.ndarray, dim: int) -> np.ndarray:
    covariance = as_array("covariance", covariance, float, finite=True)
    if covariance.shape != (dim, dim):
        raise ValueError(f"covariance: expected shape ({dim}, {dim}), got {covariance.shape}.")
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covariance: not positive definite; within_class_covariance gives one that is, by shrinkage."
        ) from None


def within_class_covariance(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """
    The covariance of features about their class means, all classes together, shrunk towards a multiple of the identity
    as far as their number asks for (Ledoit and Wolf), so that it can be inverted.

    | Paper link: https://doi.org/10.1016/S0047-259X(03)00096-4 (the shrinkage)

    :param z: Features (N, d).
    :param y: Classes (N,), at least two of them.
    :return: Covariance (d, d).
    :raises ValueError: For what does not fit.
    :raises FeatureError: For features that are all at their class means.
    """
    from sklearn.covariance import ledoit_wolf

    z, y, _, _ = check_reference(z, y, None)
    residuals = z - class_means(z, y)[y]
    if not residuals.any():
        raise FeatureError("all features lie at their class means: there is no covariance within the classes.")
    return ledoit_wolf(residuals, assume_centered=True)[0]


def lda_boundaries(means: np.ndarray, covariance: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    The linear functions of linear discriminant analysis with equal priors, `mu_k' S^-1 z - mu_k' S^-1 mu_k / 2`; the
    boundary between two classes is where theirs are equal.

    :param means: Class means (L, d).
    :param covariance: Covariance S (d, d) that all classes share; None for the identity.
    :return: Weights (L, d) and biases (L,).
    :raises ValueError: For what does not fit.
    """
    means = _check_means(means)
    weights = means
    if covariance is not None:
        root = _cholesky(covariance, means.shape[1])
        weights = np.linalg.solve(root.T, np.linalg.solve(root, means.T)).T
    return weights, -0.5 * (weights * means).sum(axis=1)


def boundary_distances(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, biases: np.ndarray, covariance: np.ndarray | None = None
) -> np.ndarray:
    """
    Signed distances of features to the boundaries between their class and each other one, where `w_k . z + b_k` of the
    two are equal: positive on the right side.

    :param z: Features (N, d).
    :param y: True classes (N,).
    :param weights: (K, d), of a head (:func:`.head_weights`) or of :func:`lda_boundaries`.
    :param biases: (K,).
    :param covariance: For Mahalanobis distances, as in the MMLDA paper; None for Euclidean ones.
    :return: (N, K); infinity in the column of the sample's own class, so that `.min(axis=1)` is the nearest boundary.
    :raises ValueError: For what does not fit, or two classes of equal weights, which no hyperplane parts.
    """
    from scipy.spatial.distance import cdist

    z, y = check_features(z, y)
    weights, biases = as_array("weights", weights, float, finite=True), as_array("biases", biases, float, finite=True)
    if weights.ndim != 2 or weights.shape[1] != z.shape[1] or biases.shape != (len(weights),):
        raise ValueError(
            f"expected weights (K, {z.shape[1]}) and biases (K,), got shapes {weights.shape} and {biases.shape}."
        )
    nb_classes = len(weights)
    if nb_classes < 2 or y.max() >= nb_classes:
        raise ValueError(f"expected weights of at least {max(2, y.max() + 1)} classes, got {nb_classes}.")
    # ||w_i - w_j|| in the norm of the covariance is the length of the difference in these coordinates
    rows = weights if covariance is None else weights @ _cholesky(covariance, z.shape[1])
    lengths = cdist(rows, rows)
    np.fill_diagonal(lengths, 1.0)
    if not lengths.all():
        i, j = np.argwhere(lengths == 0)[0]
        raise ValueError(f"classes {i} and {j} have the same weights: no hyperplane is their boundary.")
    scores = z @ weights.T + biases
    distances = (scores[np.arange(len(z)), y][:, None] - scores) / lengths[y]
    distances[np.arange(len(z)), y] = np.inf
    return distances


def mean_boundary_distances(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, biases: np.ndarray, covariance: np.ndarray | None = None
) -> np.ndarray:
    """
    What :func:`expected_boundary_distance` predicts, measured: the mean unsigned distance of the features of class i to
    the boundary with class j.

    :param z: Features (N, d).
    :param y: True classes (N,).
    :param weights: As in :func:`boundary_distances`.
    :param biases: As in :func:`boundary_distances`.
    :param covariance: As in :func:`boundary_distances`.
    :return: (K, K); NaN on the diagonal and in the rows of classes without features. `np.nanmin` is the measured RB.
    """
    distances = np.abs(boundary_distances(z, y, weights, biases, covariance))
    nb_classes = distances.shape[1]
    result = np.full((nb_classes, nb_classes), np.nan)
    for label in np.unique(y):
        result[label] = distances[np.asarray(y) == label].mean(axis=0)
    np.fill_diagonal(result, np.nan)
    return result
