"""
Features of inputs, the centers and weights of a head, and the checks that the measurements share.
"""

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import as_array, check_type, whole
from art_mmc.detectors import network_outputs
from art_mmc.heads import DistanceHead, LinearHead, ReversedLinearHead


class FeatureError(ValueError):
    """
    Features that a measurement cannot be taken of: too few of a class, all the same, too narrow.
    """


def features_and_logits(
    classifier: PyTorchClassifier, x: np.ndarray, layer: int | str | None = None, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """
    The output of a layer and the network's logits, from one pass that leaves no trace.

    :param classifier: Any ART `PyTorchClassifier`.
    :param x: Inputs (N, ...).
    :param layer: Name of any module of the network or index of a direct child; None for the features that the head of a
           :class:`.LossDefendedClassifier` reads.
    :param batch_size: Samples in one forward pass.
    :return: Features (N, d), float64, what comes after the first axis flattened, and logits (N, K), float32.
    :raises ValueError: For bad inputs, or a layer that is not there.
    :raises FloatingPointError: When features or logits are not finite.
    """
    outputs = network_outputs(classifier, x, layer, batch_size)
    z, logits = np.asarray(outputs.features, np.float64), outputs.logits
    if not (np.isfinite(z).all() and np.isfinite(logits).all()):
        raise FloatingPointError(
            "the network's features or logits are not finite: its training has diverged, or its weights are damaged."
        )
    return z, logits


def check_features(z: np.ndarray, y: np.ndarray, name: str = "z") -> tuple[np.ndarray, np.ndarray]:
    """Features (N, d), finite, as float64, and classes (N,) as int64; ValueError for what does not fit."""
    z, y = as_array(name, z), np.asarray(y)
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"{name}: expected features (N, d) with N and d of at least 1, got shape {z.shape}.")
    if y.shape != (len(z),):
        raise ValueError(f"y: expected {len(z)} class indices (N,), one for each of {name}, got shape {y.shape}.")
    if not np.isfinite(z).all():
        bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
        raise ValueError(f"{name}: {len(bad)} of {len(z)} features are NaN or infinite (first: {bad[0]}).")
    if y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(f"y: expected class indices, whole numbers from 0, got {y[:5].tolist()} ({y.dtype}).")
    return z.astype(np.float64, copy=False), y.astype(np.int64, copy=False)


def check_reference(
    z: np.ndarray, y: np.ndarray, reference: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Checked features and classes, and those of at least two classes that they are measured against, or themselves."""
    z, y = check_features(z, y)
    z_ref, y_ref = (z, y) if reference is None else check_features(*reference, name="reference")
    if z_ref.shape[1] != z.shape[1]:
        raise ValueError(f"z has features of width {z.shape[1]}, the reference of width {z_ref.shape[1]}.")
    classes = np.unique(y_ref)
    if len(classes) < 2:
        raise FeatureError(f"expected features of at least two classes, got class {classes[0]} only.")
    missing = np.setdiff1d(y, classes)
    if len(missing):
        raise FeatureError(f"the reference has no features of class {missing[0]}, which y has.")
    return z, y, z_ref, y_ref


def class_means(z: np.ndarray, y: np.ndarray, nb_classes: int | None = None) -> np.ndarray:
    """
    :param z: Features (N, d).
    :param y: Classes (N,).
    :param nb_classes: Number of classes K; None for the highest label plus one.
    :return: Mean feature of each class (K, d), float64; NaN for a class without features.
    :raises ValueError: As :func:`check_features`, or for labels above K - 1.
    """
    z, y = check_features(z, y)
    k = int(y.max()) + 1 if nb_classes is None else whole("nb_classes", nb_classes)
    if y.max() >= k:
        raise ValueError(f"y has class {y.max()}, but there are {k} classes.")
    count = np.bincount(y, minlength=k)
    means = np.full((k, z.shape[1]), np.nan)
    for label in np.flatnonzero(count):
        means[label] = z[y == label].mean(axis=0)
    return means


def _head(classifier: PyTorchClassifier) -> torch.nn.Module | None:
    check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
    return getattr(classifier.model, "head", None)


def head_centers(classifier: PyTorchClassifier) -> np.ndarray:
    """
    The class centers that a head holds: fixed (MMC, MMLDA), trained (L-GM) or tracked (center loss).

    :param classifier: A classifier whose network has a `head`.
    :return: Centers (K, d), float64.
    :raises ValueError: For a head without centers.
    """
    head = _head(classifier)
    centers = getattr(head, "centers", None)
    if not isinstance(centers, torch.Tensor):
        raise ValueError(
            f"the network's head ({type(head).__name__}) has no centers: use the class means of its features, "
            "class_means(z, y)."
        )
    return centers.detach().cpu().double().numpy()


def head_weights(classifier: PyTorchClassifier) -> tuple[np.ndarray, np.ndarray]:
    """
    The linear functions `w_k . z + b_k` whose largest is a head's decision. For distances to centers they are
    `mu_k . z - ||mu_k||^2 / 2`, what all classes share left out.

    :param classifier: A classifier whose network has one of this package's heads.
    :return: Weights (K, d) and biases (K,), float64.
    :raises ValueError: For another head.
    """
    head = _head(classifier)
    if isinstance(head, DistanceHead):
        centers = head_centers(classifier)
        return centers, -0.5 * np.square(centers).sum(axis=1)
    if isinstance(head, LinearHead):
        sign = -1.0 if isinstance(head, ReversedLinearHead) else 1.0
        weight, bias = (tensor.detach().cpu().double().numpy() for tensor in (head.linear.weight, head.linear.bias))
        return sign * weight, sign * bias
    raise ValueError(
        f"the boundaries of a {type(head).__name__} are not known to be linear: use lda_boundaries with the class "
        "means of its features."
    )
