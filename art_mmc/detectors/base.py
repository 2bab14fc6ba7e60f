"""
What all detectors share: features and logits of a classifier, fitting, the threshold, ART's contract.

A detector is a few lines: what it keeps of clean training data (`_fit`), and a differentiable score of features and
logits (`_scores`), larger = more suspicious.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final, overload

import numpy as np
import torch
from art.defences.detector.evasion import EvasionDetector
from art.estimators.classification import PyTorchClassifier
from sklearn.exceptions import NotFittedError
from torch import Tensor

from art_mmc.checks import as_array, check_inputs, check_labels, check_name, check_type, number, unknown_name, whole
from art_mmc.models.features import find_layer, logits_and_features, logits_network

#: pairs of a query and a reference feature that are in memory at once: 32 MiB a float64 array of them
_PAIRS = 2**22


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """
    What a network says about N inputs: all that a detector knows of them.

    :param logits: Logits (N, K), float32.
    :param features: Features (N, d), float32; None where only the logits were asked for.
    """

    logits: np.ndarray
    features: np.ndarray | None

    def __post_init__(self) -> None:
        shapes = [np.shape(each) for each in (self.logits, self.features) if each is not None]
        if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"logits, features: expected (N, K) and (N, d), got {', '.join(map(str, shapes))}.")

    @property
    def predictions(self) -> np.ndarray:
        """Predicted classes (N,)."""
        return self.logits.argmax(axis=1)

    def take(self, index: np.ndarray) -> NetworkOutputs:
        """
        :param index: Indices or mask of samples.
        :return: The outputs of these samples.
        """
        return NetworkOutputs(self.logits[index], None if self.features is None else self.features[index])


def network_outputs(
    classifier: PyTorchClassifier,
    x: np.ndarray,
    layer: int | str | None = None,
    batch_size: int = 128,
    with_features: bool = True,
) -> NetworkOutputs:
    """
    Logits and features of inputs, from one forward pass, without a trace on the network. Several detectors of one
    classifier can share them.

    :param classifier: The classifier.
    :param x: Inputs (N, ...).
    :param layer: As in :func:`find_layer`.
    :param batch_size: Samples in one forward pass.
    :param with_features: Whether the features are wanted.
    :return: The outputs.
    :raises ValueError: For bad inputs or an unknown layer.
    """
    check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
    whole("batch_size", batch_size)
    x = check_inputs(x, classifier, widths=10.0)  # as far outside as a prediction may look
    network = logits_network(classifier.model)
    module = find_layer(network, layer) if with_features else None
    logits, features = [], []
    with torch.no_grad():
        x, _ = classifier._apply_preprocessing(x.astype(np.float32, copy=False), y=None, fit=False)
        for start in range(0, len(x), batch_size):
            a, z = logits_and_features(
                network, torch.tensor(x[start : start + batch_size], device=classifier.device), module
            )
            logits.append(a.float().cpu().numpy())
            features += [] if z is None else [z.float().cpu().numpy()]
    return NetworkOutputs(np.concatenate(logits), np.concatenate(features) if features else None)


class ScoreDetector(EvasionDetector):
    """
    Base class: a score of each input, larger = more suspicious, and a threshold above which an input counts as
    adversarial.

    The threshold comes from clean data: with n scores of clean inputs it is the ceil((n + 1) (1 - rate))-th smallest,
    so that a fresh clean input, drawn like them, lies above it with a probability of at most `false_positive_rate`. The
    clean data are what `fit` is given as `x_calibration`, or else a share `holdout` of the fitting data, of each class
    alike, that the detector itself does not see. A network is surer of the images that it was trained on than of new
    ones: for a rate that holds on new images give `x_calibration` that the network has not seen.
    """

    defence_params = ["classifier", "layer", "false_positive_rate", "holdout", "seed"]

    #: name in tables and pictures; "" for that in the table of detectors
    title: ClassVar[str] = ""
    #: whether the score depends on features; if not, no layer is needed
    needs_features: ClassVar[bool] = True
    #: whether fitting needs labels, of every class
    needs_labels: ClassVar[bool] = True

    _tensors: dict[str, Tensor] | None  # what `_fit` kept; None before fitting
    _calibration: tuple[np.ndarray, np.ndarray]  # scores of clean data, ascending, and their predicted classes
    _width: int | None  # width of the features at fitting

    def __init__(
        self,
        classifier: PyTorchClassifier,
        layer: int | str | None = None,
        false_positive_rate: float = 0.05,
        holdout: float = 0.1,
        seed: int = 0,
    ) -> None:
        """
        Create a detector for a classifier. A subclass sets parameters of its own first: they are checked here.

        :param classifier: The trained classifier, a :class:`.LossDefendedClassifier` or any `PyTorchClassifier` whose
               network gives logits.
        :param layer: Where the features are: name of any module of the network, or index of a direct child. None for
               the embedding, which the networks of this package's classifiers have.
        :param false_positive_rate: Share of clean inputs that may be called adversarial, in (0, 1).
        :param holdout: Share of the fitting data, in (0, 1), that sets the threshold where no data are given for it.
        :param seed: Seed of that split and of all other draws.
        """
        super().__init__()
        self.classifier = classifier
        self.layer = layer
        self.false_positive_rate = false_positive_rate
        self.holdout = holdout
        self.seed = seed
        self._tensors, self._width = None, None
        #: which clean data the threshold was set on, in words
        self.calibrated_on = ""
        self._check_params()

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """
        What :meth:`_scores` needs, by name, learnt from clean data: features (N, d), of width 0 where the detector
        needs none, and logits (N, K), float64, and labels (N,), int64, predictions where none were given.
        """
        raise NotImplementedError

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        """
        Scores (B,), larger = more suspicious, differentiably, by what :meth:`_fit` gave, on the same device, of
        features (B, d), of width 0 where the detector needs none, and logits (B, K), float64, and the classes (B,),
        int64, that the inputs claim to be of: predicted ones, or an attacker's targets.
        """
        raise NotImplementedError

    def _pairs(self, fitted: dict[str, Tensor]) -> int:
        """How many reference features a query is compared with at once; what bounds the memory."""
        return 1

    @final
    def fit(  # type: ignore[override]
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        x_calibration: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Fit on clean training data, and set the threshold.

        :param x: Clean inputs (N, ...), of every class.
        :param y: Their labels: indices (N,) or one-hot (N, K). None where the detector needs none.
        :param batch_size: Samples in one forward pass.
        :param nb_epochs: Not used; part of ART's interface.
        :param x_calibration: Clean inputs (M, C, H, W) for the threshold; None for a held-out share of x.
        :param kwargs: None are known.
        :raises ValueError: For bad inputs or labels, a class without samples, a single class, unknown arguments, or too
                few clean samples for the false-positive rate.
        :raises FloatingPointError: When features or logits are not finite.
        """
        self._refuse(kwargs)
        if y is not None:  # before the work
            check_labels(np.asarray(y), self.classifier.nb_classes, length=len(as_array("x", x)))
        calibration = None if x_calibration is None else self.outputs(x_calibration, batch_size)
        self.fit_outputs(self.outputs(x, batch_size), y, calibration)

    @final
    def fit_outputs(
        self, outputs: NetworkOutputs, y: np.ndarray | None = None, calibration: NetworkOutputs | None = None
    ) -> None:
        """
        As :meth:`fit`, from what the network says about the inputs; several detectors can share it.

        :param outputs: The outputs of the clean training data.
        :param y: Their labels: indices (N,) or one-hot (N, K). None where the detector needs none.
        :param calibration: The outputs of clean data for the threshold; None for a held-out share.
        :raises ValueError: As in :meth:`fit`.
        :raises FloatingPointError: When features or logits are not finite.
        """
        check_type("outputs", outputs, NetworkOutputs, "NetworkOutputs")
        self._tensors, self._width = None, None
        nb_classes = outputs.logits.shape[1]
        labels = self._check_labels(outputs, y, nb_classes)
        self._as_tensors(outputs)  # refuses what is not finite, by its place in the data
        if calibration is None:
            held_out = self._split(labels)
            calibration = outputs.take(held_out)
            outputs, labels = outputs.take(~held_out), labels[~held_out]
            self.calibrated_on = f"{held_out.sum()} held-out samples of the {len(held_out)} fitting data"
        else:
            self.calibrated_on = f"{len(calibration.logits)} clean samples given for it"
        if self.needs_labels:
            empty = np.flatnonzero(np.bincount(labels, minlength=nb_classes) == 0)
            if len(empty):
                raise ValueError(
                    f"the fitting data have no samples of class {', '.join(map(str, empty))}: {type(self).__name__} "
                    f"needs some of each of the {nb_classes} classes."
                )
        z, logits = self._as_tensors(outputs)
        device = self.classifier.device
        with torch.no_grad():
            tensors = self._fit(
                z.to(device).double(), logits.to(device).double(), torch.as_tensor(labels, device=device)
            )
        self._tensors, self._width = tensors, z.shape[1]
        scores, predicted = self.score_outputs(calibration), calibration.predictions
        order = np.argsort(scores, kind="stable")
        self._calibration = (scores[order], predicted[order])
        try:
            self.threshold_at(self.false_positive_rate)
        except ValueError:
            self._tensors = None
            raise

    def _check_labels(self, outputs: NetworkOutputs, y: np.ndarray | None, nb_classes: int) -> np.ndarray:
        """Labels as indices (N,); the predictions stand in for them where none are needed."""
        if y is None:
            if self.needs_labels:
                raise ValueError(f"y is needed: {type(self).__name__} is fitted class by class.")
            return outputs.predictions
        labels = check_labels(np.asarray(y), nb_classes, length=len(outputs.logits))
        if self.needs_labels and len(np.unique(labels)) == 1:
            raise ValueError(
                f"the fitting data are all of class {labels[0]}: {type(self).__name__} needs samples of each of the "
                f"{nb_classes} classes."
            )
        return labels

    def _split(self, labels: np.ndarray) -> np.ndarray:
        """Mask (N,) of the samples that are held out: the same share of each class, at least one of a class stays."""
        rng = np.random.default_rng(self.seed)
        held_out = np.zeros(len(labels), bool)
        for each in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == each))
            held_out[members[: min(round(self.holdout * len(members)), len(members) - 1)]] = True
        if not held_out.any():
            raise ValueError(
                f"holdout={self.holdout:g} of {len(labels)} samples leaves none to set the threshold on: more data, or "
                "x_calibration, are needed."
            )
        return held_out

    @property
    def is_fitted(self) -> bool:
        """Whether the detector has been fitted."""
        return self._tensors is not None

    @property
    def threshold(self) -> float:
        """The score above which an input counts as adversarial."""
        return self.threshold_at(self.false_positive_rate)

    def threshold_at(self, false_positive_rate: float) -> float:
        """
        The threshold for another rate.

        :param false_positive_rate: Share of clean inputs that may be called adversarial, in (0, 1).
        :return: The threshold.
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For a rate out of range, or one so small that more clean samples are needed.
        """
        self._state()
        number("false_positive_rate", false_positive_rate, 0, 1)
        scores = self._calibration[0]
        # a product such as 100 * 0.95 must not be rounded up past the whole number that it stands for
        rank = math.ceil((len(scores) + 1) * (1 - false_positive_rate) - 1e-9)
        if rank > len(scores):
            raise ValueError(
                f"false_positive_rate={false_positive_rate:g} needs at least {math.ceil(1 / false_positive_rate) - 1} "
                f"clean samples to set the threshold on, there are {len(scores)}: give x_calibration, or a larger "
                "holdout or rate."
            )
        return float(scores[rank - 1])

    @property
    def spread(self) -> float:
        """Standard deviation of the clean scores, 1 where they are all the same: the unit of differences of scores."""
        self._state()
        return float(self._calibration[0].std()) or 1.0

    def typical_scores(self, classes: np.ndarray) -> np.ndarray:
        """
        Median scores of the clean data that the threshold was set on.

        :param classes: Classes (N,).
        :return: For each the median over the data predicted as that class, (N,); over all data for a class without any.
        """
        self._state()
        scores, predicted = self._calibration
        medians = {k: np.median(scores[predicted == k] if (predicted == k).any() else scores) for k in set(classes)}
        return np.array([medians[k] for k in classes])

    @final
    def detect(self, x: np.ndarray, batch_size: int = 128, **kwargs: Any) -> tuple[dict, np.ndarray]:
        """
        Say which inputs are adversarial.

        :param x: Inputs (N, ...).
        :param batch_size: Samples in one forward pass.
        :param kwargs: None are known.
        :return: A report with "scores" (N,), "threshold" and "predictions", the classifier's classes (N,); and whether
                 each score is above the threshold, bool (N,).
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For bad inputs, unknown arguments, or features of another width than at fitting.
        :raises FloatingPointError: When features or logits are not finite.
        """
        self._refuse(kwargs)
        threshold = self.threshold
        outputs = self.outputs(x, batch_size)
        scores = self.score_outputs(outputs)
        return {"scores": scores, "threshold": threshold, "predictions": outputs.predictions}, scores > threshold

    @overload
    def scores(self, x: np.ndarray, batch_size: int = 128) -> np.ndarray: ...

    @overload
    def scores(self, x: Tensor, batch_size: int = 128) -> Tensor: ...

    @final
    def scores(self, x: np.ndarray | Tensor, batch_size: int = 128) -> np.ndarray | Tensor:
        """
        Scores, larger = more suspicious.

        :param x: Inputs (N, ...); a tensor to get a tensor with its graph, computed in one pass.
        :param batch_size: Samples in one forward pass, for an array.
        :return: Scores (N,), float64.
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For bad inputs, or features of another width than at fitting.
        :raises FloatingPointError: For an array, when features or logits are not finite.
        """
        if not isinstance(x, Tensor):
            self._state()
            return self.score_outputs(self.outputs(x, batch_size))
        return self.score_tensors(*self.forward(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """
        Logits and features of a batch from one pass in evaluation mode.

        :param x: Inputs (B, C, H, W).
        :return: Logits (B, K), and features (B, d) or None where the detector needs none; with graph.
        """
        classifier = self.classifier
        x = x.to(classifier.device)
        if classifier.preprocessing_operations:
            if not classifier.all_framework_preprocessing:
                raise NotImplementedError("Tensors as inputs need preprocessing that is all in PyTorch.")
            x, _ = classifier._apply_preprocessing(x, y=None, fit=False, no_grad=False)
        layer = find_layer(self.network, self.layer) if self.needs_features else None
        return logits_and_features(self.network, x, layer)

    def score_tensors(self, logits: Tensor, z: Tensor | None, classes: Tensor | None = None) -> Tensor:
        """
        Scores of what :meth:`forward` gave, with graph.

        :param logits: Logits (B, K).
        :param z: Features (B, d), or None where the detector needs none.
        :param classes: Classes (B,) that the inputs claim to be of; None for the predicted ones. Classes on the CPU
               save the wait for a GPU.
        :return: Scores (B,), float64, larger = more suspicious.
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For features of another width than at fitting.
        """
        fitted = {name: tensor.to(logits.device) for name, tensor in self._state().items()}
        classes = logits.argmax(dim=1) if classes is None else classes
        z = logits.new_zeros(len(logits), 0) if z is None or not self.needs_features else z
        if classes.shape != (len(logits),) or z.ndim != 2:
            shapes = tuple(classes.shape), tuple(z.shape)
            raise ValueError(f"classes, z: expected {len(logits)} classes (B,) and features (B, d), got {shapes}.")
        if z.shape[1] != self._width:
            raise ValueError(
                f"features have width {z.shape[1]}, the detector was fitted on features of width {self._width}: the "
                "network or the layer has changed since; fit it again."
            )
        return self._scores(fitted, z.double(), logits.double(), classes)

    @final
    def score_outputs(self, outputs: NetworkOutputs) -> np.ndarray:
        """
        Scores from what the network says about the inputs; several detectors can share it.

        :param outputs: The outputs.
        :return: Scores (N,), float64, larger = more suspicious.
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For features of another width than at fitting.
        :raises FloatingPointError: When features or logits are not finite.
        """
        check_type("outputs", outputs, NetworkOutputs, "NetworkOutputs")
        rows = max(1, _PAIRS // max(1, self._pairs(self._state())))
        z, logits = self._as_tensors(outputs)
        device = self.classifier.device
        # in the order of the predicted classes: a chunk then meets few classes' references
        order = torch.from_numpy(np.argsort(outputs.predictions, kind="stable"))
        scores = torch.empty(len(logits), dtype=torch.float64)
        with torch.no_grad():
            for index in order.split(rows):
                scores[index] = self.score_tensors(logits[index].to(device), z[index].to(device)).cpu()
        if not torch.isfinite(scores).all():
            raise FloatingPointError(
                f"{type(self).__name__}: scores that are not finite; features of enormous size? "
                f"(largest: {z.abs().max() if z.numel() else 0:g})"
            )
        return scores.numpy()

    @final
    def outputs(self, x: np.ndarray, batch_size: int = 128) -> NetworkOutputs:
        """
        What the detector needs to know of inputs.

        :param x: Inputs (N, ...).
        :param batch_size: Samples in one forward pass.
        :return: Logits, and features if the detector needs them.
        :raises ValueError: For bad inputs or an unknown layer.
        """
        return network_outputs(self.classifier, x, self.layer, batch_size, self.needs_features)

    @property
    def network(self) -> torch.nn.Module:
        """The classifier's network, (B, C, H, W) -> logits (B, K)."""
        return logits_network(self.classifier.model)

    def _as_tensors(self, outputs: NetworkOutputs) -> tuple[Tensor, Tensor]:
        """Features, of width 0 where none are needed, and logits, as they are but checked; on the CPU."""
        if self.needs_features and outputs.features is None:
            raise ValueError(f"{type(self).__name__} needs features, the outputs hold none.")
        features = outputs.features if self.needs_features else np.empty((len(outputs.logits), 0), np.float32)
        for name, array in (("features", features), ("logits", outputs.logits)):
            assert array is not None
            bad = ~np.isfinite(array).all(axis=1)
            if bad.any():
                raise FloatingPointError(
                    f"the network's {name} are not finite for {bad.sum()} of {len(array)} samples (first: "
                    f"{bad.argmax()}): its training has diverged, or its weights are damaged."
                )
        return torch.from_numpy(np.asarray(features)), torch.from_numpy(outputs.logits)

    def _state(self) -> dict[str, Tensor]:
        if self._tensors is None:
            raise NotFittedError(
                f"this {type(self).__name__} has not been fitted: call fit(x, y) with clean training data first."
            )
        return self._tensors

    def _refuse(self, kwargs: dict[str, Any]) -> None:
        for name in kwargs:
            raise unknown_name("argument", name, ["x", "y", "batch_size", "nb_epochs", "x_calibration"])

    @final
    def set_params(self, **kwargs: Any) -> None:
        """
        Set parameters by name. A new `false_positive_rate` moves the threshold; any other change needs a new
        :meth:`fit`.

        :param kwargs: Parameters by name; see `defence_params`.
        :raises ValueError: For an unknown name or a value out of range; nothing is changed then.
        """
        for name in kwargs:
            check_name("parameter", name, self.defence_params)
        before = dict(self.__dict__)
        try:
            super().set_params(**kwargs)
            if kwargs.keys() - {"false_positive_rate"}:
                self._tensors, self._width = None, None
            elif kwargs and self.is_fitted:
                self.threshold_at(self.false_positive_rate)
        except Exception:
            self.__dict__.update(before)
            raise

    def _check_params(self) -> None:
        check_type("classifier", self.classifier, PyTorchClassifier, "an ART PyTorchClassifier")
        if self.needs_features:
            find_layer(self.network, self.layer)
        number("false_positive_rate", self.false_positive_rate, 0, 1)
        number("holdout", self.holdout, 0, 1)
        whole("seed", self.seed, 0)

    def __getstate__(self) -> dict[str, Any]:
        """All that pickle needs; tensors on the CPU."""
        tensors = self._tensors
        return {**self.__dict__, "_tensors": tensors and {name: tensor.cpu() for name, tensor in tensors.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As :meth:`__getstate__` gave it; the tensors go where the classifier is."""
        self.__dict__.update(state)
        if self._tensors is not None:
            self._tensors = {name: tensor.to(self.classifier.device) for name, tensor in self._tensors.items()}


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) of points (n, d) and (m, d) by one product, to 1e-15 of their squared norms."""
    norms = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
    return torch.addmm(norms, a, b.T, alpha=-2).clamp_min(0)
