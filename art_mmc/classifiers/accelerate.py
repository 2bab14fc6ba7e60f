"""
A user's ART classifier with the methods of this package: the same network, faster, and open to any objective.
"""

from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import check_type
from art_mmc.classifiers.base import LossDefendedClassifier, _Wrapper, own_forward
from art_mmc.classifiers.fitting import TAKE_INDICES, OneHotLoss
from art_mmc.models.inference import Prepared


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
    :return: The classifier itself, or a view of it, if it is one of this package. What a subclass of ART's class does
             in its own way (preprocessing, say) stays.
    :raises TypeError: For another kind of classifier, or a subclass that does itself what this package does in another
            way (prediction, gradients, the call of its network): it would be lost.
    """
    if isinstance(classifier, LossDefendedClassifier):
        wanted = objective, arithmetic or classifier.arithmetic, compile or classifier.compile
        if wanted == (classifier.objective, classifier.arithmetic, classifier.compile):
            return classifier
        view = classifier.with_objective(objective)
        _, view.arithmetic, view.compile = wanted
        return view
    check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
    lost = [name for name in own_attributes(classifier) if name in vars(LossDefendedClassifier)]
    if not _calls_its_network(classifier):
        lost.append(type(classifier._model).__name__)
    if lost:
        raise TypeError(
            f"{type(classifier).__name__} has its own {', '.join(dict.fromkeys(lost))}: on the network alone it would "
            "be another classifier."
        )
    fast = share_network(classifier, objective=objective)
    fast.arithmetic, fast.compile = arithmetic or "fast", compile
    return fast


def own_attributes(classifier: PyTorchClassifier) -> list[str]:
    """Names of methods and properties of ART's class, or of this package's, that class or object has in its own way."""
    base = LossDefendedClassifier if isinstance(classifier, LossDefendedClassifier) else PyTorchClassifier
    offered = {name: getattr(base, name) for name in dir(base) if not name.startswith("__")}
    known = {name for name, value in offered.items() if callable(value) or isinstance(value, property)}
    theirs = [vars(cls) for cls in type(classifier).__mro__ if not issubclass(base, cls)] + [vars(classifier)]
    return [name for names in theirs for name in names if name in known]


def _calls_its_network(classifier: PyTorchClassifier) -> bool:
    """Whether what ART calls is the network as it is."""
    of_art = type(classifier._model).forward.__qualname__.startswith("PyTorchClassifier._make_model_wrapper.")
    return isinstance(classifier._model, _Wrapper) or (of_art and not own_forward(classifier.model))


class LastOutput(torch.nn.Module):
    """What a classifier predicts by: the last output of its wrapper, which maps inputs (B, ...) to a list."""

    def __init__(self, wrapper: torch.nn.Module) -> None:
        super().__init__()
        self.training = wrapper.training
        self.wrapper = wrapper

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) to logits (B, K)."""
        return self.wrapper(x)[-1]


def share_network(
    classifier: PyTorchClassifier, network: torch.nn.Module | None = None, objective: str = "loss"
) -> LossDefendedClassifier:
    """
    A :class:`.LossDefendedClassifier` on the network of another classifier, or one in its place, with the same loss and
    optimizer and all that the classifier does in its own way but for the methods that this package has.
    """
    own = own_attributes(classifier)
    ours = tuple(name for name in own if name in vars(LossDefendedClassifier))
    plain = not own or issubclass(LossDefendedClassifier, type(classifier))
    fast = object.__new__(LossDefendedClassifier if plain else _kind(type(classifier), ours))
    left_out = ("_model_wrapper", "_features", *ours)
    fast.__dict__.update({name: value for name, value in vars(classifier).items() if name not in left_out})
    if network is None:
        network = classifier.model if _calls_its_network(classifier) else LastOutput(classifier._model)
    fast._model = _Wrapper(network)
    fast._layer_names = fast._model.get_layers
    loss = classifier.loss
    # also where a user has set the flag for a loss that ART does not know
    takes_as_it_is = loss is None or classifier._int_labels or isinstance(loss, (*TAKE_INDICES, OneHotLoss))
    fast._loss = loss if takes_as_it_is else OneHotLoss(loss)
    fast._begin(objective, getattr(classifier, "arithmetic", "fast"), getattr(classifier, "compile", False))
    return fast


def _kind(theirs: type[PyTorchClassifier], ours: tuple[str, ...]) -> type[LossDefendedClassifier]:
    """A user's class with this package's methods where that has none of its own, and in the place of those named."""
    bases = (theirs,) if issubclass(theirs, LossDefendedClassifier) else (theirs, LossDefendedClassifier)
    names = {name: vars(LossDefendedClassifier)[name] for name in ours}
    again = {"__reduce__": lambda self: (_revived, (theirs, ours, self.__getstate__()))}
    return type(theirs.__name__, bases, {**names, **again, "defence": None})


def _revived(theirs: type[PyTorchClassifier], ours: tuple[str, ...], state: dict[str, Any]) -> LossDefendedClassifier:
    classifier = object.__new__(_kind(theirs, ours))
    classifier.__setstate__(state)
    return classifier


def on_double(classifier: PyTorchClassifier) -> PyTorchClassifier:
    """A classifier whose calls of ART's own methods switch modes and leave gradients on a double of the network."""
    if isinstance(classifier, LossDefendedClassifier):
        return classifier
    view = object.__new__(type(classifier))
    view.__dict__.update({name: value for name, value in vars(classifier).items() if name != "_features"})
    prepared = Prepared(classifier._model, training=None)
    view._model = prepared.network
    view._model.register_forward_hook(lambda *_: prepared.pass_on())
    return view
