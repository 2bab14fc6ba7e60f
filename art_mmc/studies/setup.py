"""
What the verbs share: data, networks built, trained or loaded for it, the images that are attacked, and where figures
come from.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.classifiers import LossDefendedClassifier, create_classifier, load_classifier
from art_mmc.classifiers.loading import check_fits, load_any
from art_mmc.data import Dataset, load_dataset
from art_mmc.distributed import main_process_first, world
from art_mmc.evaluation import wilson_interval
from art_mmc.models import create_backbone
from art_mmc.state import seeded
from art_mmc.studies.settings import Data, Training
from art_mmc.trainers import Recipe, create_trainer, get_recipe

#: the nine defences as tables show them: the baseline first, center loss, the oldest, last
ORDER = ("sce", "mmc", "mmlda", "rce", "pc", "gce", "isce", "lgm", "center")


@dataclass(frozen=True)
class Job:
    """
    What a verb is about to do, once all that it was told has been checked.

    :param dataset: The data set.
    :param folder: Where the report goes.
    :param run: Does it and returns the record; called with what takes parts of the record as they come, or None.
    :param goes_on: Whether a run that was interrupted goes on with what lies in the folder.
    :param states: Folders of finished batches, of no use once the report is written.
    :param note: What is to be said after the names of the files.
    """

    dataset: Dataset
    folder: Path
    run: Callable[[Callable[..., None] | None], Any]
    goes_on: bool = False
    states: tuple[Path, ...] = ()
    note: str = ""

    def clear_states(self) -> None:
        """Remove what evaluations kept in order to go on, and nothing else."""
        for state in self.states:
            for file in [*state.glob("[0-9][0-9][0-9]-[0-9][0-9][0-9][0-9].npz"), state / "evaluation.json"]:
                file.unlink(missing_ok=True)
            if state.is_dir() and not any(state.iterdir()):
                state.rmdir()


def load_data(settings: Data, name: str | None = None) -> Dataset:
    """
    :param settings: Which data set, and where it lies.
    :param name: Its name, where that is another one.
    :return: The data set; one process downloads it, and then all have it.
    :raises OSError: When it is not there.
    :raises ValueError: When it is damaged, or there is none of that name.
    """

    def load() -> Dataset:
        return load_dataset(name or settings.dataset, settings.data_dir, settings.download)

    return main_process_first(load) if settings.download else load()


def load_network(
    path: str | os.PathLike[str], dataset: Dataset, factory: str | None = None, device_type: str = "cpu"
) -> tuple[PyTorchClassifier, str]:
    """As :func:`.load_any`, a network that fits the data set."""
    return load_any(path, dataset.x_test, dataset.nb_classes, factory, device_type, dataset.name)


def load_trained(
    paths: Sequence[str | os.PathLike[str]], dataset: Dataset, device_type: str = "cpu"
) -> dict[str, LossDefendedClassifier]:
    """
    :param paths: Files of `art-mmc train`.
    :param dataset: The data set that the classifiers are for.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :return: The classifiers by the files' names without their endings; with the folder where two are the same.
    :raises FileNotFoundError: When a file is not there.
    :raises ValueError: When one is damaged, does not fit the data set, or has the same name as another.
    """
    files = [Path(path).expanduser() for path in paths]
    classifiers = {}
    for name, file in zip(network_names(files), files, strict=True):
        classifiers[name] = load_classifier(file, device_type=device_type)
        check_fits(classifiers[name], dataset.x_test, dataset.nb_classes, dataset.name, str(file))
    return classifiers


def network_names(files: Sequence[Path]) -> list[str]:
    """What to call the networks in these files."""
    stems = [file.stem for file in files]
    names = [
        stem if stems.count(stem) == 1 else f"{file.resolve().parent.stem}-{stem}"
        for file, stem in zip(files, stems, strict=True)
    ]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two checkpoints would both be called '{twice}': give them different file names")
    return names


def load_run(settings: Training) -> tuple[Dataset, Recipe, str]:
    """
    :param settings: Data set, recipe, epochs and backbone.
    :return: The data set, the recipe, and the name of the backbone.
    """
    dataset = load_data(settings)
    recipe = get_recipe(settings.recipe, dataset.name)
    if settings.epochs is not None:
        recipe = recipe.scaled(settings.epochs)
    return dataset, recipe, settings.backbone or default_backbone(dataset.input_shape, recipe)


@dataclass(frozen=True, eq=False)
class TrainedDefence:
    """
    A trained classifier and how it came about.

    :param classifier: The classifier.
    :param backbone: Name of its backbone.
    :param recipe: The recipe by which it was trained.
    :param history: One record an epoch; see :class:`.LossTrainer`.
    :param seconds: Time of the training.
    """

    classifier: LossDefendedClassifier
    backbone: str
    recipe: Recipe
    history: list[dict[str, Any]]
    seconds: float

    @property
    def source(self) -> dict[str, Any]:
        """How it came about, in short; plain data."""
        return {
            "backbone": self.backbone,
            "recipe": self.recipe.name,
            "epochs": self.recipe.nb_epochs,
            "seconds": round(self.seconds, 1),
        }


def default_backbone(input_shape: Sequence[int], recipe: Recipe | None = None) -> str:
    """
    :param input_shape: Shape (C, H, W) of one input.
    :param recipe: The recipe; a paper's brings its own backbone, the package's default leaves the choice to the inputs.
    :return: Name of a backbone: the recipe's, "cnn" for tiny images, "lenet5" for grey ones, else "resnet20".
    """
    if recipe is not None and recipe.name != "default":
        return recipe.backbone
    if min(input_shape[1:]) < 12:
        return "cnn"
    return "lenet5" if input_shape[0] == 1 else "resnet20"


def default_eps(dataset: Dataset) -> tuple[float, ...]:
    """
    :param dataset: The data set.
    :return: Radii between an attack that does little and one that leaves little: the papers' for colour and for MNIST
             and its kin; smaller ones for the digits, whose few pixels an attack changes with less.
    """
    channels, height, _ = dataset.input_shape
    if channels == 3:
        return tuple(k / 255 for k in (2, 4, 8, 16))
    return (0.05, 0.1, 0.15, 0.2) if height < 12 else (0.1, 0.2, 0.3)


def build_classifier(
    defence: str,
    dataset: Dataset,
    backbone: str,
    seed: int = 0,
    device_type: str = "cpu",
    activation: str | None = None,
    scaling: str | None = None,
    **options: Any,
) -> LossDefendedClassifier:
    """
    An untrained classifier for a data set, which scales its inputs inside the network.

    :param defence: Name of the defence.
    :param dataset: The data set.
    :param backbone: Name of the backbone.
    :param seed: Seed of the weights; the global random states stay as they are.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :param activation: The backbone's activation; None for its own.
    :param scaling: How the inputs are scaled, as in :class:`.Recipe`.
    :param options: Options of the defence, e.g. `scale=10.0` for "mmc".
    :return: The classifier.
    :raises ValueError: For unknown names, or what does not fit together.
    """
    with seeded(seed):
        return create_classifier(
            defence,
            create_backbone(
                backbone, dataset.input_shape, **({} if activation is None else {"activation": activation})
            ),
            input_shape=dataset.input_shape,
            nb_classes=dataset.nb_classes,
            device_type=device_type,
            **_moments(dataset, scaling or ("channel" if dataset.input_shape[0] == 3 else "unit")),
            **options,
        )


def _moments(dataset: Dataset, scaling: str) -> dict[str, Any]:
    """What a network subtracts from its inputs and divides them by."""
    if scaling == "channel":  # a channel that never changes has no deviation
        return {"mean": dataset.mean, "std": tuple(std or 1.0 for std in dataset.std)}
    if scaling == "pixel-mean":
        return {"mean": dataset.pixel_mean}
    return {"mean": {"unit": None, "half": 0.5}[scaling]}


def train_defence(
    defence: str,
    dataset: Dataset,
    recipe: Recipe,
    *,
    backbone: str | None = None,
    seed: int = 0,
    device_type: str = "cpu",
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    verbose: bool = True,
    activation: str | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    **settings: Any,
) -> TrainedDefence:
    """
    Train one defence on a data set's training part.

    :param defence: Name of the defence.
    :param dataset: The data set.
    :param recipe: The recipe.
    :param backbone: Name of the backbone; None for :func:`default_backbone`.
    :param seed: Seed of the weights and of the training; the same weights for each defence but for its head.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :param validation_data: Inputs and labels on which loss and accuracy are reported after each epoch.
    :param verbose: Whether to show a progress bar.
    :param activation: The backbone's activation; None for its own.
    :param options: Options of the defence.
    :param resume: Whether to go on with an interrupted run in `folder`.
    :param settings: More arguments of the trainer, e.g. `folder`, `keep`, `precision`.
    :return: The classifier and its history.
    :raises ValueError: For unknown names, or what does not fit together.
    :raises FloatingPointError: When the training diverges.
    """
    backbone = backbone or default_backbone(dataset.input_shape, recipe)
    classifier = build_classifier(
        defence, dataset, backbone, seed, device_type, activation, recipe.scaling, **(options or {})
    )
    trainer = create_trainer(classifier, recipe=recipe, seed=seed, verbose=verbose, **settings)
    start = time.perf_counter()
    trainer.fit(dataset.x_train, dataset.y_train, validation_data=validation_data, resume=resume)
    return TrainedDefence(classifier, backbone, recipe, trainer.history, time.perf_counter() - start)


def training_summary(trained: TrainedDefence, dataset: Dataset, seed: int, n_validation: int = 0) -> dict[str, Any]:
    """
    :param trained: The trained classifier.
    :param dataset: The data set; its test images are predicted, not attacked.
    :param seed: Seed of the training.
    :param n_validation: Number of images that were held out of the training set.
    :return: Clean test accuracy with interval, time, conditions and history; plain data that JSON can hold.
    """
    predicted = trained.classifier.predict(dataset.x_test).argmax(axis=1)
    n, correct = len(dataset.y_test), int((predicted == dataset.y_test).sum())
    return {
        "defence": trained.classifier.defence,
        "backbone": trained.backbone,
        "clean_test_accuracy": {
            "n": n,
            "correct": correct,
            "accuracy": correct / n,
            "interval": list(wilson_interval(correct, n)),
        },
        "training_seconds": trained.seconds,
        "n_validation": n_validation,
        "provenance": provenance(dataset, trained.recipe, seed, trained.classifier.device),
        "history": trained.history,
    }


def choose_test_images(dataset: Dataset, nb_test: int | None, seed: int = 0) -> np.ndarray:
    """
    Which test images are attacked: the same ones for each defence.

    :param dataset: The data set.
    :param nb_test: Number of images; None, or a number beyond what is there, for all.
    :param seed: Seed of the draw, without replacement.
    :return: Indices, ascending.
    :raises ValueError: For a number below 1.
    """
    if nb_test is not None and nb_test < 1:
        raise ValueError(f"nb_test: expected a whole number of at least 1, got {nb_test}.")
    n = len(dataset.y_test)
    if nb_test is None or nb_test >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, nb_test, replace=False))


def provenance(dataset: Dataset, recipe: Recipe, seed: int, device: torch.device) -> dict[str, Any]:
    """
    Where numbers come from.

    :param dataset: The data set.
    :param recipe: The recipe.
    :param seed: The seed.
    :param device: The device.
    :return: Plain data that JSON can hold.
    """
    return {
        "dataset": dataset.name,
        "input_shape": list(dataset.input_shape),
        "nb_classes": dataset.nb_classes,
        "n_train": len(dataset.y_train),
        "n_test": len(dataset.y_test),
        "recipe": {each.name: _plain(getattr(recipe, each.name)) for each in fields(recipe)},
        "seed": seed,
        **machine(device),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """
    When, on what and with which versions something was computed.

    :param device: The device.
    :return: Plain data that JSON can hold.
    """
    from art_mmc import __version__

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
        "processor": _processor(device),
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "versions": {
            "art_mmc": __version__,
            "adversarial-robustness-toolbox": importlib.metadata.version("adversarial-robustness-toolbox"),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _plain(value: Any) -> Any:
    """The tuples and read-only mappings of a recipe as lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _processor(device: torch.device) -> str:
    """The name of the processor; on Linux `platform` knows none."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
