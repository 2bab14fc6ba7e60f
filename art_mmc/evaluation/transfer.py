"""
Black box: examples crafted on one classifier, tried on another.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import check_inputs, check_labels, check_name, indices
from art_mmc.classifiers import LossDefendedClassifier, SoftmaxClassifier
from art_mmc.classifiers.accelerate import on_double
from art_mmc.evaluation.codec import Record
from art_mmc.evaluation.engine import AttackError, Target, Watch, check_examples
from art_mmc.evaluation.records import wilson_interval
from art_mmc.models import create_backbone
from art_mmc.state import Stream, derived_seed, seeded

#: optimizer steps and batch size of a substitute
_STEPS, _BATCH = 300, 64


def distilled_substitute(
    target: Target, x: np.ndarray, eps: float, seed: int = 0, batch_size: int = 256
) -> SoftmaxClassifier:
    """
    A substitute that knows the target by its answers alone: a small network (the PC paper's 3-layer CNN if grey)
    trained on the inputs and on noisy copies of them, labelled by the target's predictions.

    | Paper link: https://arxiv.org/abs/1602.02697 (substitutes trained on the target's labels)

    :param target: The classifier under attack.
    :param x: Inputs (N, ...).
    :param eps: Radius of the noise, uniform, in the unit of the inputs.
    :param seed: Seed of weights, noise and order; torch's global state is as before.
    :param batch_size: Inputs in one pass of the target, and of the substitute in training, at most.
    :return: The substitute, trained.
    :raises ValueError: For inputs that are no images.
    """
    shape = tuple(x.shape[1:])
    size = target.image_size
    if size is None:
        raise ValueError(f"a substitute can be trained for images, got inputs of shape {shape}: give substitutes.")
    clip = target.classifier.clip_values
    low, high = (x.min(), x.max()) if clip is None else clip
    noise = np.random.default_rng(derived_seed(seed, Stream.SUBSTITUTE_NOISE)).uniform(-eps, eps, x.shape)
    inputs = np.concatenate([x, np.clip(x + noise, low, high).astype(np.float32)])
    with seeded(derived_seed(seed, Stream.ANSWERS)):  # whenever it is needed, and in whichever process
        labels = target.classes(inputs, batch_size)
    with seeded(derived_seed(seed, Stream.SUBSTITUTE)):
        substitute = SoftmaxClassifier(
            create_backbone("cnn" if min(size) < 20 else "resnet20" if shape[0] > 1 else "cnn3", shape),
            input_shape=shape,
            nb_classes=target.classifier.nb_classes,
            clip_values=clip,
            device_type="cpu" if target.classifier.device.type == "cpu" else "gpu",
        )
        batch = min(_BATCH, batch_size)
        substitute.fit(inputs, labels, batch_size=batch, nb_epochs=max(1, math.ceil(_STEPS * batch / len(inputs))))
    return substitute


@dataclass(frozen=True, eq=False)
class TransferMatrix(Record):
    """
    Accuracy of each classifier on the examples crafted on each classifier.

    :param names: Names of the classifiers.
    :param attacks: Names of the attacks.
    :param correct: Number of samples classified correctly, (A, S, T): attack, substitute, target.
    :param n: Number of samples.
    :param clean: Number of clean samples classified correctly, (T,).
    :param seed: Seed of the attacks.
    """

    DERIVED = ("interval",)

    names: tuple[str, ...]
    attacks: tuple[str, ...]
    correct: np.ndarray
    n: int
    clean: np.ndarray
    seed: int

    def accuracy(self, attack: str, substitute: str, target: str) -> float:
        """
        :param attack: Name of an attack.
        :param substitute: Name of the classifier on which the examples were crafted.
        :param target: Name of the classifier that they were tried on.
        :return: Share of the samples that it classifies correctly.
        :raises ValueError: For a name that is not there.
        """
        wanted = {
            "attack": (attack, self.attacks),
            "substitute": (substitute, self.names),
            "target": (target, self.names),
        }
        index = tuple(known.index(check_name(kind, name, known)) for kind, (name, known) in wanted.items())
        return int(self.correct[index]) / self.n

    @property
    def interval(self) -> np.ndarray:
        """95 % Wilson intervals of the accuracies, (A, S, T, 2)."""
        return np.array([wilson_interval(int(count), self.n) for count in self.correct.flat]).reshape(
            *self.correct.shape, 2
        )


def transfer_matrix(
    classifiers: Mapping[str, PyTorchClassifier],
    x: np.ndarray,
    y: np.ndarray,
    attacks: Mapping[str, Callable[[PyTorchClassifier], EvasionAttack]],
    seed: int = 0,
    batch_size: int = 256,
) -> TransferMatrix:
    """
    Craft on each classifier, try on all of them, itself among them.

    :param classifiers: Name -> classifier, all of the same inputs and classes. To craft on an objective of your choice
           give a view: `classifier.with_objective("margin")`.
    :param x: Inputs (N, ...).
    :param y: True labels: indices (N,) or one-hot (N, K).
    :param attacks: Name -> function that builds an ART attack on a classifier.
    :param seed: Seed of the attacks; the global random states, and modes and gradients of the networks, are as before.
    :param batch_size: Samples in one forward pass of the targets.
    :return: The matrix.
    :raises ValueError: For no classifiers or attacks, or data that do not fit.
    :raises AttackError: When an attack crashes, gives NaN, or meets a gradient that is NaN, which ART takes for zero.
    """
    if not classifiers or not attacks:
        raise ValueError("at least one classifier and one attack are needed.")
    x, y = np.asarray(x), np.asarray(y)
    for name, classifier in classifiers.items():
        check_inputs(x, classifier, f"x (for '{name}')")
        check_labels(y, classifier.nb_classes, length=len(x))
    x, y = x.astype(np.float32, copy=False), indices(y).astype(np.int64)
    with seeded(derived_seed(seed, Stream.TRANSFER)):
        targets = {name: Target(classifier, x) for name, classifier in classifiers.items()}
        clean = np.array([(target.classes(x, batch_size) == y).sum() for target in targets.values()])
        correct = np.zeros((len(attacks), len(targets), len(targets)), dtype=int)
        for a, (attack, build) in enumerate(attacks.items()):
            for s, (name, substitute) in enumerate(classifiers.items()):
                ours = isinstance(substitute, LossDefendedClassifier)
                view = substitute._view() if ours else on_double(substitute)
                watch = Watch(view, y, keep=False)
                try:
                    with seeded(seed):
                        x_adv = build(view).generate(x.copy(), y=y)
                    watch.check()
                except Exception as err:
                    raise AttackError(f"attack '{attack}' on '{name}' failed: {type(err).__name__}: {err}") from err
                check_examples(x_adv, x, f"attack '{attack}' on '{name}'", None, math.inf, None)
                for t, target in enumerate(targets.values()):
                    correct[a, s, t] = (target.classes(x_adv, batch_size) == y).sum()
    return TransferMatrix(tuple(classifiers), tuple(attacks), correct, len(x), clean, seed)
