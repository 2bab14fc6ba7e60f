"""What is other in ART's tree: the objective is a function of arrays, as predictions come from any framework."""

from __future__ import annotations

import numpy as np


class SPSA:
    """part"""

    def _given_values(self, predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.objective(predictions.astype(np.float64), y), dtype=np.float64)

    def _check_objective(self) -> None:
        if self.objective != "margin" and not callable(self.objective):
            raise ValueError(f'objective: expected "margin" or a function, got {self.objective!r}.')
