"""
Features in the plane: principal components and t-SNE, clean and adversarial points, with the class centers.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from art_mmc.checks import as_array, check_name, check_seed, number
from art_mmc.theory.features import FeatureError, check_features

MAPS = ("pca", "tsne")


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """
    Features in the plane.

    :param method: "pca" or "tsne".
    :param points: Clean features (N, 2).
    :param y: Their true classes (N,).
    :param adversarial: Features of adversarial examples of the same inputs (N, 2), or None.
    :param centers: Class centers (K, 2), or None.
    :param explained: Share of the clean features' variance that each axis holds, for "pca"; None for "tsne".
    """

    method: str
    points: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    adversarial: np.ndarray | None = field(repr=False)
    centers: np.ndarray | None = field(repr=False)
    explained: tuple[float, float] | None = None


def map_features(
    z: np.ndarray,
    y: np.ndarray,
    z_adversarial: np.ndarray | None = None,
    centers: np.ndarray | None = None,
    method: str = "pca",
    *,
    perplexity: float = 30.0,
    seed: int = 0,
) -> FeatureMap:
    """
    Map features to the plane.

    "pca" finds the two leading principal components of the clean features and projects everything by them, so that
    distances and directions keep their meaning. "tsne" embeds points and centers together, since it is no map that
    could be applied to more points: there only neighbourhoods mean something.

    :param z: Clean features (N, d), d >= 2, N >= 3.
    :param y: True classes (N,).
    :param z_adversarial: Features (N, d) of adversarial examples of the same inputs; None for none.
    :param centers: Class centers (K, d); None for none.
    :param method: "pca" or "tsne".
    :param perplexity: Of t-SNE, about the number of neighbours that count; less where there are few points.
    :param seed: Of t-SNE.
    :return: The map.
    :raises ValueError: For what does not fit.
    :raises FeatureError: For clean features that are all the same.
    """
    check_name("method", method, MAPS)
    number("perplexity", perplexity)
    check_seed(seed)
    z, y = check_features(z, y)
    if z.shape[0] < 3 or z.shape[1] < 2:
        raise ValueError(f"z: expected at least 3 features of width 2 or more, got shape {z.shape}.")
    if not np.ptp(z, axis=0).any():
        raise FeatureError("all clean features are the same: there is nothing to map.")
    if z_adversarial is not None:
        z_adversarial, _ = check_features(z_adversarial, y, name="z_adversarial")
    if centers is not None:
        centers = as_array("centers", centers)
        centers, _ = check_features(centers, np.arange(len(centers)) if centers.ndim else y, name="centers")
    given = {"points": z, "adversarial": z_adversarial, "centers": centers}
    parts = {name: part for name, part in given.items() if part is not None}
    widths = [part.shape[1] for part in parts.values()]
    if len(set(widths)) > 1:
        raise ValueError(f"features and centers have different widths: {', '.join(map(str, widths))}.")
    explained = None
    if method == "pca":
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(z)
        mapped = [pca.transform(part) for part in parts.values()]
        share = pca.explained_variance_ratio_
        explained = (float(share[0]), float(share[1]))
    else:
        from sklearn.manifold import TSNE

        together = np.concatenate(list(parts.values()))
        tsne = TSNE(perplexity=min(perplexity, (len(together) - 1) / 3), init="pca", random_state=seed)
        mapped = np.split(tsne.fit_transform(together), np.cumsum(list(map(len, parts.values())))[:-1])
    placed: dict[str, Any] = {**dict.fromkeys(given), **dict(zip(parts, mapped, strict=True))}
    return FeatureMap(method, y=y, explained=explained, **placed)
