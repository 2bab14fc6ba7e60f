"""
One classifier, from whatever file a user has, evaluated on a data set: what `art-mmc evaluate` runs.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import box_unit
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.data import Dataset
from art_mmc.evaluation import RobustnessEvaluation, RobustnessRecord, budget, get_suite
from art_mmc.evaluation.curves import measure_curves
from art_mmc.models.base import WrappedBackbone
from art_mmc.pretrained import find_network
from art_mmc.studies import setup
from art_mmc.studies.settings import Evaluate, check_typed

#: test images that are attacked, and images for the curves, at most
NB_TEST, CURVES = 1000, 64


def prepare(settings: Evaluate, device_type: str = "cpu") -> setup.Job:
    """Load a network and choose the attacks. It gives a :class:`.RobustnessRecord`."""
    suite = get_suite(settings.suite)
    checkpoint = find_network(settings.checkpoint)
    dataset = setup.load_data(settings, networks=[checkpoint], test_only=True)
    classifier, kind = setup.load_network(checkpoint, dataset, settings.factory, device_type)
    given = settings.substitute or []
    substitutes = [setup.load_network(path, dataset, None, device_type)[0] for path in given]
    for path, substitute in zip(given, substitutes, strict=True):
        setup.check_range(substitute, path, classifier.clip_values)
    if settings.norm == "inf":
        check_typed(settings.eps, classifier.clip_values)
    radii = settings.eps
    if radii is None:
        unit = box_unit(classifier.clip_values, "the default of --eps")
        radii = [unit * eps for eps in suite.eps_for(dataset.name) or setup.default_eps(dataset)]
    nb_test, curves = settings.nb_test or NB_TEST, CURVES if settings.curves is None else settings.curves
    if suite.name == "quick":
        cost = budget.operations(classifier, dataset.x_test)
        nb_test = settings.nb_test or budget.affordable(cost, budget.ATTACKS * len(radii), NB_TEST, 20)
        curves = budget.affordable(cost, budget.CURVES, CURVES, 4) if settings.curves is None else curves
    given_rounds = {name: getattr(settings, name) for name in ("rounds", "converged")}
    given_rounds = {name: value for name, value in given_rounds.items() if value is not None}
    if given_rounds and suite.rounds is None:
        raise ValueError(f"--rounds and --converged: suite '{suite.name}' does not go on in rounds, as strong does")
    folder = Path(settings.output or f"runs/evaluate-{checkpoint.stem}-{suite.name}").expanduser()
    evaluation = RobustnessEvaluation(
        suite.name,
        radii,
        math.inf if settings.norm == "inf" else 2,
        quirks=settings.quirk or (),
        **given_rounds,
        diagnostics=not settings.no_diagnostics,
        substitutes=substitutes or None,
        batch_size=settings.batch_size,
        seed=settings.seed,
        folder=folder / "state",
        verbose=not settings.quiet,
    )

    about = {"checkpoint": checkpoint.name, "kind": kind, "substitutes": [Path(path).name for path in given]}

    def run(on_result: Any = None) -> RobustnessRecord:
        return assess(
            classifier,
            dataset,
            evaluation,
            nb_test=nb_test,
            curves=curves,
            name=settings.name or checkpoint.stem,
            about=about,
        )

    return setup.Job(dataset, folder, run, goes_on=setup.SAME_COMMAND, states=(folder / "state",))


def assess(
    classifier: PyTorchClassifier,
    dataset: Dataset,
    evaluation: RobustnessEvaluation,
    *,
    nb_test: int | None = None,
    curves: int = CURVES,
    name: str = "",
    about: Mapping[str, Any] | None = None,
) -> RobustnessRecord:
    """
    Evaluate a classifier, called `name` in reports, on `nb_test` test images, or all, put on the range of its
    `clip_values`, with curves of so many; the record has inputs and examples, and `about` in its provenance.
    """
    index = setup.choose_test_images(dataset, nb_test, evaluation.seed)
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
                keep=None if evaluation.state is None else evaluation.state.count,
                verbose=evaluation.verbose,
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
        **setup.machine(classifier.device),
        **{key: fingerprint.pop(key) for key in ("left_out", "protocol") if key in fingerprint},
        "fingerprint": fingerprint,
    }
    return replace(record, provenance=facts, curves=measured, inputs=x, index=index)


def in_box(x: np.ndarray, clip_values: Any) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] on the range of a classifier's inputs, None for [0, 1]; float32."""
    if clip_values is None or (np.all(clip_values[0] == 0) and np.all(clip_values[1] == 1)):
        return x
    low, high = (np.asarray(bound, dtype=np.float64) for bound in clip_values)
    return np.clip(low + (high - low) * x, low, high).astype(np.float32)


def describe_classifier(classifier: PyTorchClassifier) -> dict[str, Any]:
    """Its class, and for one of this package its defence, backbone and options; plain data."""
    facts: dict[str, Any] = {"classifier": type(classifier).__name__}
    if isinstance(classifier, LossDefendedClassifier) and classifier.row is not None:
        backbone = getattr(classifier.model, "backbone", None)
        recipe = getattr(backbone, "recipe", None)
        facts["defence"] = classifier.row.name
        users = backbone.module if isinstance(backbone, WrappedBackbone) else backbone
        facts["backbone"] = recipe["name"] if recipe else type(users).__name__
        facts["options"] = {**classifier.model.head.options(), **classifier.loss.options()}
    facts["parameters"] = sum(parameter.numel() for parameter in classifier.model.parameters())
    return facts
