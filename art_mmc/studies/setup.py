"""
Train defences under the same conditions and evaluate each: what `art-mmc compare` and `art-mmc train` run.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.classifiers import LossDefendedClassifier, create_classifier
from art_mmc.data import Dataset
from art_mmc.distributed import world
from art_mmc.evaluation import RobustnessRecord, check_radii, evaluate_robustness, wilson_interval
from art_mmc.models import create_backbone
from art_mmc.state import seeded
from art_mmc.trainers import Recipe, create_trainer, get_recipe

#: the nine defences as tables show them: the baseline first, center loss, the oldest, last
ORDER = ("sce", "mmc", "mmlda", "rce", "pc", "gce", "isce", "lgm", "center")


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


@dataclass(frozen=True, eq=False)
class DefenceResult:
    """
    One defence in a comparison.

    :param defence: Name of the defence.
    :param backbone: Name of the backbone.
    :param training_seconds: Time of the training.
    :param evaluation_seconds: Time of the attacks.
    :param robustness: What the attacks left.
    """

    defence: str
    backbone: str
    training_seconds: float
    evaluation_seconds: float
    robustness: RobustnessRecord


@dataclass(frozen=True, eq=False)
class Comparison:
    """
    Defences trained and evaluated under the same conditions.

    :param results: One result a defence.
    :param provenance: The conditions: data, recipe, seed, versions, device, date; plain data.
    """

    results: tuple[DefenceResult, ...]
    provenance: dict[str, Any]

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii at which all were attacked, ascending."""
        return self.results[0].robustness.eps

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        names = ("defence", "backbone", "training_seconds", "evaluation_seconds")
        results = [
            {**{name: getattr(result, name) for name in names}, "robustness": result.robustness.to_dict()}
            for result in self.results
        ]
        return {"format": "art_mmc.comparison", "version": 1, "provenance": self.provenance, "results": results}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Comparison:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The comparison.
        """
        results = tuple(
            DefenceResult(**{**each, "robustness": RobustnessRecord.from_dict(each["robustness"])})
            for each in data["results"]
        )
        return cls(results, data["provenance"])


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


def compare(
    defences: Sequence[str],
    dataset: Dataset,
    backbone: str | None = None,
    eps: Sequence[float] | None = None,
    recipe: Recipe | str = "default",
    seed: int = 0,
    device_type: str = "cpu",
    *,
    nb_test: int | None = None,
    steps: int = 40,
    batch_size: int = 256,
    verbose: bool = True,
    on_result: Callable[[DefenceResult], None] | None = None,
) -> Comparison:
    """
    Train defences from the same seed by the same recipe, and attack each on the same test images.

    :param defences: Names of the defences.
    :param dataset: The data set.
    :param backbone: Name of the backbone; None for :func:`default_backbone`.
    :param eps: L-inf radii, inputs being in [0, 1]; None for :func:`default_eps`.
    :param recipe: A recipe or its name.
    :param seed: Seed of weights, training, choice of the test images and attacks.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :param nb_test: Number of test images to attack; None for all.
    :param steps: Steps of PGD.
    :param batch_size: Samples that are attacked at once.
    :param verbose: Whether to show progress bars.
    :param on_result: Called with each result as it comes.
    :return: The comparison.
    :raises ValueError: For unknown names, or what does not fit together; before the first training.
    """
    if not defences:
        raise ValueError("defences: expected at least one name, got none.")
    recipe = get_recipe(recipe, dataset.name) if isinstance(recipe, str) else recipe
    backbone = backbone or default_backbone(dataset.input_shape, recipe)
    radii = check_radii(default_eps(dataset) if eps is None else eps)
    for name in defences:
        build_classifier(name, dataset, backbone, seed)
    index = choose_test_images(dataset, nb_test, seed)
    x_test, y_test = dataset.x_test[index], dataset.y_test[index]
    results = []
    for name in dict.fromkeys(defences):
        trained = train_defence(
            name, dataset, recipe, backbone=backbone, seed=seed, device_type=device_type, verbose=verbose
        )
        start = time.perf_counter()
        robustness = evaluate_robustness(trained.classifier, x_test, y_test, radii, steps, batch_size, seed, verbose)
        result = DefenceResult(name, backbone, trained.seconds, time.perf_counter() - start, robustness)
        results.append(result)
        if on_result is not None:
            on_result(result)
    conditions = {
        **provenance(dataset, recipe, seed, trained.classifier.device),
        "backbone": backbone,
        "eps": list(results[0].robustness.eps),
        "steps": steps,
        "n": len(index),
    }
    return Comparison(tuple(results), conditions)


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
