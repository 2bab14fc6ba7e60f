"""
What the tests of training share: small classifiers on the digits, their weights, Ctrl-C in a batch, and two processes
that are forked: a fresh one imports for seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from art_mmc import create_classifier
from art_mmc.distributed import world


class NormedNet(nn.Module):
    """Batch normalisation in two and in no dimensions, a frozen parameter, and dropout if asked."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 64, 16)
        self.last_norm = nn.BatchNorm1d(16, affine=False)
        self.drop = nn.Dropout(dropout)
        self.conv.bias.requires_grad_(False)

    def forward(self, x):
        return self.drop(torch.relu(self.last_norm(self.fc(torch.relu(self.norm(self.conv(x))).flatten(1)))))


def dense():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())


def make(name="sce", backbone="cnn", seed=0, dropout=0.1, **kwargs):
    """A classifier of the digits with the same weights each time; on a "normed" or "dense" network of its own too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NormedNet(dropout) if backbone == "normed" else dense() if backbone == "dense" else backbone
        return create_classifier(name, network, input_shape=(1, 8, 8), nb_classes=10, **kwargs)


def weights(of):
    """Parameters and buffers of a classifier, or of a trainer's, in one row."""
    classifier = getattr(of, "classifier", of)
    return torch.cat([tensor.flatten().double() for tensor in classifier.model.state_dict().values()])


def stop_at(trainer, batch, rank=0):
    """Press Ctrl-C in a batch, in one process; a list with one entry a step."""
    seen, batch_loss = [], trainer._batch_loss

    def spy(x, y, step):
        seen.append(step)
        if len(seen) == batch and world().rank == rank:
            os.kill(os.getpid(), signal.SIGINT)
        return batch_loss(x, y, step)

    trainer._batch_loss = spy
    return seen


#: seconds after which processes that wait for each other have failed
LIMIT = 600
#: seconds that the others have when one has failed
GRACE = 20


class Ended(NamedTuple):
    """How a process ended: its exit status, or the negative number of the signal; what it printed."""

    status: int
    out: str
    err: str


def forked(
    work: Callable[[], int | None],
    folder: Path,
    meanwhile: Callable[[list[int]], None] = lambda pids: None,
    processes: int = 2,
) -> list[Ended]:
    """
    Two processes that do some work, with torchrun's environment; one has none of it. `meanwhile` gets their numbers.
    Some seconds after one has failed the others are ended, as torchrun does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:  # pragma: no cover (it never comes back)
            status = 1
            try:
                if processes > 1:
                    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
                    os.environ.update(
                        {**{name: str(value) for name, value in names.items()}, "MASTER_ADDR": "localhost"}
                    )
                for number, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(folder / f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                    setattr(sys, f"std{name}", os.fdopen(number, "w", closefd=False))
                status = work() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        pids.append(pid)
    deadline, ended = time.monotonic() + LIMIT, {}
    try:
        meanwhile(pids)
        while len(ended) < processes and time.monotonic() < deadline:
            for pid in set(pids) - set(ended):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    ended[pid] = os.waitstatus_to_exitcode(status)
                    deadline = min(deadline, time.monotonic() + (LIMIT if ended[pid] == 0 else GRACE))
            time.sleep(0.02)
    finally:
        for pid in set(pids) - set(ended):
            os.kill(pid, signal.SIGKILL)
            ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = [[(folder / f"{name}{rank}").read_text() for name in ("out", "err")] for rank in range(processes)]
    return [Ended(ended[pid], *texts) for pid, texts in zip(pids, said, strict=True)]


def wait_for(file: Path) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + LIMIT
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
