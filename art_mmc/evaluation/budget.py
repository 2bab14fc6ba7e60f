"""
How many samples a first look can afford on a network: by the multiplications of a forward pass, not by a clock, so that
the same run looks at the same samples on every machine.
"""

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch.utils.flop_counter import FlopCounterMode

from art_mmc.models.inference import Prepared
from art_mmc.state import seeded

#: floating-point operations that each part of the suite `quick` may take, its attacks, diagnostics and curves: some
#: five minutes of one core of a CPU that does 30 thousand million a second
BUDGET = 1e13

#: forward passes a sample that they take, a backward pass counting twice: the attacks at one radius, the curves, the
#: diagnostics, and those on an input in which an example is planted
ATTACKS, CURVES, DIAGNOSTICS, PLANTED = 1000, 3000, 2000, 1400


def operations(classifier: PyTorchClassifier, x: np.ndarray) -> int:
    """Floating-point operations of one forward pass of one sample, of inputs (N, ...); 0 where torch can't count."""
    device = next((each.device for each in classifier.model.parameters()), torch.device("cpu"))
    sample = torch.as_tensor(np.asarray(x[:1], dtype=np.float32), device=device)
    try:
        with seeded(0), torch.no_grad(), FlopCounterMode(display=False) as counter:
            Prepared(classifier.model, training=False)(sample)
    except Exception:  # whatever a user's network, which the attacks run in their own way, does not bear
        return 0
    return int(counter.get_total_flops())


def affordable(cost: int, passes: int, most: int, least: int) -> int:
    """How many samples, from `least` to `most`, the budget has room for at so many passes each of such a cost."""
    return max(min(most, int(BUDGET / (max(1, cost) * passes))), min(least, most))
