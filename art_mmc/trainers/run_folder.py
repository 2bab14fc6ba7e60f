"""
The folder of a training run: `last.pt`, from which it can go on, `best.pt`, and `history.csv`.
"""

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.checkpoint import describe, read_payload, write_payload
from art_mmc.state import make_folder, write_atomically


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during a training with a folder: the batch was finished and the state saved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; the state of the run is saved: go on with the folder {folder} and resume=True")
        self.folder = folder


class RunMismatchError(ValueError):
    """The folder holds the state of a run with other settings or other data."""


class RunFolder:
    """Files of one training run. The folder is made at once: one that can't be written fails before the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)
        if not os.access(path, os.W_OK):
            raise PermissionError(f"no permission to write into {path}")
        #: the newest state, and the classifier that was best on the validation data
        self.last, self.best = path / "last.pt", path / "best.pt"
        self._writer: Any = None
        self._written = 0

    def write_state(self, classifier: LossDefendedClassifier, training: dict[str, Any]) -> None:
        """Write `last.pt`, the run's state, plain data and tensors; a checkpoint too if it can be described."""
        try:
            description = describe(classifier)
        except ValueError:  # a loss of the user's own: the run can go on, but no classifier be built from the file
            description = None
        write_payload(self.last, classifier.model.state_dict(), description, training=plain(training))

    def read_state(self) -> dict[str, Any] | None:
        """What :meth:`write_state` wrote, None if nothing is there; ValueError for what is damaged or another thing."""
        if not self.last.is_file():
            return None
        payload = read_payload(self.last)
        if "training" not in payload:
            raise ValueError(f"{self.last} is a classifier's checkpoint, but no state of a training run.")
        self._written = len(payload["training"]["position"]["history"])
        return payload

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write the epochs' records, all with the same keys, to `history.csv`, and for TensorBoard if it is there."""
        if not history:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[-1]))
        writer.writeheader()
        writer.writerows(history)
        write_atomically({self.path / "history.csv": text.getvalue().encode()})
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._writer = False
            else:
                # what an earlier run left in the folder from here on is no part of this one
                self._writer = SummaryWriter(str(self.path), purge_step=self._written + 1)
        if not self._writer:
            return
        for record in history[self._written :]:
            for name, value in record.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    self._writer.add_scalar(name, value, record["epoch"])
        self._written = len(history)
        self._writer.flush()


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples without numpy's types, which a load without pickled code would refuse."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" else value)
    if isinstance(value, np.generic):
        return value.item()
    return value
