"""What is other in ART's tree: predictions and Square go through ART's own classifier."""

from __future__ import annotations

from typing import Any


class AutoAttackStandard:
    """part"""

    def _fast(self) -> Any:
        return self.estimator
