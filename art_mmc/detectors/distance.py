"""
Detectors that measure distances: to class means, to the fixed centers of a head, to the nearest neighbours.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from art_mmc.checks import whole
from art_mmc.detectors.base import ScoreDetector, squared_distances

#: directions in which the features' variance is below this share of the largest are rounding noise of float32
_RANK_TOLERANCE = 1e-10

#: squared distances below this share of the squared norms are those of a point to itself
_SAME_POINT = 1e-12


class MahalanobisDetector(ScoreDetector):
    """
    The score is the squared Mahalanobis distance of the features to the nearest class mean, under one covariance for
    all classes: `min_k (z - m_k)^T S^-1 (z - m_k)`. Directions in which the fitting features do not vary are left out.

    | Paper link: https://arxiv.org/abs/1807.03888
    """

    title = "Mahalanobis"

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        means = torch.stack([z[y == k].mean(dim=0) for k in range(logits.shape[1])])
        residuals = z - means[y]
        variances, directions = torch.linalg.eigh(residuals.T @ residuals / len(z))
        kept = variances > _RANK_TOLERANCE * variances[-1]
        if not variances[-1] > 0:
            raise ValueError("the features of each class are all the same: there is no covariance to measure by.")
        whitening = directions[:, kept] / variances[kept].sqrt()
        return {"whitening": whitening, "means": means @ whitening}

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        return squared_distances(z @ fitted["whitening"], fitted["means"]).amin(dim=1)


class CenterDistanceDetector(ScoreDetector):
    """
    The score is the squared distance of the features to the head's center of the predicted class, for the defences
    whose head has centers: "mmc" and "mmlda" (fixed), "lgm" (trained means), "center" (tracked).

    | Paper link: https://arxiv.org/abs/1905.10626
    """

    title = "center distance"
    needs_labels = False

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        head: Any = self.network.head
        centers: Tensor = head.centers
        if centers.shape != (logits.shape[1], z.shape[1]):
            raise ValueError(
                f"the head's centers have shape {tuple(centers.shape)}, the features width {z.shape[1]}: give the "
                "layer that the head reads."
            )
        return {"centers": centers.detach().to(z).clone()}

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        return (z - fitted["centers"][classes.to(z.device)]).square().sum(dim=1)

    def _check_params(self) -> None:
        super()._check_params()
        head = getattr(self.network, "head", None)
        if not isinstance(getattr(head, "centers", None), Tensor):
            raise ValueError(
                f"the network's head, a {type(head).__name__}, has no centers; MahalanobisDetector measures the "
                "distance to class means of any features."
            )


class LIDDetector(ScoreDetector):
    """
    The score is the local intrinsic dimensionality of the features: the maximum-likelihood estimate
    `-( 1/k sum_{i <= k} log(r_i / r_k) )^-1` from the distances r_1 <= ... <= r_k to the k nearest reference features.
    The references are minibatches of the fitting data, drawn once; the score is the mean over them. A reference that is
    the input itself does not count.

    | Paper link: https://arxiv.org/abs/1801.02613 (Equation 3; there a classifier on the estimates of all layers)
    """

    title = "LID"
    defence_params = ScoreDetector.defence_params + ["k", "minibatch_size", "nb_minibatches"]
    needs_labels = False

    def __init__(
        self,
        classifier: Any,
        layer: int | str | None = None,
        false_positive_rate: float = 0.05,
        holdout: float = 0.1,
        seed: int = 0,
        k: int = 20,
        minibatch_size: int | None = 100,
        nb_minibatches: int = 10,
    ) -> None:
        """
        Create a :class:`.LIDDetector` instance.

        :param classifier: The trained classifier.
        :param layer: Where the features are; None for the embedding of this package's networks.
        :param false_positive_rate: Share of clean inputs that may be called adversarial, in (0, 1).
        :param holdout: Share of the fitting data that sets the threshold where no data are given for it.
        :param seed: Seed of that split and of the minibatches.
        :param k: Number of neighbours, at least 2 and below `minibatch_size`.
        :param minibatch_size: References in a minibatch (the paper's 100); None for all fitting data in a single one.
        :param nb_minibatches: Number of minibatches, at most; as many as the fitting data fill.
        """
        self.k = k
        self.minibatch_size = minibatch_size
        self.nb_minibatches = nb_minibatches
        super().__init__(classifier, layer, false_positive_rate, holdout, seed)

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        size = min(self.minibatch_size or len(z), len(z))
        order = np.random.default_rng(self.seed).permutation(len(z))
        order = order[: size * min(self.nb_minibatches, len(z) // size)]
        references = z[torch.as_tensor(order, device=z.device)].view(-1, size, z.shape[1])
        distinct = min(len(minibatch.unique(dim=0)) for minibatch in references)
        if distinct <= self.k:
            raise ValueError(
                f"k={self.k} neighbours need more than {self.k} different features in a minibatch, the smallest has "
                f"{distinct}: more fitting data, or a smaller k, are needed."
            )
        return {"references": references.float()}  # they came as float32

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        references = fitted["references"].double().flatten(0, 1)
        squared = squared_distances(z, references)
        scale = z.detach().square().sum(dim=1, keepdim=True) + references.square().sum(dim=1)
        squared = squared.masked_fill(squared <= _SAME_POINT * scale, torch.inf)
        squared = squared.view(len(z), *fitted["references"].shape[:2])
        logs = squared.topk(self.k, dim=2, largest=False).values.log() / 2
        # equal distances are of infinite dimension
        return (-1 / (logs - logs[:, :, -1:]).mean(dim=2).clamp_max(-1e-12)).mean(dim=1)

    def _pairs(self, fitted: dict[str, Tensor]) -> int:
        return fitted["references"].shape[0] * fitted["references"].shape[1]

    def _check_params(self) -> None:
        super()._check_params()
        whole("k", self.k, 2)
        whole("nb_minibatches", self.nb_minibatches)
        if self.minibatch_size is not None:
            whole("minibatch_size", self.minibatch_size, self.k + 1)
