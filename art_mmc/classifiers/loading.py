"""
A classifier from whatever file a user has: of this package, TorchScript, or the state dict of a network of their own.
"""

import importlib
import inspect
import os
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import READ_ERRORS, users_place
from art_mmc.classifiers.checkpoint import FORMAT, check_numbers, check_sums, load_state, read_tensors
from art_mmc.classifiers.named import load_classifier
from art_mmc.pretrained import find_network


def load_any(
    path: str | os.PathLike[str],
    x: np.ndarray,
    nb_classes: int,
    factory: str | None = None,
    device_type: str = "cpu",
    name: str = "the data set",
) -> tuple[PyTorchClassifier, str]:
    """
    A classifier from a file, and what the file was, in words: a checkpoint, or the name of a network of the package; a
    TorchScript file; or, with a factory, "module:function", which is run as TorchScript is, the state dict of a network
    of the user's in [0, 1]. It is tried on two of the inputs x (N, ...). FileNotFoundError, or ValueError for what is
    damaged, of another kind or does not fit.
    """
    path = find_network(path)
    with torch.random.fork_rng():  # to build a network draws weights, in the place of which those of the file come
        classifier, kind = _load(path, x[:2], nb_classes, factory, device_type)
    check_fits(classifier, x, nb_classes, name, str(path))
    return classifier, kind


def check_fits(
    classifier: PyTorchClassifier, x: np.ndarray, nb_classes: int, name: str, what: str = "the classifier"
) -> None:
    """ValueError unless a classifier takes inputs such as x (N, ...) and has as many classes as the data set."""
    ours, theirs = tuple(classifier.input_shape), x.shape[1:]
    if (ours, classifier.nb_classes) != (theirs, nb_classes):
        raise ValueError(
            f"{what} takes inputs {ours} of {classifier.nb_classes} classes, data set {name} has {theirs} of "
            f"{nb_classes}: was it trained on another one?"
        )


def _load(
    path: Path, x: np.ndarray, nb_classes: int, factory: str | None, device_type: str
) -> tuple[PyTorchClassifier, str]:
    if factory is not None:
        network, content = build_network(factory, x.shape[1:], nb_classes), _read_weights(path)
        if content.get("format") == FORMAT:
            classifier = load_classifier(path, backbone=network, device_type=device_type)
            return classifier, f"art_mmc checkpoint, backbone by {factory}"
        _load_state(network, content, path)
        check_numbers(network, path)
        return _wrap(network, x, nb_classes, device_type), f"state dict, network by {factory}"
    if _is_torchscript(path):
        try:
            with warnings.catch_warnings():  # torch wants its users elsewhere, but the files are there
                warnings.simplefilter("ignore", FutureWarning)
                check_sums(path)
                network = torch.jit.load(str(path), map_location="cpu")
        except (RuntimeError, zipfile.BadZipFile, zlib.error) as err:
            raise ValueError(f"{path} is damaged, or no TorchScript file that this torch can read: {err}") from err
        check_numbers(network, path)
        return _wrap(network, x, nb_classes, device_type), "TorchScript"
    try:
        return load_classifier(path, device_type=device_type), "art_mmc checkpoint"
    except ValueError as err:
        what = "a backbone" if "backbone of the user's own" in str(err) else "a state dict"
        text = str(err).rstrip(".")
        if "Weights only load failed" in text:  # torch's own advice is to run what the file holds
            raise ValueError(_more_than_weights(path)) from err
        raise ValueError(f"{text}; for {what} of your own give --factory module:function") from err


def build_network(factory: str, input_shape: tuple[int, ...], nb_classes: int) -> torch.nn.Module:
    """What a user's function, of the working directory too, builds; given `input_shape`, `nb_classes` if it asks."""
    module_name, colon, name = factory.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"--factory: expected module:function, got '{factory}'")
    offered = {"input_shape": input_shape, "nb_classes": nb_classes}
    network: Any = None
    with users_code(f"--factory {factory}"):
        function = getattr(importlib.import_module(module_name), name, None)
        if callable(function):
            known = inspect.signature(function).parameters
            network = function(**{key: value for key, value in offered.items() if key in known})
    if not callable(function):
        raise ValueError(f"--factory {factory}: module '{module_name}' has no function '{name}'")
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"--factory {factory}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Around a user's code, in the working directory too: what it raises is a ValueError with its words and place."""
    here = os.getcwd()
    sys.path.insert(0, here)  # a console script has its own folder there
    try:
        yield
    except (Exception, SystemExit) as err:
        place = "" if isinstance(err, SyntaxError) else users_place(err)  # which says its own
        name = "" if isinstance(err, ModuleNotFoundError) else f"{type(err).__name__}: "
        raise ValueError(f"{what}: {name}{' '.join(str(err).split())[-200:]}{place}") from err
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
        content = read_tensors(path)
    except zipfile.BadZipFile as err:
        raise ValueError(f"{path} is damaged: {err}") from err
    except READ_ERRORS as err:
        raise ValueError(_more_than_weights(path)) from err
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict, names and tensors, got {type(content).__name__}.")
    return content


def _more_than_weights(path: Path) -> str:
    return (
        f"{path} is damaged, or holds more than weights, which is not read for it might run code: write it by "
        "torch.save(network.state_dict(), ...) and give --factory module:function"
    )


def _load_state(network: torch.nn.Module, content: dict[str, Any], path: Path) -> None:
    state = content
    for name in ("state_dict", "model_state_dict", "model", "net"):  # as training scripts like to nest it
        if isinstance(state.get(name), dict):
            state = state[name]
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state dict, names and tensors; found {', '.join(map(str, state))}.")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of torch's DataParallel
    try:
        load_state(network, state)
    except RuntimeError as err:
        raise ValueError(f"{path} does not fit the network: {' '.join(str(err).split())[:200]}") from err


def _wrap(network: torch.nn.Module, x: np.ndarray, nb_classes: int, device_type: str) -> PyTorchClassifier:
    """ART's class around a network, once it has been seen to take such images and give so many classes."""
    network.eval()
    with users_code(f"the network fails on images of shape {x.shape}"), torch.no_grad():
        outputs = network(torch.from_numpy(x))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (len(x), nb_classes):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(f"the network gives {got} for two images, expected logits of shape ({len(x)}, {nb_classes}).")
    return PyTorchClassifier(
        model=network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=x.shape[1:],
        nb_classes=nb_classes,
        clip_values=(0.0, 1.0),
        device_type=device_type,
    )
