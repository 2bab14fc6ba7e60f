"""What is other in ART's tree: predictions and Square go through ART's own classifier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from art.config import ART_NUMPY_DTYPE

from art_mmc.attacks.auto_attack import remembering


class AutoAttackStandard:
    """part"""

    def _double(self) -> Any:
        return self.estimator

    def _square_view(self) -> Any:
        view = object.__new__(type(self.estimator))
        view.__dict__.update(vars(self.estimator))
        if view.clip_values is None:
            view._clip_values = np.array([-math.inf, math.inf], dtype=ART_NUMPY_DTYPE)
        view.predict = remembering(view.predict)
        return view
