"""
What the verbs share: data, networks built, trained or loaded for it, the images that are attacked, and where figures
come from.
"""

import copy
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import UNIT_BOX, whole
from art_mmc.classifiers import LossDefendedClassifier, create_classifier, load_classifier
from art_mmc.classifiers.loading import build_network, check_fits, load_any
from art_mmc.data import DATASETS, Dataset, load_dataset
from art_mmc.defences import DEFENCES
from art_mmc.distributed import main_process_first, world
from art_mmc.evaluation import wilson_interval
from art_mmc.evaluation.codec import encode
from art_mmc.models import create_backbone, wrap_backbone
from art_mmc.pretrained import FOLDER, find_network, pretrained_card
from art_mmc.state import seeded
from art_mmc.studies.settings import Data, Machine, Training
from art_mmc.trainers import Recipe, create_trainer, get_recipe

#: the defences as tables show them: the baseline first, center loss, the oldest, last
ORDER = (*(name for name in DEFENCES if name not in ("lgm", "center")), "lgm", "center")

#: what evaluations and trainings keep in their folders
_KEPT = (
    *("[0-9][0-9][0-9]-[0-9][0-9][0-9][0-9].npz", "diagnostic-*.npz", "curve-*.npz", "evaluation.json"),
    *("last.pt", "best.pt", "history.csv", "events.out.tfevents.*"),
)
#: how a command goes on that does so by itself
SAME_COMMAND = "the same command goes on from the last finished batch"


@dataclass(frozen=True)
class Job:
    """
    What a verb is about to do, all it was told being checked: `run`, called with what takes parts of the record or
    None, returns it; no other run may write to `own`, or `folder`, and `goes_on` says how an interrupted one does.
    """

    dataset: Dataset
    folder: Path
    run: Callable[[Callable[..., None] | None], Any]
    goes_on: str = ""
    states: tuple[Path, ...] = ()
    note: str = ""
    own: Path | None = None


def clear_states(states: Iterable[Path]) -> None:
    """Remove what evaluations and trainings kept in these folders in order to go on, and nothing else."""
    for state in states:
        for file in [each for pattern in _KEPT for each in state.glob(pattern)]:
            file.unlink()
        if state.is_dir() and not any(state.iterdir()):
            state.rmdir()


def load_data(
    settings: Data, name: str | None = None, networks: Sequence[Path] = (), test_only: bool = False
) -> Dataset:
    """
    The data set of the settings, or of another name, downloaded by one process; else that of the first network, if it
    is the package's, a sample for those who test only, or the digits. ValueError without training images.
    """
    name = name or settings.dataset
    if name is None and networks and networks[0].parent == FOLDER:
        name = str(pretrained_card(networks[0].stem)["dataset"])
        if test_only and not settings.data_dir and f"{name}-sample" in DATASETS:
            name = f"{name}-sample"

    def load() -> Dataset:
        return load_dataset(name or "digits", settings.data_dir, settings.download)

    dataset = main_process_first(load) if settings.download else load()
    if not test_only:
        dataset.check_training()
    return dataset


def load_network(
    path: str | os.PathLike[str], dataset: Dataset, factory: str | None = None, device_type: str = "cpu"
) -> tuple[PyTorchClassifier, str]:
    """As :func:`.load_any`, a network that fits the data set."""
    return load_any(path, dataset.x_test, dataset.nb_classes, factory, device_type, dataset.name)


def check_range(classifier: PyTorchClassifier, what: object, box: Any = UNIT_BOX) -> None:
    """ValueError unless a network, called so, takes inputs of a box, None being [0, 1], where the images are."""
    own, asked = (UNIT_BOX if each is None else each for each in (classifier.clip_values, box))
    if not all(np.all(np.equal(*pair)) for pair in zip(own, asked, strict=True)):
        has, wanted = (f"[{np.min(low):g}, {np.max(high):g}]" for low, high in (own, asked))
        raise ValueError(
            f"{what} takes inputs in {has}, not in {wanted} as all else: art-mmc evaluate alone puts images on the "
            "range of a network; elsewhere let the network normalise inputs in [0, 1] (mean, std)"
        )


def load_trained(
    paths: Sequence[str | os.PathLike[str]], dataset: Dataset, device_type: str = "cpu", factory: str | None = None
) -> dict[str, LossDefendedClassifier]:
    """Classifiers of `art-mmc train` that fit the data set, by the names of their files; with whose backbone."""
    files = [find_network(path) for path in paths]
    classifiers = {}
    for name, file in zip(network_names(files), files, strict=True):
        backbone = None if factory is None else build_network(factory, dataset.input_shape, dataset.nb_classes)
        classifiers[name] = load_classifier(file, backbone=backbone, device_type=device_type)
        check_fits(classifiers[name], dataset.x_test, dataset.nb_classes, dataset.name, str(file))
        check_range(classifiers[name], file)
    return classifiers


def network_names(files: Sequence[Path]) -> list[str]:
    """Files' names without their endings, with the folder where two are the same."""
    stems = [file.stem for file in files]
    names = [
        stem if stems.count(stem) == 1 else f"{file.resolve().parent.stem}-{stem}"
        for file, stem in zip(files, stems, strict=True)
    ]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two checkpoints would both be called '{twice}': give them different file names")
    return names


def load_run(settings: Training, networks: Sequence[Path] = ()) -> tuple[Dataset, Recipe, str]:
    """The data set, the recipe and the backbone that are asked for, its name or a factory, "module:function"."""
    dataset = load_data(settings, networks=networks)
    recipe = get_recipe(settings.recipe, dataset.name)
    if settings.epochs is not None:
        recipe = recipe.scaled(settings.epochs)
    if settings.factory and settings.backbone:
        raise ValueError("--factory takes the place of --backbone: leave one of them out")
    if settings.factory and ":" not in settings.factory:
        raise ValueError(f"--factory: expected module:function, got '{settings.factory}'")
    chosen = settings.factory or settings.backbone
    return dataset, recipe, chosen or default_backbone(dataset.input_shape, recipe)


@dataclass(frozen=True, eq=False)
class TrainedDefence:
    """A trained classifier and how it came about: `history`, `seconds` and `extended` as in :class:`.LossTrainer`."""

    classifier: LossDefendedClassifier
    backbone: str
    recipe: Recipe
    history: list[dict[str, Any]]
    seconds: float
    extended: Sequence[int] = ()

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
    """A paper's recipe brings its own; else "cnn" for tiny images, "lenet5" for grey, "resnet20" for other ones."""
    if recipe is not None and recipe.name != "default":
        return recipe.backbone
    if min(input_shape[1:]) < 12:
        return "cnn"
    return "lenet5" if input_shape[0] == 1 else "resnet20"


def default_eps(dataset: Dataset) -> tuple[float, ...]:
    """L-inf radii between an attack that does little and one that leaves little: the digits' few pixels bear less."""
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
    init: LossDefendedClassifier | None = None,
    **options: Any,
) -> LossDefendedClassifier:
    """
    A classifier to be trained on a data set, its backbone by name or factory, "module:function", scaled by a recipe; or
    with backbone and scaling of a trained one, and those of the layers behind it that are the same in both.
    """
    with seeded(seed):
        if init is None:
            network = _make_backbone(backbone, dataset, activation)
            moments = _moments(dataset, scaling or ("channel" if dataset.input_shape[0] == 3 else "unit"))
        else:
            given, network = init.model, copy.deepcopy(init.model.backbone)
            moments = {name: getattr(given.normalize, name).cpu().numpy() for name in ("mean", "std")}
        classifier = create_classifier(
            defence,
            network,
            input_shape=dataset.input_shape,
            nb_classes=dataset.nb_classes,
            device_type=device_type,
            **moments,
            **options,
        )
    if init is not None:
        own, head = classifier.model, classifier.model.head
        if repr(own.projection) == repr(given.projection):
            own.projection.load_state_dict(given.projection.state_dict())
        if type(head) is type(given.head) and head.options() == given.head.options():
            head.load_state_dict(given.head.state_dict())
    return classifier


def _make_backbone(backbone: str, dataset: Dataset, activation: str | None) -> torch.nn.Module:
    if ":" not in backbone:
        options = {} if activation is None else {"activation": activation}
        return create_backbone(backbone, dataset.input_shape, **options)
    if activation is not None:
        raise ValueError("--activation is for the backbones of this package; that of --factory has its own")
    network = build_network(backbone, dataset.input_shape, dataset.nb_classes)
    try:
        return wrap_backbone(network, dataset.input_shape)
    except TypeError as err:
        raise ValueError(f"--factory {backbone}: {err}") from err


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
    init: LossDefendedClassifier | None = None,
    origin: Mapping[str, Any] | None = None,
    resume: bool = False,
    **settings: Any,
) -> TrainedDefence:
    """
    Train one defence, from the same weights for each but for its head, or from a trained network's, of which `origin`
    tells, plain data; `settings` are more of the trainer's.
    """
    backbone = backbone or default_backbone(dataset.input_shape, recipe)
    classifier = build_classifier(
        defence, dataset, backbone, seed, device_type, activation, recipe.scaling, init, **(options or {})
    )
    if init is not None and DEFENCES[defence].warm_up:
        settings.setdefault("warmup_epochs", 0)  # a trained network has it behind it
    trainer = create_trainer(classifier, recipe=recipe, seed=seed, verbose=verbose, **settings)
    trainer.origin = dict(origin or {})
    trainer.fit(dataset.x_train, dataset.y_train, validation_data=validation_data, resume=resume)
    return TrainedDefence(classifier, backbone, recipe, trainer.history, trainer.seconds, trainer.extended)


def told(settings: Machine, device_type: str) -> dict[str, Any]:
    """What :func:`train_defence` is told by all verbs; those that do not say otherwise go on with a run."""
    return {"seed": settings.seed, "device_type": device_type, "verbose": not settings.quiet, "resume": True}


def clean_accuracy(classifier: PyTorchClassifier, dataset: Dataset) -> dict[str, Any]:
    """Accuracy on all clean test images with its interval; plain data that JSON can hold."""
    predicted = classifier.predict(dataset.x_test).argmax(axis=1)
    n, correct = len(dataset.y_test), int((predicted == dataset.y_test).sum())
    return {"n": n, "correct": correct, "accuracy": correct / n, "interval": list(wilson_interval(correct, n))}


def training_summary(
    trained: TrainedDefence, dataset: Dataset, seed: int, n_validation: int = 0, **more: Any
) -> dict[str, Any]:
    """Clean accuracy, time, conditions, of which there may be more, and history; plain data that JSON can hold."""
    return {
        "defence": trained.classifier.defence,
        "backbone": trained.backbone,
        "clean_test_accuracy": clean_accuracy(trained.classifier, dataset),
        "training_seconds": trained.seconds,
        "n_validation": n_validation,
        **({"extended_after_epochs": list(trained.extended)} if trained.extended else {}),
        "provenance": {**provenance(dataset, trained.recipe, seed, trained.classifier.device), **more},
        "history": trained.history,
    }


def choose_test_images(dataset: Dataset, nb_test: int | None, seed: int = 0) -> np.ndarray:
    """Indices, ascending, of the test images that are attacked, for each defence the same; None for all."""
    n = len(dataset.y_test)
    if nb_test is None or whole("nb_test", nb_test) >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, nb_test, replace=False))


def provenance(dataset: Dataset, recipe: Recipe, seed: int, device: torch.device) -> dict[str, Any]:
    """Where the figures of networks trained by a recipe come from; plain data that JSON can hold."""
    return {
        "dataset": dataset.name,
        "input_shape": list(dataset.input_shape),
        "nb_classes": dataset.nb_classes,
        "n_train": len(dataset.y_train),
        "n_test": len(dataset.y_test),
        "recipe": {each.name: encode(getattr(recipe, each.name)) for each in fields(recipe)},
        "seed": seed,
        **machine(device),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """When, on what and with which versions something was computed; plain data that JSON can hold."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
        "processor": _processor(device),
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what figures depend on, by name."""
    from art_mmc import __version__

    return {
        "art_mmc": __version__,
        "adversarial-robustness-toolbox": importlib.metadata.version("adversarial-robustness-toolbox"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


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
