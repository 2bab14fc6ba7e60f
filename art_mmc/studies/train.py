"""
Train one defence and write it to a file: what `art-mmc train` runs.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from art_mmc.checks import UNIT_BOX, check_name, unknown_name
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.checkpoint import describe, read_payload
from art_mmc.data import Dataset, split_validation
from art_mmc.defences import get_defence
from art_mmc.distributed import world
from art_mmc.pretrained import find_network
from art_mmc.state import check_replaceable, write_atomically
from art_mmc.studies import setup
from art_mmc.studies.history import beside
from art_mmc.studies.settings import ADVERSARIAL, OPTIMISATION, Train
from art_mmc.studies.setup import Job, TrainedDefence, build_classifier, load_run, load_trained, training_summary
from art_mmc.trainers import AUGMENTATIONS, Recipe, make_crafting
from art_mmc.trainers.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class Run:
    """A training and the classifier's file; what goes beside it, plain data, is empty but in the main process."""

    trained: TrainedDefence
    summary: dict[str, Any]
    output: Path


def prepare(settings: Train, device_type: str = "cpu") -> Job:
    """Train one defence on a part of the training images, and watch it on the others. It gives a :class:`Run`."""
    row = get_defence(settings.defence)
    dataset, recipe, backbone = load_run(settings)
    init, began = None, dict[str, Any]()
    if settings.init is not None:
        init, backbone, began = _load_init(settings, dataset)
    recipe = with_options(recipe, settings)
    options = defence_options(settings.set or ())
    for name in options:  # nothing else that the constructor takes
        check_name(f"option of defence '{settings.defence}':", name, row.option_names or ["(none)"])
    build_classifier(settings.defence, dataset, backbone, activation=settings.activation, init=init, **options)
    if not settings.validation and (settings.keep == "best" or settings.patience):
        raise ValueError("--keep best and --patience need a --validation share of the training images")
    output = Path(settings.output or f"runs/{settings.defence}-{Path(dataset.name).stem}.pt").expanduser()
    if output.is_dir():
        raise ValueError(f"{output} is a folder; --output names a file")
    if output.suffix == ".json":
        raise ValueError(f"--output {output}: the history goes to that .json file; name the classifier's file .pt")
    validation = None
    if settings.validation:
        train, validation = split_validation(dataset.x_train, dataset.y_train, settings.validation, settings.seed)
        dataset = dataclasses.replace(dataset, x_train=train[0], y_train=train[1])
    folder, document = beside(output, ".run"), beside(output, ".json")
    check_replaceable(output, is_classifier)
    check_replaceable(document, is_summary)
    if settings.resume or (folder / "last.pt").exists() and not settings.overwrite:
        saved = RunFolder(folder).read_state()  # a damaged file is told before the training
        if saved is not None and not settings.resume and not saved["training"]["finished"]:
            epochs = len(saved["training"]["position"]["history"])
            raise ValueError(
                f"{folder} holds an unfinished run, after {epochs} epochs: --resume goes on with it, --overwrite "
                "begins anew"
            )

    def run(on_result: Any = None) -> Run:
        trained = setup.train_defence(
            settings.defence,
            dataset,
            recipe,
            backbone=backbone,
            validation_data=validation,
            options=options,
            init=init,
            origin={"init": None} | began,  # none too, or a run without one would go on with one
            folder=folder,
            compile_network=settings.compile,
            **setup.told(settings, device_type)
            | {name: getattr(settings, name) for name in ("activation", "resume", "keep", "patience", "precision")},
        )
        held_out = 0 if validation is None else len(validation[1])
        how = {"options": options, "precision": settings.precision, "keep": settings.keep, **began}
        summary = training_summary(trained, dataset, settings.seed, held_out, **how) if world().is_main else {}
        return Run(trained, summary, output)

    return Job(dataset, output.parent, run, note=f"; history and checkpoints in {folder}", own=folder)


def _load_init(settings: Train, dataset: Dataset) -> tuple[LossDefendedClassifier, str, dict[str, Any]]:
    """The network of --init, what its backbone is called, and what tells it from others, plain data."""
    if settings.backbone or settings.activation:
        raise ValueError("--init brings its own backbone: leave --backbone and --activation out")
    file = find_network(str(settings.init))
    (classifier,) = load_trained([file], dataset, factory=settings.factory).values()
    backbone = settings.factory or describe(classifier)["backbone"]["name"]
    return classifier, backbone, {"init": {"name": file.stem, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}


def is_classifier(path: Path) -> bool:
    """Whether a file is a checkpoint of this package."""
    try:
        return bool(read_payload(path))
    except ValueError:
        return False


def is_summary(path: Path) -> bool:
    """Whether a file is what :func:`write` puts beside a classifier."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and {"defence", "clean_test_accuracy", "provenance"} <= document.keys()


def write(found: Run, folder: Path) -> list[Path]:
    """Write the classifier and, beside it, history and clean test accuracy; return the files."""
    document = beside(found.output, ".json")
    found.trained.classifier.save_checkpoint(found.output)
    write_atomically({document: (json.dumps(found.summary, indent=1) + "\n").encode()})
    return [found.output, document]


def defence_options(given: Sequence[str]) -> dict[str, Any]:
    """Options of the defence from NAME=VALUE."""
    options = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set: expected OPTION=VALUE, got '{text}'")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def with_options(recipe: Recipe, settings: Train) -> Recipe:
    """The recipe with what the command line says otherwise."""
    if settings.scale_rate and (settings.batch_size is None or settings.rate is not None):
        raise ValueError("--scale-rate scales the recipe's rate: it needs --batch-size, and has no use beside --lr")
    if settings.batch_size is not None and settings.scale_rate:
        recipe = recipe.with_batch_size(settings.batch_size)
    of_recipe = {each.name for each in dataclasses.fields(Recipe)}
    changes, attack = {}, {}
    for each in dataclasses.fields(settings):
        group, value = each.metadata["group"], getattr(settings, each.name)
        if value is not None and group in (ADVERSARIAL, OPTIMISATION) and each.name in of_recipe:
            changes[each.name] = value
        elif value is not None and group == ADVERSARIAL:
            attack[each.name] = float(value) if each.name == "norm" else value
    recipe = dataclasses.replace(recipe, **changes)
    if recipe.augmentation is not None and recipe.augmentation not in AUGMENTATIONS:
        raise unknown_name("augmentation", recipe.augmentation, AUGMENTATIONS)
    if recipe.attack is None:
        if attack or settings.adv_ratio or settings.eps_warmup:
            raise ValueError(
                "--eps and its like are settings of --adversarial, or of a recipe with adversarial training"
            )
        return recipe
    kept = {} if settings.attack else dict(recipe.attack_options)
    if settings.attack == "fgsm" and "eps" in attack:
        attack.setdefault("eps_max", None)
    recipe = dataclasses.replace(recipe, attack_options={**kept, **attack})
    make_crafting(recipe.attack, **recipe.attack_options).check(UNIT_BOX)  # data sets are in [0, 1]
    return recipe
