"""
One classifier, from whatever file a user has, evaluated on a data set: what `art-mmc evaluate` runs.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.classifiers import LossDefendedClassifier, load_classifier
from art_mmc.classifiers.checkpoint import FORMAT as CHECKPOINT_FORMAT
from art_mmc.classifiers.checkpoint import load_state
from art_mmc.data import Dataset
from art_mmc.evaluation import RobustnessEvaluation, RobustnessRecord
from art_mmc.evaluation.curves import measure_curves
from art_mmc.evaluation.records import Curves
from art_mmc.studies.setup import choose_test_images, machine

#: samples that the curves are measured on
CURVE_SAMPLES = 64

FORMAT = "art_mmc.robustness"


@dataclass(frozen=True, eq=False)
class Assessment:
    """
    What was found out about one classifier.

    :param record: What the attacks left, with verdict and provenance.
    :param curves: Curves for pictures; None if not measured.
    :param x: The clean inputs (N, C, H, W); None if not at hand. Like the record's examples they are no part of the
           JSON.
    :param index: Which test images they are, (N,); None if not known.
    """

    record: RobustnessRecord
    curves: Curves | None = None
    x: np.ndarray | None = field(default=None, repr=False)
    index: np.ndarray | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return {
            "format": FORMAT,
            "version": 1,
            **self.record.to_dict(),
            "curves": None if self.curves is None else self.curves.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Assessment:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The same without inputs and examples.
        """
        curves = data.get("curves")
        return cls(RobustnessRecord.from_dict(dict(data)), None if curves is None else Curves.from_dict(curves))


# ------------------------------------------------------------------------------------------------------------- loading


def load_any(
    path: str | os.PathLike[str], dataset: Dataset, factory: str | None = None, device_type: str = "cpu"
) -> tuple[PyTorchClassifier, str]:
    """
    A classifier from a file: one of :meth:`.LossDefendedClassifier.save_checkpoint`; a TorchScript file; or, with a
    factory, the state dict of a network of the user's, or a checkpoint of this package whose backbone is the user's.
    TorchScript and state dicts are wrapped in ART's `PyTorchClassifier` with cross-entropy; such networks must take
    inputs in [0, 1].

    A TorchScript file and a factory are programs: they are run.

    :param path: The file.
    :param dataset: The data set: input shape and classes, and a few images to try the network on.
    :param factory: "module:function" of the user's that builds the network or backbone; called with those of
           `input_shape` and `nb_classes` that it has as arguments.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :return: The classifier, and what the file was, in words.
    :raises FileNotFoundError: When the file is not there.
    :raises ValueError: When the file is damaged or of another kind, or does not fit the data set or the factory.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with torch.random.fork_rng():  # to build a network draws weights, in the place of which those of the file come
        return _load(path, dataset, factory, device_type)


def _load(path: Path, dataset: Dataset, factory: str | None, device_type: str) -> tuple[PyTorchClassifier, str]:
    classifier: PyTorchClassifier
    if factory is not None:
        network, content = build_network(factory, dataset), _read_weights(path)
        if content.get("format") == CHECKPOINT_FORMAT:
            classifier = load_classifier(path, backbone=network, device_type=device_type)
            kind = f"art_mmc checkpoint, backbone by {factory}"
        else:
            _load_state(network, content, path)
            classifier, kind = _wrap(network, dataset, device_type), f"state dict, network by {factory}"
    elif _is_torchscript(path):
        try:
            with warnings.catch_warnings():  # torch wants its users elsewhere, but the files are there
                warnings.simplefilter("ignore", FutureWarning)
                network = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as err:
            raise ValueError(f"{path} is damaged, or no TorchScript file that this torch can read: {err}") from err
        classifier, kind = _wrap(network, dataset, device_type), "TorchScript"
    else:
        try:
            classifier = load_classifier(path, device_type=device_type)
        except ValueError as err:
            what = "a backbone" if "backbone of the user's own" in str(err) else "a state dict"
            text = str(err).rstrip(".")
            raise ValueError(f"{text}; for {what} of your own give --factory module:function") from err
        kind = "art_mmc checkpoint"
    if tuple(classifier.input_shape) != dataset.input_shape or classifier.nb_classes != dataset.nb_classes:
        raise ValueError(
            f"{path} is for inputs of shape {tuple(classifier.input_shape)} and {classifier.nb_classes} classes, "
            f"{dataset.name} has {dataset.input_shape} and {dataset.nb_classes}."
        )
    return classifier, kind


def build_network(factory: str, dataset: Dataset) -> torch.nn.Module:
    """
    :param factory: "module:function"; the module is looked for in the working directory too.
    :param dataset: The data set.
    :return: The network that it builds.
    :raises ValueError: When there is no such function, or it builds no network.
    """
    module_name, colon, name = factory.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"--factory: expected module:function, got '{factory}'")
    with _working_directory_on_path():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as err:
            raise ValueError(f"--factory {factory}: {err}") from err
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--factory {factory}: module '{module_name}' has no function '{name}'")
    known = inspect.signature(function).parameters
    offered = {"input_shape": dataset.input_shape, "nb_classes": dataset.nb_classes}
    network = function(**{key: value for key, value in offered.items() if key in known})
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"--factory {factory}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """A console script has its own folder on the path, not the user's."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _is_torchscript(path: Path) -> bool:
    """Whether a zip file holds TorchScript: torch.save writes no constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _read_weights(path: Path) -> dict[str, Any]:
    """Tensors and plain data; nothing that would run code."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as err:
        raise ValueError(
            f"{path} is damaged, or holds more than weights, which is not read for it might run code: write it by "
            "torch.save(network.state_dict(), ...)"
        ) from err
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict, names and tensors, got {type(content).__name__}.")
    return content


def _load_state(network: torch.nn.Module, content: dict[str, Any], path: Path) -> None:
    state = content
    for name in ("state_dict", "model_state_dict", "model"):  # as training scripts like to nest it
        if isinstance(state.get(name), dict):
            state = state[name]
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state dict, names and tensors; found {', '.join(map(str, state))}.")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of torch's DataParallel
    try:
        load_state(network, state)
    except RuntimeError as err:
        raise ValueError(f"{path} does not fit the network: {' '.join(str(err).split())[:200]}") from err


def _wrap(network: torch.nn.Module, dataset: Dataset, device_type: str) -> PyTorchClassifier:
    """ART's class around a network, once it has been seen to take such images and give so many classes."""
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(torch.from_numpy(dataset.x_test[:2]))
    except RuntimeError as err:
        shape = (2, *dataset.input_shape)
        raise ValueError(f"the network fails on images of shape {shape}: {' '.join(str(err).split())[-200:]}") from err
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, dataset.nb_classes):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(f"the network gives {got} for two images, expected logits of shape (2, {dataset.nb_classes}).")
    return PyTorchClassifier(
        model=network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=dataset.input_shape,
        nb_classes=dataset.nb_classes,
        clip_values=(0.0, 1.0),
        device_type=device_type,
    )


# ---------------------------------------------------------------------------------------------------------- evaluation


def assess(
    classifier: PyTorchClassifier,
    dataset: Dataset,
    evaluation: RobustnessEvaluation,
    *,
    nb_test: int | None = None,
    curves: int = CURVE_SAMPLES,
    name: str = "",
    about: Mapping[str, Any] | None = None,
) -> Assessment:
    """
    Evaluate a classifier on test images of a data set.

    :param classifier: The classifier.
    :param dataset: The data set, whose images, in [0, 1], are put on the range of the classifier's `clip_values`.
    :param evaluation: The evaluation.
    :param nb_test: Number of test images, chosen by the evaluation's seed; None for all.
    :param curves: Samples for the curves; 0 to leave them out.
    :param name: What to call the classifier in reports; its defence or its class if empty.
    :param about: More entries of the provenance.
    :return: The assessment, with inputs and examples.
    """
    index = choose_test_images(dataset, nb_test, evaluation.seed)
    x, y = in_box(dataset.x_test[index], classifier.clip_values), dataset.y_test[index]
    record = evaluation.evaluate(classifier, x, y)
    measured, failed = None, None
    if curves:
        try:
            measured = measure_curves(
                classifier,
                x,
                y,
                record.eps,
                evaluation.norm,
                samples=curves,
                batch_size=evaluation.batch_size,
                seed=evaluation.seed,
            )
        except Exception as err:  # they are for a picture: what the attacks found is not lost for it
            failed = f"{type(err).__name__}: {' '.join(str(err).split())}"
    box, fingerprint = classifier.clip_values, dict(record.provenance)
    facts = {
        "name": name or getattr(classifier, "defence", None) or type(classifier).__name__,
        **describe_classifier(classifier),
        **(about or {}),
        "dataset": dataset.name,
        "input_shape": list(dataset.input_shape),
        "nb_classes": dataset.nb_classes,
        "clip_values": None if box is None else [float(np.min(box[0])), float(np.max(box[1]))],
        "n": len(index),
        "n_test": len(dataset.y_test),
        **({} if failed is None else {"curves": f"could not be measured: {failed}"}),
        "suite": record.suite,
        "quirks": list(evaluation.quirks),
        "batch_size": evaluation.batch_size,
        "seed": evaluation.seed,
        **machine(classifier.device),
        **{key: fingerprint.pop(key) for key in ("left_out", "protocol") if key in fingerprint},
        "fingerprint": fingerprint,
    }
    return Assessment(replace(record, provenance=facts), measured, x, index)


def in_box(x: np.ndarray, clip_values: Any) -> np.ndarray:
    """
    :param x: Images (N, C, H, W) in [0, 1].
    :param clip_values: The range of a classifier's inputs, numbers or arrays; None for [0, 1].
    :return: The same images on that range, float32.
    """
    if clip_values is None or (np.all(clip_values[0] == 0) and np.all(clip_values[1] == 1)):
        return x
    low, high = (np.asarray(bound, dtype=np.float64) for bound in clip_values)
    return np.clip(low + (high - low) * x, low, high).astype(np.float32)


def describe_classifier(classifier: PyTorchClassifier) -> dict[str, Any]:
    """
    :param classifier: A classifier.
    :return: Its class, and for one of this package its defence, backbone and options; plain data.
    """
    facts: dict[str, Any] = {"classifier": type(classifier).__name__}
    if isinstance(classifier, LossDefendedClassifier) and classifier.row is not None:
        backbone = getattr(classifier.model, "backbone", None)
        recipe = getattr(backbone, "recipe", None)
        facts["defence"] = classifier.row.name
        facts["backbone"] = recipe["name"] if recipe else type(backbone).__name__
        facts["options"] = {**classifier.model.head.options(), **classifier.loss.options()}
    facts["parameters"] = sum(parameter.numel() for parameter in classifier.model.parameters())
    return facts
