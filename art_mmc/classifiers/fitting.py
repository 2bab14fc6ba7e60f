"""
What `fit` of a classifier and of a trainer share: losses, sample weights, learning-rate schedulers, batches of one.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from art_mmc.checks import check_name, indices, shown
from art_mmc.classifiers.checkpoint import scalars
from art_mmc.losses.base import Loss

#: losses that take class indices; any other gets rows, as from ART
TAKE_INDICES = (Loss, torch.nn.CrossEntropyLoss, torch.nn.NLLLoss, torch.nn.MultiMarginLoss)


class OneHotLoss(torch.nn.Module):
    """
    A loss that wants labels in the shape of the outputs, which is what ART gives to losses that it does not know.

    :param loss: The loss, called with outputs (B, K) and rows (B, K) of the same type, one-hot where the labels are
           indices. A network with a single output gets the index itself, as from ART for binary cross-entropies.
    """

    __module__ = "art_mmc.classifiers"

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    @property
    def reduction(self) -> str:
        """The loss' own reduction; AttributeError if it has none."""
        return self.loss.reduction

    @reduction.setter
    def reduction(self, value: str) -> None:
        self.loss.reduction = value

    def __copy__(self) -> "OneHotLoss":
        return OneHotLoss(copy.copy(self.loss))

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """
        :param outputs: Outputs (B, K), or (B,) or (B, 1) of a binary network.
        :param y: Labels: indices (B,) or rows (B, K).
        :return: What the loss gives.
        """
        if outputs.ndim == 1 or outputs.shape[1] == 1:
            y = indices(y).view_as(outputs)
        elif y.ndim == 1:
            y = functional.one_hot(y, outputs.shape[1]).to(outputs.dtype)
        if not isinstance(self.loss, torch.nn.MultiLabelMarginLoss):  # whose rows list class indices
            y = y.to(outputs.dtype)
        return self.loss(outputs, y)


def counted(loss: torch.Tensor, logits: torch.Tensor, y: torch.Tensor, samples: Any = None) -> torch.Tensor:
    """What a batch, its loss standing for so many samples, adds to losses, correct predictions and samples, (3,)."""
    true = indices(y).to(logits.device)
    seen = loss.detach().double().sum()
    correct = (logits.detach().argmax(dim=1) == true).sum().double()
    samples = len(logits) if samples is None else samples
    return torch.stack([seen * samples, correct, torch.full_like(seen, len(logits))])


def batches_in(generator: Any) -> int:
    """Batches in one pass over a generator's data; one where it does not say how many samples it has."""
    return max(1, -(-(generator.size or generator.batch_size) // generator.batch_size))


@contextmanager
def explained(samples: int) -> Iterator[None]:
    """Around a pass in training mode on so many samples: what torch says of a batch of one, in words that help."""
    try:
        yield
    except ValueError as err:
        if samples <= 1 and "more than 1 value per channel" in str(err):
            raise ValueError(
                "batch_size: expected batches of at least 2 samples, got one, in which batch normalisation has no "
                "variance; take a larger batch_size, or a network without it."
            ) from err
        raise


def with_reduction(loss: Any, reduction: str | None) -> Any:
    """The loss, or a copy with another reduction if it has one, since others may use it meanwhile; None for its own."""
    if reduction is None or getattr(loss, "reduction", reduction) == reduction:
        return loss
    loss = copy.copy(loss)
    loss.reduction = reduction
    return loss


def class_weights(loss: Any, y: torch.Tensor) -> torch.Tensor | None:
    """The weights of the classes of labels (B,), by whose sum the loss' mean divides; None where it goes by number."""
    weight = getattr(loss, "weight", None)
    if weight is None or y.ndim > 1 or not isinstance(loss, (Loss, torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
        return None
    return torch.as_tensor(weight).to(y.device, non_blocking=True)[y]


def mean_over(loss: Any, y: torch.Tensor) -> Any:
    """What the loss' mean over a batch with labels y, (B,) or (B, K), divides by."""
    weights = class_weights(loss, y)
    return len(y) if weights is None else weights.sum()


def reduced(loss: Any, values: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Values (B,), one a sample with labels y, reduced as the loss reduces its own."""
    if getattr(loss, "reduction", "mean") == "mean":
        return values.sum() / mean_over(loss, y)
    return values if loss.reduction == "none" else values.sum()


def weighted_loss(loss: Any, outputs: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """A batch's loss, each sample's value times its weight (B,); TypeError for a loss that gives no value a sample."""
    if weights is None:
        value = loss(outputs, y)
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError(
                "model: the loss has no gradient: a detach() or torch.no_grad() in the network's forward, or all its "
                "parameters frozen?"
            )
        return value
    values = with_reduction(loss, "none")(outputs, y)
    if not values.ndim or len(values) != len(outputs):
        raise TypeError(
            f"sample_weight: {type(loss).__name__} gives no value a sample; it needs an attribute `reduction` and, set "
            'to "none", to give one number for each.'
        )
    if values.ndim > 1:  # a loss of outputs one by one, such as a squared error
        values = values.flatten(1).mean(dim=1) if loss.reduction == "mean" else values.flatten(1).sum(dim=1)
    return reduced(loss, values * weights.to(values), y)


def check_weights(weights: Any, length: int) -> torch.Tensor | None:
    """Sample weights (N,) or (N, 1) as float32 (N,); ValueError for another shape, or what is not finite or below 0."""
    if weights is None:
        return None
    try:
        numbers = np.asarray(weights, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"sample_weight: expected numbers, got {shown(weights)}.") from None
    if numbers.shape not in ((length,), (length, 1)):
        raise ValueError(f"sample_weight: expected one number for each of {length} samples, got shape {numbers.shape}.")
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError("sample_weight: expected finite numbers of at least 0.")
    return torch.from_numpy(numbers.reshape(length).copy())


def check_optimizer(optimizer: Any, modules: Sequence[Any]) -> None:
    """TypeError for what is no optimizer, ValueError for one of which no parameter is the modules'."""
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        kind = optimizer.__name__ if isinstance(optimizer, type) else type(optimizer).__name__
        raise TypeError(f"optimizer: expected one that is made, such as Adam(model.parameters()), got {kind}.")
    own = {id(each) for module in modules if isinstance(module, torch.nn.Module) for each in module.parameters()}
    if not any(id(each) in own for group in optimizer.param_groups for each in group["params"]):
        raise ValueError("optimizer: none of its parameters are the network's: make one of model.parameters().")


def is_made(scheduler: Any) -> bool:
    """Whether it is a scheduler itself, not a function or class that makes one; TypeError for what is neither."""
    made = hasattr(scheduler, "step") and not isinstance(scheduler, type)
    if not made and not callable(scheduler):
        raise TypeError(f"scheduler: expected something with a step(), got {type(scheduler).__name__}.")
    return made


def check_logits(outputs: Any, samples: int, nb_classes: int) -> None:
    """Refuse what a network returned and what are no logits (B, K), or one a sample, (B,) or (B, 1), of so many."""
    if not isinstance(outputs, torch.Tensor):
        raise TypeError(
            f"model: expected one tensor of logits (B, K), the network returned a {type(outputs).__name__}; take its "
            "auxiliary outputs off (aux_logits=False), or wrap it in a module whose forward picks the logits, e.g. "
            "`return self.net(x)[0]`."
        )
    shape = tuple(outputs.shape)
    if shape not in ((samples,), (samples, 1), (samples, nb_classes)):
        raise ValueError(
            f"model: expected logits ({samples}, {nb_classes}) of {samples} inputs, nb_classes being {nb_classes}, the "
            f"network returned {shape}."
        )
    if not outputs.is_floating_point():
        raise TypeError(f"model: expected logits, the network returned {outputs.dtype}: classes, by an argmax?")


def described_scheduler(scheduler: Any) -> dict[str, Any]:
    """What tells a scheduler, or what makes one, from others: its names and numbers, plain data."""
    if is_made(scheduler):
        return {"scheduler": type(scheduler).__name__, **scalars(vars(scheduler))}
    settings = scalars(getattr(scheduler, "keywords", {}))
    while hasattr(scheduler, "func"):
        scheduler = scheduler.func
    code = getattr(scheduler, "__code__", None)
    numbers = [each for each in code.co_consts if isinstance(each, (int, float, str))] if code else []
    return {"made by": getattr(scheduler, "__qualname__", type(scheduler).__name__), "constants": numbers, **settings}


class Schedule:
    """A scheduler, as it is or as what makes one, or none, and when it steps: :meth:`.LossDefendedClassifier.fit`."""

    def __init__(
        self, given: Any = None, optimizer: Any = None, interval: str | None = None, epochs: int = 0, batches: int = 0
    ) -> None:
        made = given if given is None or is_made(given) else given(optimizer)
        if given is not None and not hasattr(made, "step"):
            raise TypeError(f"scheduler: expected a function that returns something with a step(), got {shown(made)}.")
        if interval is not None:
            check_name("scheduler_interval", interval, ("epoch", "batch"))
        self.scheduler, self.by_batch = made, interval == "batch"
        #: whether it asks for the figures of an epoch
        self.watches = isinstance(made, ReduceLROnPlateau)
        if self.by_batch and self.watches:
            raise ValueError("scheduler_interval: a ReduceLROnPlateau looks at the figures of an epoch, once an epoch.")
        if interval is None and isinstance(made, OneCycleLR):
            self.by_batch = made.total_steps == epochs * batches != epochs

    def after_batch(self) -> None:
        """Step, if it is time."""
        if self.scheduler is not None and self.by_batch:
            self.scheduler.step()

    def after_epoch(self, loss: float, figure: float) -> None:
        """Step, if it is time; a `ReduceLROnPlateau` is told the loss or, in mode "max", the accuracy."""
        if self.watches:
            for group in self.scheduler.optimizer.param_groups:  # as other schedulers do; see same_optimizer
                group.setdefault("initial_lr", group["lr"])
            self.scheduler.step(loss if self.scheduler.mode == "min" else figure)
        elif self.scheduler is not None and not self.by_batch:
            self.scheduler.step()
