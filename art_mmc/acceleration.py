"""
A user's ART classifier with the methods of this package: the same network, faster, and open to any objective.
"""

from __future__ import annotations

import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.classifiers import LossDefendedClassifier

#: methods that an attack calls; a class that brings its own is more than a network
_METHODS = ("predict", "loss_gradient", "class_gradient", "compute_loss", "custom_loss_gradient", "fit")


def accelerate(
    classifier: PyTorchClassifier, objective: str = "loss", arithmetic: str | None = None, compile: bool | str = False
) -> LossDefendedClassifier:
    """
    The same network behind the methods of :class:`.LossDefendedClassifier`: every ART attack runs faster on it, and can
    be aimed at any objective.

    :param classifier: The classifier; network, loss and optimizer are shared, not copied.
    :param objective: What the attacks climb; "loss" as on the classifier itself.
    :param arithmetic: "fast", "exact" (the same adversarial examples bit for bit) or "bfloat16"; see
           :class:`.LossDefendedClassifier`. None for the classifier's own if it is one of this package, else "fast".
    :param compile: Whether to run a `torch.compile`d network, or the name of a backend.
    :return: The classifier itself, or a view of it, if it is one of this package.
    :raises TypeError: For another kind of classifier, or a subclass that has methods of its own (smoothing, defences
            outside the network): they would be lost.
    """
    if isinstance(classifier, LossDefendedClassifier):
        wanted = objective, arithmetic or classifier.arithmetic, compile or classifier.compile
        if wanted == (classifier.objective, classifier.arithmetic, classifier.compile):
            return classifier
        view = classifier.with_objective(objective)
        _, view.arithmetic, view.compile = wanted
        return view
    if not isinstance(classifier, PyTorchClassifier):
        raise TypeError(f"classifier: expected an ART PyTorchClassifier, got {type(classifier).__name__}.")
    own = [name for name in _METHODS if getattr(type(classifier), name) is not getattr(PyTorchClassifier, name)]
    if own:
        raise TypeError(
            f"{type(classifier).__name__} has its own {', '.join(own)}: the network alone would be another classifier."
        )
    fast = share_network(classifier, objective=objective)
    fast.arithmetic, fast.compile = arithmetic or "fast", compile
    return fast


def share_network(
    classifier: PyTorchClassifier, network: torch.nn.Module | None = None, objective: str = "loss"
) -> LossDefendedClassifier:
    """
    A classifier on the network of another one, with its settings but without its methods.

    :param classifier: The classifier.
    :param network: Another network to put in the place of its own, around it say; None for its own.
    :param objective: As in :func:`accelerate`.
    :return: A :class:`.LossDefendedClassifier` with the same loss and optimizer. The network's modes are as before.
    """
    network = classifier.model if network is None else network
    modes = [(module, module.training) for module in network.modules()]
    fast = LossDefendedClassifier(
        network,
        classifier.loss,
        classifier.input_shape,
        classifier.nb_classes,
        optimizer=classifier.optimizer,
        channels_first=classifier.channels_first,
        clip_values=classifier.clip_values,
        preprocessing_defences=classifier.preprocessing_defences,
        postprocessing_defences=classifier.postprocessing_defences,
        preprocessing=classifier.preprocessing,
        device_type=str(classifier.device),
        objective=objective,
        arithmetic=getattr(classifier, "arithmetic", "fast"),
        compile=getattr(classifier, "compile", False),
    )
    if classifier._int_labels:  # also where a user has set the flag for a loss that ART does not know
        fast._loss = classifier.loss
    for module, mode in modes:
        module.training = mode
    return fast
