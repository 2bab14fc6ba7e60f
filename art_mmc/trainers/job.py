"""
What a training works on: its data batch by batch, and how far it has come.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.checkpoint import checksum
from art_mmc.classifiers.fitting import batches_in
from art_mmc.distributed import broadcast_object, shard, world
from art_mmc.trainers.data_parallel import share_buffers

#: training samples on which an epoch is watched where no validation data is given
WATCHED = 512

#: name, loss and epochs of a stage
Stage = tuple[str, torch.nn.Module, int]


@dataclass
class Position:
    """How far a run has come: all that a checkpoint has to remember besides weights, optimizer and random states."""

    stage: int = 0  # stages finished
    epoch: int = 0  # epochs of the stage finished
    batch: int = 0  # batches of the epoch finished
    totals: tuple[float, ...] = (0.0, 0.0, 0.0)  # of the epoch, in this process: losses, correct predictions, samples
    seconds: float = 0.0  # of the epoch
    best: float = -math.inf  # validation figure
    stale: int = 0  # epochs since the best one
    rate: float = 0.0  # learning rate at the epoch's start
    order: torch.Tensor | None = None  # state of the generator when the epoch's order was drawn
    history: list[dict[str, Any]] = field(default_factory=list)  # one record an epoch
    extended: list[int] = field(default_factory=list)  # epochs after which the finished run was extended
    spent: float | None = None  # seconds of all sessions; None in the files of older versions

    def __post_init__(self) -> None:
        if self.spent is None:
            self.spent = self.seconds + sum(record["seconds"] for record in self.history)


@dataclass(frozen=True)
class Step:
    """Where a step stands in the training."""

    epoch: float  # epochs of the stage finished when it begins, a fraction
    end: float  # the same when it ends
    samples: int  # in its batch, those of all processes
    over: Any = None  # what a mean over that batch divides by, see `fitting.mean_over`; None where the loss has no mean
    weights: torch.Tensor | None = None  # of the samples of this process, (B,), or None


@dataclass(frozen=True)
class Job:
    """What a call of `fit` works on."""

    classifier: LossDefendedClassifier
    batch_size: int  # samples in one step
    stages: list[Stage]
    validation: tuple[np.ndarray, np.ndarray] | None  # inputs and labels on which each epoch is judged
    scheduler: Any  # what the caller gave
    scheduler_interval: str | None  # likewise
    x: Any = None  # inputs (N, ...), float32 or, where that loses nothing, uint8, on the device; None with a generator
    y: Any = None  # labels (N,) or (N, K), on the device; None with a generator
    sample_weight: torch.Tensor | None = None  # weights (N,), on the device, or None
    generator: Any = None  # ART data generator from which the batches are drawn, or None

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return math.ceil(len(self.x) / self.batch_size) if self.generator is None else batches_in(self.generator)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for another job to be this one, the order of the samples included."""
        about = {"batch_size": self.batch_size, "stages": [[name, epochs] for name, _, epochs in self.stages]}
        about["validation"] = [checksum(each) for each in self.validation or ()]
        if self.generator is not None:
            return {"samples": self.generator.size, "generator": type(self.generator).__name__, **about}
        tensors = [each for each in (self.x, self.y, self.sample_weight) if each is not None]
        data = [checksum(tensor.cpu().numpy()) for tensor in tensors]
        return {"samples": len(self.x), "data": data, **about}

    @cached_property
    def held_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The validation data as the network takes them, on the CPU."""
        return self.classifier.training_tensors(*self.validation, fit=False)  # type: ignore[misc]

    @cached_property
    def _recent(self) -> deque[Any]:
        """What a generator gave last."""
        return deque(maxlen=math.ceil(WATCHED / self.batch_size))

    def batch(self, index: torch.Tensor | slice | None) -> tuple[Any, Any, Any]:
        """Inputs, labels and weights of a batch: those with these numbers, or the next of the generator."""
        if self.generator is None:
            weights = None if self.sample_weight is None else self.sample_weight[index]
            taken = self.x[index]  # of a slice it is the data itself, and a network may work in place
            return _floats(taken.clone() if isinstance(index, slice) else taken), self.y[index], weights
        drawn: Any = self.classifier.batch_tensors(self.generator.get_batch()) if world().is_main else None
        device = self.classifier.device
        parts: list[Any] = [each if each is None else each.to(device) for each in broadcast_object(drawn)]
        x, y, weights = parts
        self._recent.append((x.clone(), y))
        return x, y, weights

    def watched(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Some training inputs and labels; of a generator those that it gave last."""
        if self.generator is None:
            x, y, _ = self.batch(slice(None, None, max(1, len(self.x) // WATCHED)))
            return x[:WATCHED], y[:WATCHED]
        if not self._recent:  # of a run that was finished before
            self.batch(None)
        x, y = (torch.cat(each) for each in zip(*self._recent, strict=True))
        return x, y

    def left_out(self, samples: int, number: int) -> bool:
        """Whether the network can't train on what is left in the last batch of an epoch; its number is from 0."""
        return self.classifier.leaves_out(self.smallest_part(samples), number, self.batch_size)

    def smallest_part(self, samples: int) -> int:
        """How many samples of a batch batch statistics are taken from; on a CPU each process goes by its own."""
        return samples if self.classifier.device.type == "cuda" else samples // world().size

    def clean_batches(self) -> Iterator[torch.Tensor]:
        """The process' parts of the training inputs, by which batch statistics of averaged weights are computed."""
        for number in range(self.steps):
            x, _, _ = self.batch(slice(number * self.batch_size, (number + 1) * self.batch_size))
            if not self.left_out(len(x), number):
                yield x[shard(len(x))]
        share_buffers(self.classifier.model)  # when the next one is asked for, the last one's statistics are in


def compact(x: torch.Tensor) -> torch.Tensor:
    """Images that came from bytes as bytes again, a quarter of the memory, if the floats come back bit for bit."""
    if x.dtype != torch.float32 or x.min() < 0 or x.max() > 1:
        return x
    as_bytes = (x * 255.0).round().to(torch.uint8)
    return as_bytes if torch.equal(_floats(as_bytes), x) else x


def _floats(x: torch.Tensor) -> torch.Tensor:
    """What :func:`compact` stored, as floats."""
    return x.float() / 255.0 if x.dtype == torch.uint8 else x
