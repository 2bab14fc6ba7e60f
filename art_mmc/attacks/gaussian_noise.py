"""
Gaussian noise as an attack.

| Paper link: https://arxiv.org/abs/1905.10626
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from art_mmc.attacks.base import TrialAttack
from art_mmc.checks import box_width, number, switch

if TYPE_CHECKING:
    from art.utils import CLASSIFIER_TYPE


class GaussianNoise(TrialAttack):
    """
    Independent Gaussian noise on every value of the input: `x' = x + sigma n` with n from N(0, I). The weakest of
    adversaries, a check of general robustness; with `nb_trials` above 1 the noise is drawn anew, for at most so many
    times, until the classifier is fooled.

    The paper has sigma 0.05 on images in [0, 1], one draw, the first 1,000 test images, and does not clip: x' leaves
    the box.

    | Paper link: https://arxiv.org/abs/1905.10626
    """

    def __init__(
        self,
        classifier: CLASSIFIER_TYPE,
        sigma: float | None = None,
        clip: bool = False,
        nb_trials: int = 1,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.GaussianNoise` instance.

        :param classifier: A trained classifier.
        :param sigma: Standard deviation of the noise, in the unit of the inputs; None for 0.05 of the width of their
               range, the classifier's `clip_values`, and for 0.05 without.
        :param clip: Whether to clip the result to the classifier's `clip_values`; the paper does not.
        :param nb_trials: Draws for each image, at least 1. The first that fools the classifier stays; if none does, the
               one with the largest margin of the wrong classes (targeted: of the target).
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param batch_size: Images that are perturbed and predicted together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        clip_values = self.estimator.clip_values
        sigma = 0.05 * (1.0 if clip_values is None else box_width(clip_values)) if sigma is None else sigma
        self._keep(locals())

    def _draw(self, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        drawn = x + self.sigma * generator.standard_normal(x.shape, dtype=np.float32)
        return np.clip(drawn, *self._box()) if self.clip else drawn

    def _check_params(self) -> None:
        super()._check_params()
        self._check(number, "sigma")
        self._check(switch, "clip")
