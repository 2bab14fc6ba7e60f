"""
Sample density in feature space: what the MMC paper says that its loss raises, as theorems and as measurements.

`SD(z) = dN / Vol(dB)` (Equation 2): the number of training features in a small neighbourhood of z over its volume. The
paper's neighbourhood is the shell between two contours of the loss, C and C + dC.

| Paper link: https://arxiv.org/abs/1905.10626 (Sections 3.1 to 3.3)
"""

import math
from typing import Any

import numpy as np

from art_mmc.checks import as_array, check_name, number, whole
from art_mmc.theory.features import FeatureError, check_reference, class_means

#: the two readings of the theorems; see :func:`density_exponent`
EXPONENTS = ("derived", "printed")


def density_exponent(dim: int, exponent: str = "derived") -> float:
    """
    The power of the squared radius by which the density of a contour shell falls.

    "printed" is the paper's (d - 1) / 2, Equations 7 and 9: the surface of a sphere. "derived" is (d - 2) / 2, the
    volume between the contours C and C + dC: a sphere of squared radius r^2 = 2 C grows by dr = dC / r, so that its
    shell has volume surface * dC / r. The two differ by the factor r. The printed one makes the density of uniformly
    spread features fall with the radius; use the derived one to measure.

    :param dim: Dimension d of the features.
    :param exponent: "derived" or "printed".
    :return: The exponent.
    :raises ValueError: For another name, or a dimension below 1.
    """
    check_name("exponent", exponent, EXPONENTS)
    whole("dim", dim)
    return (dim - 2) / 2 if exponent == "derived" else (dim - 1) / 2


def contour_sphere(
    loss: Any,
    mu: np.ndarray,
    mu_other: np.ndarray,
    s: float,
    s_other: float,
    bias: float = 0.0,
    bias_other: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Theorem 1's contour: where the two-class loss `log(1 + exp(h_other - h))` of a g-SCE network is C, with
    `h = -s ||z - mu||^2 + bias` for the true class and `h_other` likewise for the likeliest other one. It is a sphere
    around `(s mu - s_other mu_other) / (s - s_other)`.

    As C falls to 0 the sphere vanishes if `s > s_other` and grows without bound if `s < s_other`: a lower loss does not
    gather the features.

    | Paper link: https://arxiv.org/abs/1905.10626 (Theorem 1)

    :param loss: C, positive; a number or an array.
    :param mu: Center of the true class (d,).
    :param mu_other: Center of the other class (d,).
    :param s: Precision of the true class, Sigma = s I, positive.
    :param s_other: Precision of the other class, positive.
    :param bias: B of the true class.
    :param bias_other: B of the other class.
    :return: Center (d,) and squared radius, of the shape of `loss`; where it is negative, no feature has that loss.
    :raises ValueError: When `s` equals `s_other` (SCE, MMLDA): the contour is a hyperplane, which has no radius.
    """
    loss, mu, mu_other = (
        _losses(loss),
        as_array("mu", mu, float, finite=True),
        as_array("mu_other", mu_other, float, finite=True),
    )
    if mu.ndim != 1 or mu.shape != mu_other.shape:
        raise ValueError(f"mu and mu_other: expected two vectors (d,), got shapes {mu.shape} and {mu_other.shape}.")
    s, s_other = number("s", s), number("s_other", s_other)
    bias, bias_other = number("bias", bias, -math.inf), number("bias_other", bias_other, -math.inf)
    if s == s_other:
        raise ValueError(f"s = s_other = {s}: the contours are hyperplanes, not spheres, and unbounded.")
    gap = s - s_other
    center = (s * mu - s_other * mu_other) / gap
    offset = s * s_other * np.square(mu - mu_other).sum() / gap**2 + (bias - bias_other) / gap
    return center, offset + np.log(np.expm1(loss)) / gap


def g_sce_log_density(
    loss: Any,
    log_mass: Any,
    mu: np.ndarray,
    mu_other: np.ndarray,
    s: float,
    s_other: float,
    bias: float = 0.0,
    bias_other: float = 0.0,
    exponent: str = "derived",
) -> np.ndarray:
    """
    Theorem 1: the sample density of a g-SCE network on the contour of a loss, as :func:`contour_sphere` has it.

    With r^2 the squared radius and S_d the surface of the unit sphere, "printed" is `N p(C) / (S_d (r^2)^((d - 1) /
    2))`. "derived" divides by the shell's volume for a unit of loss, `S_d / 2 (r^2)^((d - 2) / 2) |d r^2 / dC|` with
    `d r^2 / dC = e^C / ((e^C - 1) (s - s_other))`, and is a density in the unit of the features.

    | Paper link: https://arxiv.org/abs/1905.10626 (Equation 7)

    :param loss: C, positive; a number or an array.
    :param log_mass: log(N p(C)): the number of features times the density of their losses at C; a number or of the
           shape of `loss`.
    :param mu: Center of the true class (d,).
    :param mu_other: Center of the other class (d,).
    :param s: Precision of the true class.
    :param s_other: Precision of the other class.
    :param bias: B of the true class.
    :param bias_other: B of the other class.
    :param exponent: "derived" or "printed"; see :func:`density_exponent`.
    :return: log SD, of the shape of `loss`.
    :raises ValueError: As :func:`contour_sphere`; where no feature has such a loss.
    """
    loss = _losses(loss)
    center, squared_radius = contour_sphere(loss, mu, mu_other, s, s_other, bias, bias_other)
    if (squared_radius <= 0).any():
        raise ValueError(f"no feature has the loss {loss[squared_radius <= 0].flat[0]:g}: its contour is empty.")
    log_growth = -np.log(-np.expm1(-loss)) - math.log(abs(s - s_other))
    return as_array("log_mass", log_mass) - _log_shell(squared_radius, log_growth, len(center), exponent)


def mmc_log_density(loss: Any, log_mass: Any, dim: int, exponent: str = "derived") -> np.ndarray:
    """
    Theorem 2: the sample density under the MMC loss `C = ||z - mu_y||^2 / 2`, whose contour is a sphere of squared
    radius 2 C around the center, so that a lower loss means a higher density.

    "printed" is `N_k p_k(C) / (S_d (2 C)^((d - 1) / 2))` with S_d the surface of the unit sphere; "derived" `N_k p_k(C)
    / (S_d (2 C)^((d - 2) / 2))`, which is a density in the unit of the features.

    | Paper link: https://arxiv.org/abs/1905.10626 (Equation 9)

    :param loss: C, positive; a number or an array.
    :param log_mass: log(N_k p_k(C)): the number of features of the class times the density of their losses at C.
    :param dim: Dimension d of the features.
    :param exponent: "derived" or "printed"; see :func:`density_exponent`.
    :return: log SD, of the shape of `loss`.
    """
    loss = _losses(loss)
    return as_array("log_mass", log_mass) - _log_shell(2 * loss, math.log(2), dim, exponent)


def _losses(loss: Any) -> np.ndarray:
    loss = as_array("loss", loss, float)
    if not (np.isfinite(loss) & (loss > 0)).all():
        raise ValueError("loss: expected positive, finite numbers.")
    return loss


def _log_shell(squared_radius: np.ndarray, log_growth: Any, dim: int, exponent: str) -> np.ndarray:
    """Log of what the theorems divide by; `log_growth` is log |d r^2 / dC|."""
    power = density_exponent(dim, exponent)
    log_surface = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    shell = log_surface + power * np.log(squared_radius)
    return shell - math.log(2) + log_growth if exponent == "derived" else shell


def feature_scale(z: np.ndarray, y: np.ndarray) -> float:
    """
    The mean distance between the class means. A density depends on the unit of length; features divided by this number
    have densities that can be compared between networks of one width.

    :param z: Features (N, d).
    :param y: Classes (N,), at least two of them.
    :return: The mean distance.
    :raises ValueError: For what does not fit.
    :raises FeatureError: For class means that coincide.
    """
    z, y, _, _ = check_reference(z, y, None)
    return float(_between(class_means(z, y), y).mean())


def compactness_ratio(z: np.ndarray, y: np.ndarray, reference: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """
    Mean squared distance of features to the mean of their class, over the mean squared distance between two class
    means: smaller is more compact, whatever the scale.

    :param z: Features (N, d).
    :param y: Classes (N,).
    :param reference: Features and classes that the means are taken from, the training set's, say; None for `z`, `y`.
    :return: The ratio.
    :raises ValueError: For what does not fit.
    :raises FeatureError: For class means that coincide.
    """
    z, y, z_ref, y_ref = check_reference(z, y, reference)
    means = class_means(z_ref, y_ref)
    between = float(np.square(_between(means, y_ref)).mean())
    return float(np.square(z - means[y]).sum(axis=1).mean()) / between


def _between(means: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distances between the means of the classes that there are."""
    from scipy.spatial.distance import pdist

    distances = pdist(means[np.unique(y)])
    if not distances.any():
        raise FeatureError("the class means coincide: the features do not tell the classes apart.")
    return distances


def contour_shell_density(
    z: np.ndarray,
    y: np.ndarray,
    centers: np.ndarray | None = None,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
    exponent: str = "derived",
) -> np.ndarray:
    """
    Theorem 2 measured: how densely the reference features lie on the shell around the center that z is on.

    With `C_i = ||z_i - mu_k||^2 / 2` of the features of class k, `log SD = log N_k + log p_k(C) - log S_d - ((d - 2) /
    2) log(2 C)`. p_k comes from a Gaussian kernel density of log C (Scott's bandwidth), which has no edge at 0. The
    density is a mean over the shell: exact where it depends on the distance to the center alone.

    :param z: Features (N, d).
    :param y: Classes (N,).
    :param centers: Centers (K, d), the head's for MMC; None for the means of the reference's classes.
    :param reference: Features (M, d) and classes (M,) that are counted, the training set's; None for `z` and `y`.
    :param exponent: "derived" or "printed"; see :func:`density_exponent`.
    :return: log SD (N,), natural logarithm, for the unit of z.
    :raises ValueError: For what does not fit.
    :raises FeatureError: For features on their center, a class with fewer than two features, or with all of them
            equally far from it.
    """
    from scipy.stats import gaussian_kde

    density_exponent(1, exponent)
    z, y, z_ref, y_ref = check_reference(z, y, reference)
    if centers is None:
        centers = class_means(z_ref, y_ref)
    centers = as_array("centers", centers, float, finite=True)
    if centers.ndim != 2 or centers.shape[1] != z.shape[1] or len(centers) <= max(y.max(), y_ref.max()):
        raise ValueError(
            f"centers: expected shape ({max(y.max(), y_ref.max()) + 1}, {z.shape[1]}), got {centers.shape}."
        )
    result = np.empty(len(z))
    for k in np.unique(y):
        ours = y == k
        c, c_ref = (0.5 * np.square(f - centers[k]).sum(axis=1) for f in (z[ours], z_ref[y_ref == k]))
        if len(c_ref) < 2 or np.ptp(c_ref) <= 1e-9 * c_ref.max():
            raise FeatureError(
                f"class {k} has {len(c_ref)} reference features, all equally far from the center: expected at least 2 "
                "at different distances."
            )
        on_center = int((c == 0).sum() + (c_ref == 0).sum())
        if on_center:
            raise FeatureError(f"{on_center} features of class {k} lie on the center itself: a shell without volume.")
        # the density of C from that of log C
        log_mass = math.log(len(c_ref)) + gaussian_kde(np.log(c_ref)).logpdf(np.log(c)) - np.log(c)
        result[ours] = mmc_log_density(c, log_mass, z.shape[1], exponent)
    return result


def knn_density(
    z: np.ndarray,
    y: np.ndarray,
    k: int = 10,
    dim: int | None = None,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """
    Equation 2 measured for any loss: the neighbourhood is the ball around z that reaches to the k-th nearest reference
    feature of its class, z itself not counted.

    `log SD = psi(k) - d' log r_k(z) - log V_d'` with V_d' the volume of the unit ball; psi (digamma) stands where a
    fixed ball has log k, since the mean of the logarithm is then right. In the 64 to 256 dimensions of a network's
    features neighbours say nothing, so distances are taken in the d' leading principal components of the features about
    their class means, the same ones for all classes.

    :param z: Features (N, d).
    :param y: Classes (N,).
    :param k: Number of neighbours, at least 1.
    :param dim: d', from 1 to d; None for 5, or d where that is less.
    :param reference: Features (M, d) and classes (M,) that are counted, the training set's; None for `z` and `y`, each
           feature without itself.
    :return: log SD (N,), natural logarithm, for the unit of z: features in a unit volume of dimension d'.
    :raises ValueError: For what does not fit.
    :raises FeatureError: For classes with fewer than k neighbours, k copies of one feature, `dim` above their width.
    """
    from scipy.special import digamma
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    z, y, z_ref, y_ref = check_reference(z, y, reference)
    dim = min(5, z.shape[1]) if dim is None else dim
    if whole("dim", dim) > z.shape[1]:
        raise FeatureError(f"dim: expected a whole number from 1 to {z.shape[1]}, the features' width, got {dim}.")
    whole("k", k)
    if len(z_ref) < dim:
        raise FeatureError(f"dim: expected at most {len(z_ref)}, the number of reference features, got {dim}.")
    means = class_means(z_ref, y_ref)
    # without their class means they vary within the classes only; the full solver draws no random numbers
    pca = PCA(dim, svd_solver="full").fit(z_ref - means[y_ref])
    points, reference_points = ((f - means[label]) @ pca.components_.T for f, label in ((z, y), (z_ref, y_ref)))
    own = 1 if reference is None else 0  # the nearest of all is the feature itself
    radii = np.empty(len(z))
    for label in np.unique(y):
        candidates = reference_points[y_ref == label]
        if len(candidates) - own < k:
            raise FeatureError(
                f"class {label} has {len(candidates)} reference features: expected at least {k + own} for k={k} "
                "neighbours; take more, or a smaller k."
            )
        neighbours = NearestNeighbors(n_neighbors=k + own).fit(candidates)
        radii[y == label] = neighbours.kneighbors(points[y == label])[0][:, -1]
    if (radii == 0).any():
        raise FeatureError(
            f"{(radii == 0).sum()} of {len(z)} features have {k} copies among the reference's: the density is "
            "infinite; take a larger k, or look whether the network's features have collapsed."
        )
    log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    return float(digamma(k)) - dim * np.log(radii) - log_ball


def binned(loss: np.ndarray, values: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """For bins of as many samples, by their losses (N,): middle quantile of the losses and median of the values."""
    parts = [part for part in np.array_split(np.argsort(loss, kind="stable"), bins) if len(part)]
    ends = np.cumsum([0, *map(len, parts)]) / len(loss)
    return (ends[:-1] + ends[1:]) / 2, np.array([np.median(values[part]) for part in parts])
