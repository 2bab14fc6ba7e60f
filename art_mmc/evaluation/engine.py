"""
Runs plans of attacks on a classifier, batch by batch, and judges every example by the classifier itself.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.utils import is_probability

from art_mmc.attacks.auto_attack import remembering
from art_mmc.checks import ROUNDING, check_type
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.accelerate import on_double, own_attributes, share_network
from art_mmc.defences import adaptive_objective
from art_mmc.distributed import share_out
from art_mmc.evaluation.plans import MOST_TARGETS, AttackPlan
from art_mmc.evaluation.records import CLEAN, AttackRecord
from art_mmc.objectives import margin
from art_mmc.state import Stream, derived_seed, seeded

T = TypeVar("T")


class AttackError(RuntimeError):
    """An attack crashed or broke its own rules, which says nothing about robustness."""


def timed(job: Callable[[], T]) -> tuple[T, float]:
    """A job's result, and the seconds that it took."""
    start = time.perf_counter()
    return job(), time.perf_counter() - start


class Through(torch.nn.Module):
    """A network, (B, ...) -> (B, K), with something behind it: (inputs, outputs) -> outputs, (B, K)."""

    def __init__(self, network: torch.nn.Module, behind: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.behind = network, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (B, K) for inputs (B, ...)."""
        return self.behind(x, self.network(x))


def _bridged(x: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """With a gradient of zero where a network cuts its input off from the gradient: attacks run, and see nothing."""
    return outputs + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def _logarithm(x: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Of probabilities: logits of the same decision, at least the logarithm of the smallest normal number."""
    return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()


class Target:
    """A classifier under attack, any ART `PyTorchClassifier`: its predictions, and views of its network to attack."""

    def __init__(self, classifier: PyTorchClassifier, x: np.ndarray) -> None:
        check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
        self.classifier = classifier
        own = own_attributes(classifier)
        #: methods by which the class predicts or gives gradients in its own way: attacks on the network go around them,
        #: and only those without gradients ask its `predict`
        self.own_methods = tuple(name for name in _METHODS if name in own)
        ours = isinstance(classifier, LossDefendedClassifier) and not self.own_methods
        self._base = classifier if ours else share_network(classifier)
        #: whether the network's outputs have no gradient with respect to its inputs, not even zero
        self.cut = _is_cut(self._base, x[:1])
        if self.cut:
            self._base = share_network(self._base, Through(self._base.model, _bridged))
        #: whether the network gives probabilities instead of logits
        self.probabilities = all(is_probability(_outputs(self._base, row[None])[0]) for row in x[:16])
        self._logits = self._base
        if self.probabilities:
            self._logits = share_network(self._base, Through(self._base.model, _logarithm))

    @property
    def adaptive(self) -> str:
        """The objective that the defence's row names first; the soft margin for any other network."""
        return adaptive_objective(getattr(self.classifier, "row", None))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the inputs; None if they are no images."""
        shape = self.classifier.input_shape
        if len(shape) != 3:
            return None
        return (shape[1], shape[2]) if self.classifier.channels_first else (shape[0], shape[1])

    def view(self, objective: str | None) -> LossDefendedClassifier:
        """A fresh view of the network on a plan's objective, None for the adaptive; logits but for the own loss."""
        objective = self.adaptive if objective in (None, "adaptive") else objective
        return (self._base if objective == "loss" else self._logits).with_objective(str(objective))

    def margins(self, x: np.ndarray, y: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """By how much the network's logits prefer another class than y, (N,): what its gradients are of."""
        parts = [_outputs(self._logits, x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
        return margin(torch.from_numpy(np.concatenate(parts)), torch.from_numpy(y)).numpy()

    def predict(self, x: np.ndarray, batch_size: int = 256, **kwargs: Any) -> np.ndarray:
        """The classifier's outputs (N, K); FloatingPointError where they are not finite: NaN would pass for a class."""
        outputs = self.probe(x, batch_size)
        if not np.isfinite(outputs).all():
            bad = int((~np.isfinite(outputs)).any(axis=1).sum())
            raise FloatingPointError(
                f"the classifier's logits are not finite for {bad} of {len(x)} inputs: its training has diverged, its "
                "weights are damaged, or it divides by zero."
            )
        return outputs

    def probe(self, x: np.ndarray, batch_size: int = 256, **kwargs: Any) -> np.ndarray:
        """As :meth:`predict`, for the attacks, some of which ask for candidates that they then drop for their NaN."""
        return on_double(self.classifier).predict(x, batch_size=batch_size)

    def classes(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Predicted classes (N,)."""
        return self.predict(x, batch_size).argmax(axis=1)


#: methods that decide what attacks see and how examples are judged
_METHODS = ("predict", "forward", "loss_gradient", "class_gradient", "compute_loss", "attack_values")


def _outputs(classifier: LossDefendedClassifier, x: np.ndarray) -> np.ndarray:
    """What the network gives, (N, K), without the defences behind it."""
    with classifier.crafting(), torch.no_grad():
        _, inputs, _ = classifier._differentiable_input(classifier._inputs(x))
        return classifier.forward(inputs).cpu().numpy()


def _is_cut(classifier: LossDefendedClassifier, x: np.ndarray) -> bool:
    """Whether the outputs do not depend on the inputs by a graph."""
    with classifier.crafting(), torch.enable_grad():
        leaf, inputs, _ = classifier._differentiable_input(classifier._inputs(x))
        outputs = classifier.forward(inputs)
        return not outputs.requires_grad or torch.autograd.grad(outputs.sum(), leaf, allow_unused=True)[0] is None


class Watch:
    """
    Stands on the methods of a view, the attack's alone, while it runs on samples with true labels (B,): counts what it
    asks for, looks out for gradients that are no numbers, which ART would replace by zeros, and, to `keep` them, for
    the first point at which each sample was misclassified; to `remember` is not to ask for an input again at once.
    """

    def __init__(self, view: Any, y: np.ndarray, keep: bool, remember: bool = False) -> None:
        self.gradients = 0
        self.queries = 0
        self._keep = keep
        self._y = torch.as_tensor(y, device=view.device)
        self._points: torch.Tensor | None = None
        self._found = torch.zeros(len(y), dtype=torch.bool, device=view.device)
        self._broken = torch.zeros((), dtype=torch.bool, device=view.device)
        self._at: Any = None
        for name in ("loss_gradient", "class_gradient", "compute_loss", "predict", "forward", "attack_values"):
            if hasattr(view, name):  # ART's own class lacks some
                setattr(view, name, partial(getattr(self, f"_{name}"), getattr(view, name)))
        if remember:
            view.predict = remembering(view.predict)

    def _loss_gradient(self, method: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        self.gradients += len(x)
        return self._looked_at(self._at_point(method, x, *args, **kwargs))

    def _compute_loss(self, method: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        self.queries += len(x)
        return self._at_point(method, x, *args, **kwargs)

    def _at_point(self, method: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        self._at = x
        try:
            return method(x, *args, **kwargs)
        finally:
            self._at = None

    def _class_gradient(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = self._looked_at(method(*args, **kwargs))
        self.gradients += result.shape[0] * result.shape[1]
        return result

    def _looked_at(self, gradient: Any) -> Any:
        self._broken |= ~torch.isfinite(torch.as_tensor(gradient)).all()  # no waiting for the device
        return gradient

    def _predict(self, method: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        self.queries += len(x)
        return method(x, *args, **kwargs)

    def _forward(self, method: Callable[..., Any], x: Any) -> Any:  # asked by attacks that differentiate it themselves
        if torch.is_grad_enabled():
            self.gradients += len(x)
        else:
            self.queries += len(x)
        return method(x)

    def _attack_values(self, method: Callable[..., Any], outputs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # an attack that leaves samples out, or preprocessing that makes several of one, is beyond this
        if self._keep and self._at is not None and len(self._at) == len(outputs) == len(self._y):
            with torch.no_grad():
                new = (outputs.argmax(dim=1) != self._y) & ~self._found
                x = torch.as_tensor(self._at, device=new.device).detach()
                if self._points is None:
                    self._points = x.clone()
                self._points = torch.where(new.view(-1, *[1] * (x.ndim - 1)), x, self._points)
                self._found |= new
        return method(outputs, *args, **kwargs)

    def check(self) -> None:
        """A FloatingPointError when a gradient was NaN or infinite."""
        if bool(self._broken):
            raise FloatingPointError("a gradient is NaN or infinite: an attack along it goes nowhere.")

    def points(self) -> tuple[np.ndarray, np.ndarray | None]:
        """For which samples a point was kept, bool (B,), and the points (B, ...) or None."""
        points = None if self._points is None else self._points.cpu().numpy()
        return self._found.cpu().numpy(), points


#: () -> views of the classifiers on which transfer attacks craft
Substitutes = Callable[[], Sequence[LossDefendedClassifier]]


class Outcome:
    """What an attack made of a batch of clean inputs (B, ...)."""

    def __init__(self, x: np.ndarray) -> None:
        self.standing = np.ones(len(x), dtype=bool)
        self.examples = x.copy()
        self.predictions = np.full(len(x), -1)
        self.gradients = self.queries = 0
        self.seconds = 0.0

    def take(self, index: np.ndarray, examples: np.ndarray, predictions: np.ndarray, y: np.ndarray) -> None:
        """Take in what an attack gave for samples that stand, (M,): indices, examples, classes and true labels."""
        self.examples[index] = examples
        self.predictions[index] = predictions
        self.standing[index] = predictions == y


def attack_batch(
    target: Target,
    x: np.ndarray,
    y: np.ndarray,
    plan: AttackPlan,
    seed: int,
    substitutes: Substitutes = tuple,
    batch_size: int = 256,
) -> Outcome:
    """
    What a plan makes of a batch of inputs (B, ...) with true labels (B,), at least B of them in one pass; AttackError
    when it crashes or breaks its rules, FloatingPointError for logits that are no numbers.
    """
    logits = target.predict(x) if plan.targets is not None or plan.labels == "predicted" else None
    shown = y if plan.labels == "true" or logits is None else logits.argmax(axis=1)
    outcome = Outcome(x)
    sources: Sequence[LossDefendedClassifier | None] = substitutes() if plan.transfer else (None,)
    if not sources:
        raise AttackError(f"{_called(plan)} needs a substitute to craft on.")
    for source_index, source in enumerate(sources):
        for restart in range(1 if plan.packs else plan.restarts):
            for round_index, aims in enumerate(_aims(plan, shown, logits, target.classifier.nb_classes, seed)):
                live = np.flatnonzero(outcome.standing)
                if not len(live):
                    return outcome
                own = derived_seed(seed, source_index, restart, round_index)
                view = target.view(plan.objective)
                if source is not None:
                    view = source.with_objective(plan.objective or "adaptive")
                elif plan.black_box and target.own_methods:
                    view.predict = target.probe  # type: ignore[method-assign, assignment]
                watch = Watch(view, y[live], plan.watched, remember=plan.method == "square")
                labels = shown[live] if aims is None else aims[live]
                examples = _generate(plan, view, watch, x[live], labels, restart, own, batch_size)
                keeps = _called(plan), plan.eps if plan.bounded else None, plan.norm, target.classifier.clip_values
                check_examples(examples, x[live], *keeps)
                predictions = _judge(plan, target, examples)
                outcome.gradients += watch.gradients
                outcome.queries += watch.queries
                found, points = watch.points()
                if points is not None:  # an attack that changes the order of its samples has points elsewhere
                    found &= (predictions == y[live]) & ~beyond_ball(points, x[live], plan.eps, plan.norm)
                if points is not None and found.any():
                    points = np.where(found.reshape(-1, *[1] * (x.ndim - 1)), points, examples)
                    check_examples(points, x[live], *keeps)
                    # judged with all others, for networks whose samples have each their own layer
                    examples, predictions = points, np.where(found, _judge(plan, target, points), predictions)
                outcome.take(live, examples, predictions, y[live])
    return outcome


def _judge(plan: AttackPlan, target: Target, examples: np.ndarray) -> np.ndarray:
    """The classifier's classes for examples, (B,)."""
    try:
        return target.classes(examples)
    except FloatingPointError as err:
        raise FloatingPointError(f"{_called(plan)}: {err}") from err


def _aims(
    plan: AttackPlan, y: np.ndarray, logits: np.ndarray | None, nb_classes: int, seed: int
) -> Iterator[np.ndarray | None]:
    """The labels that a targeted attack aims at, (B,), one round after another; None once for an untargeted one."""
    if plan.targets is None or logits is None or (plan.packs and plan.targets == "all"):
        yield None
    elif plan.targets == "random":
        others = np.random.default_rng(derived_seed(seed, Stream.TARGETS)).integers(0, nb_classes - 1, len(y))
        yield others + (others >= y)
    else:
        others = logits.astype(np.float64)
        others[np.arange(len(y)), y] = -math.inf
        ranked = np.argsort(-others, axis=1, kind="stable")[:, : nb_classes - 1]
        if plan.targets == "least_likely":
            yield ranked[:, -1]
        else:
            yield from ranked[:, :MOST_TARGETS].T


def _generate(
    plan: AttackPlan,
    view: LossDefendedClassifier,
    watch: Watch,
    x: np.ndarray,
    y: np.ndarray,
    restart: int,
    seed: int,
    batch_size: int,
) -> np.ndarray:
    """The examples (B, ...); whatever the attack raises comes under its name."""
    try:
        with seeded(seed):
            attack = plan.build(view, restart, max(len(x), batch_size), seed)
            examples = np.array(attack.generate(x.copy(), y=y))
        watch.check()
    except Exception as err:
        raise AttackError(f"{_called(plan)} failed: {type(err).__name__}: {err}") from err
    if examples.shape != x.shape:
        raise AttackError(f"{_called(plan)} gave shape {examples.shape} for inputs of shape {x.shape}.")
    return examples


def _called(plan: AttackPlan) -> str:
    return f"attack '{plan.name}'" + (f" at eps {plan.eps:g}" if plan.bounded else "")


def check_examples(
    x_adv: np.ndarray, x: np.ndarray, attack: str, eps: float | None, norm: float, clip_values: Any
) -> None:
    """AttackError for examples (B, ...) that are no numbers, or outside ball or box; eps is None for neither."""
    if not np.isfinite(x_adv).all():
        raise AttackError(f"{attack} gave NaN or infinite values.")
    if eps is None:
        return
    far = beyond_ball(x_adv, x, eps, norm)
    if far.any():
        distance = distances(x_adv[far], x[far], norm).max()
        raise AttackError(f"{attack} left the ball: {norm_name(norm)} distance {distance:.8g}.")
    if beyond_box(x_adv, clip_values).any():
        raise AttackError(f"{attack} left the box: values from {x_adv.min():.8g} to {x_adv.max():.8g}.")


def beyond_ball(x_adv: np.ndarray, x: np.ndarray, eps: float, norm: float) -> np.ndarray:
    """Which examples (N, ...) are farther out of the ball than float32, and sums in it, explain, bool (N,)."""
    spacing = np.spacing(np.maximum(np.abs(x_adv), np.abs(x)).astype(np.float32))
    summed = 0.0 if norm == math.inf else x[0].size * ROUNDING / 1024  # that of torch's `norm` of equal numbers, twice
    reach = eps * (1 + ROUNDING + summed) + distances(2 * spacing, np.zeros_like(x), norm)
    return np.asarray(distances(x_adv, x, norm) > reach)


def beyond_box(x: np.ndarray, clip_values: Any) -> np.ndarray:
    """Which inputs (N, ...) have values outside the box by more than float32 explains, bool (N,)."""
    if clip_values is None:
        return np.zeros(len(x), bool)
    low, high = (np.asarray(bound, dtype=np.float64) for bound in clip_values)
    slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return np.asarray(((x < low - slack) | (x > high + slack)).reshape(len(x), -1).any(axis=1))


def distances(x_adv: np.ndarray, x: np.ndarray, norm: float) -> np.ndarray:
    """Norm, infinity or 2, of each perturbation (N,)."""
    difference = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return np.abs(difference).max(axis=1) if norm == math.inf else np.sqrt((difference**2).sum(axis=1))


def norm_name(norm: float) -> str:
    """What a norm is called: "L-inf" or "L2"."""
    return "L-inf" if norm == math.inf else f"L{norm:g}"


def predict_clean(
    target: Target, x: np.ndarray, y: np.ndarray, batch_size: int = 256
) -> tuple[AttackRecord, np.ndarray]:
    """The record without attack, and the predicted classes (N,)."""
    predictions, seconds = timed(partial(target.classes, x, batch_size))
    return AttackRecord(CLEAN, None, 0.0, 0.0, 0, seconds, predictions == y, queries=len(x)), predictions


def run_plan(
    target: Target,
    x: np.ndarray,
    y: np.ndarray,
    plan: AttackPlan,
    standing: np.ndarray,
    seed: int,
    batch_size: int = 256,
    substitutes: Substitutes = tuple,
    on_batch: Callable[[int, np.ndarray, Callable[[], Outcome]], Outcome] | None = None,
) -> tuple[AttackRecord, np.ndarray, np.ndarray]:
    """
    Run a plan on all samples (N, ...) that stand, bool (N,), with labels "predicted" on all, in batches that processes
    share and that depend on their number alone. `substitutes` are asked for when a transfer attack runs; `on_batch` is
    called as (number, indices, run) for each batch instead of `run()`, to keep results or take kept ones. The record;
    the examples (N, ...), clean where not attacked; the classes that they are taken for (N,), -1 there.
    """
    chosen = (np.arange(len(x)) if plan.labels == "predicted" else np.flatnonzero(standing))[: plan.samples]
    after, attacked = standing.copy(), np.zeros_like(standing)
    examples, predictions = x.copy(), np.full(len(x), -1)
    gradients, queries, seconds = 0, 0, 0.0

    def run(first: int) -> Outcome:
        index = chosen[first : first + batch_size]

        def attack() -> Outcome:
            given = (target, x[index], y[index], plan, derived_seed(seed, first), substitutes, batch_size)
            # a network that draws random numbers must not draw others for what other batches have drawn before
            with seeded(derived_seed(seed, first, 1)):
                outcome, seconds = timed(partial(attack_batch, *given))
            outcome.seconds = seconds
            return outcome

        return attack() if on_batch is None else on_batch(first // batch_size, index, attack)

    starts = range(0, len(chosen), batch_size)
    for first, outcome in zip(starts, share_out([partial(run, first) for first in starts]), strict=True):
        index = chosen[first : first + batch_size]
        after[index], attacked[index] = outcome.standing, True
        examples[index], predictions[index] = outcome.examples, outcome.predictions
        gradients, queries = gradients + outcome.gradients, queries + outcome.queries
        seconds += outcome.seconds
    record = AttackRecord(
        plan.name,
        plan.objective,
        plan.eps,
        plan.step_sizes[0],
        plan.steps,
        seconds,
        after,
        attacked,
        **{
            name: getattr(plan, name)
            for name in ("norm", "restarts", "targets", "labels", "bounded", "black_box", "round")
        },
        gradients=gradients,
        queries=queries,
        distances=None if plan.bounded else np.where(attacked & ~after, distances(examples, x, 2), math.nan),
    )
    return record, examples, predictions
