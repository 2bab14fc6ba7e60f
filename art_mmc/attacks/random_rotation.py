"""
Random rotations as an attack.

| Paper link: https://arxiv.org/abs/1905.10626
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator, NeuralNetworkMixin
from scipy.ndimage import rotate

from art_mmc.attacks.base import TrialAttack
from art_mmc.checks import as_array, check_name, number

if TYPE_CHECKING:
    from art.utils import CLASSIFIER_NEURALNETWORK_TYPE

#: name -> order of scipy's spline
INTERPOLATIONS = {"nearest": 0, "bilinear": 1, "cubic": 3}


def rotate_image(
    image: np.ndarray, angle: float, channels_first: bool = True, interpolation: str = "bilinear"
) -> np.ndarray:
    """An image (C, H, W), or (H, W, C), rotated by degrees counter-clockwise about its center, edge pixels repeated."""
    axes = (1, 2) if channels_first else (0, 1)
    return rotate(image, angle, axes=axes, reshape=False, order=INTERPOLATIONS[interpolation], mode="nearest")


class RandomRotation(TrialAttack):
    """
    Rotation by an angle uniform in [-degrees, degrees], another for each image: `x' = R(x, t), t ~ U(-degrees,
    degrees)`, about the center, with the pixels of the edge repeated outward. Not bounded by any ball, it checks
    general robustness; with `nb_trials` above 1 the angle is drawn anew, for at most so many times, until the
    classifier is fooled.

    The paper has 30 degrees, one draw, edge pixels repeated and the first 1,000 test images; its interpolation is not
    known to us. ART's own SpatialTransformation searches a grid for the one rotation that fools most of a batch and
    fills with zeros.

    | Paper link: https://arxiv.org/abs/1905.10626
    | Paper link: https://arxiv.org/abs/1712.02779 (rotations as an attack; the worst of several draws)
    """

    _estimator_requirements = (BaseEstimator, NeuralNetworkMixin, ClassifierMixin)
    _takes_masks = False

    def __init__(
        self,
        classifier: CLASSIFIER_NEURALNETWORK_TYPE,
        degrees: float = 30.0,
        interpolation: str = "bilinear",
        nb_trials: int = 1,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.RandomRotation` instance.

        :param classifier: A trained classifier of images (N, C, H, W), or (N, H, W, C) if its `channels_first` is
               False.
        :param degrees: Largest angle to either side, in (0, 180].
        :param interpolation: "nearest", "bilinear" or "cubic". The result is clipped to the classifier's `clip_values`,
               which a cubic spline overshoots.
        :param nb_trials: Draws for each image, at least 1. The first that fools the classifier stays; if none does, the
               one with the largest margin of the wrong classes (targeted: of the target).
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param batch_size: Images that are rotated and predicted together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Generate rotated images and return them in an array.

        :param x: Images (N, C, H, W), or (N, H, W, C) if the classifier's `channels_first` is False.
        :param y: Classes, as indices (N,) or one-hot (N, K): the true ones, or for a targeted attack those to be
               reached. None for the classifier's own predictions.
        :param kwargs: No effect, but a `mask` is refused.
        :return: Rotated images of the shape of x, float32.
        :raises ValueError: For inputs that are no images, and see :meth:`.QueryAttack.generate`.
        """
        x = as_array("x", x)
        if x.ndim != 4:
            raise ValueError(f"x has shape {x.shape}: only images, of 4 dimensions with the batch, can be rotated.")
        return super().generate(x, y, **kwargs)

    def _draw(self, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        angle = generator.uniform(-self.degrees, self.degrees)
        rotated = rotate_image(x, angle, self.estimator.channels_first, self.interpolation)
        return np.clip(rotated, *self._box())

    def _check_params(self) -> None:
        super()._check_params()
        self._check(number, "degrees", 0, 180, "(]")
        check_name("interpolation", self.interpolation, INTERPOLATIONS)
