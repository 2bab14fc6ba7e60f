"""
Averaged weights of a network under training.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from art_mmc.classifiers.checkpoint import load_state
from art_mmc.models.copies import copied


class WeightAverage:
    """
    The average of the weights of a network under training after `start` epochs or one: "ema", exponential over steps,
    whose decay, in [0, 1], grows up to there, as (1 + t) / (10 + t) after t sets of weights, so that a short training
    does not stay at its first ones; or "swa", the plain mean over epochs (https://arxiv.org/abs/1803.05407).
    """

    def __init__(self, network: torch.nn.Module, kind: str, decay: float = 0.999, start: int = 0) -> None:
        self._network = network
        self._kind = kind
        self._decay = decay
        self._start = start
        self._average: AveragedModel | None = None
        self._count = 0  # of weights in the average

    def after_step(self) -> None:
        """Add the weights after a step to an exponential average that has begun."""
        if self._average is not None and self._kind == "ema":
            self._update(self._average)

    def after_epoch(self, epochs: int) -> None:
        """Begin when the time has come; add the weights, after so many finished epochs, to a plain mean."""
        if self._average is None and epochs >= max(1, self._start):
            self._average, self._count = self._new(), 0
            self._update(self._average)
        elif self._average is not None and self._kind == "swa":
            self._update(self._average)

    def install(self, batches: Iterable[torch.Tensor]) -> None:
        """Put the average, if it has begun, into the network; batch statistics are those of inputs (B, ...)."""
        if self._average is not None:
            self._network.load_state_dict(self._average.module.state_dict())
            with torch.no_grad():
                update_bn(batches, self._network)

    @contextmanager
    def installed(self, batches: Iterable[torch.Tensor]) -> Iterator[None]:
        """As :meth:`install`, for a while."""
        if self._average is None:
            yield
            return
        before = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        self.install(batches)
        try:
            yield
        finally:
            self._network.load_state_dict(before)

    def state_dict(self) -> dict[str, Any] | None:
        """The state, None before the beginning."""
        return None if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._average = None
        if state is not None:
            self._average = self._new()
            load_state(self._average, state)
            self._count = int(self._average.n_averaged)

    def _new(self) -> AveragedModel:
        return AveragedModel(copied(self._network))

    def _update(self, average: AveragedModel) -> None:
        if self._kind == "swa" or not self._count:
            average.update_parameters(self._network)
        else:  # a step of the exponential average; torch's would look at its own number, and wait for the device
            decay = min(self._decay, (1 + self._count) / (10 + self._count))
            step = get_ema_multi_avg_fn(decay)
            step(list(average.module.parameters()), list(self._network.parameters()), None)
            with torch.no_grad():
                for ours, present in zip(average.module.buffers(), self._network.buffers(), strict=True):
                    ours.copy_(present)
            average.n_averaged += 1
        self._count += 1
