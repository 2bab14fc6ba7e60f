"""What the tests of training share: small classifiers on the digits, their weights, Ctrl-C in a batch."""

from __future__ import annotations

import os
import signal

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


def make(name="sce", backbone="cnn", seed=0, dropout=0.1, **kwargs):
    """A classifier of the digits with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NormedNet(dropout) if backbone == "normed" else backbone
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
