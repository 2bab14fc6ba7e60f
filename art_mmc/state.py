"""
Randomness that leaves no trace: seeds derived from a run's seed, and global random states put back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: int) -> int:
    """
    :param parts: Whole numbers from 0: a run's seed, and what tells one use of it from another.
    :return: A seed below 2**32 that depends on all of them.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """
    Seed the global random states of numpy, torch and Python, which ART's attacks and torch's layers draw from;
    afterwards they are as before.

    :param seed: The seed.
    """
    state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        np.random.seed(seed)
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
            random.setstate(python_state)
