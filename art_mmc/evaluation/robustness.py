"""
How robust is a trained classifier? Suites of attacks on what still stands, the worst case over them, and a verdict on
whether the figure can be trusted.

What is measured is an upper bound: a better attack can only lower it.
"""

import copy
import functools
import hashlib
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import art
import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.evaluations.evaluation import Evaluation

import art_mmc
from art_mmc.checks import (
    as_path,
    box_unit,
    check_images,
    check_labels,
    check_radii,
    check_seed,
    check_type,
    number,
    whole,
)
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.defences import adaptive_objective
from art_mmc.distributed import check_same, in_main_process, progress
from art_mmc.evaluation import budget
from art_mmc.evaluation.diagnostics import FEW, PLANTED, SAMPLES, Examination, Part, judge
from art_mmc.evaluation.engine import Outcome, Target, beyond_box, predict_clean, run_plan
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import AttackRecord, Diagnostic, RobustnessRecord, gains, withstood
from art_mmc.evaluation.suites import CONVERGED, FGSM, PGD_ADAPTIVE, PGD_LOSS, ROUNDS, figures, get_suite
from art_mmc.evaluation.transfer import distilled_substitute
from art_mmc.state import Stream, derived_seed, make_folder, seeded, write_atomically
from art_mmc.trainers.run_folder import RunMismatchError

T = TypeVar("T")

#: names of the attacks of :func:`evaluate_robustness`, in the order in which they run
ATTACKS = (FGSM, PGD_LOSS, PGD_ADAPTIVE)


class StateFolder:
    """Finished parts of an evaluation, a file each, from which a killed run goes on; ValueError for another's."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        self.path = path
        make_folder(path)
        description = path / "evaluation.json"
        if description.exists():
            try:
                there = dict(json.loads(description.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as err:
                raise RunMismatchError(
                    f"{description} is damaged ({err}): take another folder, or delete this one."
                ) from err
            different = [name for name in fingerprint if there.get(name) != fingerprint[name]]
            if different:
                raise RunMismatchError(
                    f"{path} holds another evaluation (another {', '.join(different)}): take another folder, or "
                    "delete this one."
                )
        else:
            write_atomically({description: json.dumps(fingerprint, indent=1).encode()})

    def batch(
        self, plan: int, x: np.ndarray, number: int, index: np.ndarray, run: Callable[[], Outcome], whole: bool = False
    ) -> Outcome:
        """A batch of a plan, kept or run now; what stands is clean in the file unless it is kept `whole`."""

        def facts(outcome: Outcome) -> dict[str, Any]:
            moved = np.flatnonzero(~outcome.standing | whole)
            return {**vars(outcome), "index": index, "moved": moved, "examples": outcome.examples[moved]}

        return self.kept(f"{plan:03d}-{number:04d}", run, facts, partial(self._read, index, x[index]))

    @staticmethod
    def _read(index: np.ndarray, x: np.ndarray, kept: Mapping[str, np.ndarray]) -> Outcome:
        outcome = Outcome(x)
        if not np.array_equal(kept["index"], index):
            raise ValueError("it holds other samples; does the classifier not do the same twice?")
        outcome.standing, outcome.predictions = kept["standing"], kept["predictions"]
        outcome.examples[kept["moved"]] = kept["examples"]
        outcome.gradients, outcome.queries = int(kept["gradients"]), int(kept["queries"])
        outcome.seconds = float(kept["seconds"])
        return outcome

    def part(self, number: int, run: Callable[[], tuple[Part, float]]) -> tuple[Part, float]:
        """A part of the diagnostics and its seconds, as :meth:`batch`; one that failed is tried again the next time."""

        def facts(result: tuple[Part, float]) -> dict[str, Any]:
            (diagnostics, found), seconds = result
            examples, classes = zip(*found.values(), strict=True) if found else ((), ())
            told = json.dumps([each.to_dict() for each in diagnostics])
            return {"told": told, "index": list(found), "examples": examples, "classes": classes, "seconds": seconds}

        def read(kept: Mapping[str, np.ndarray]) -> tuple[Part, float]:
            diagnostics = [Diagnostic.from_dict(each) for each in json.loads(str(kept["told"]))]
            examples = zip(kept["examples"], kept["classes"].tolist(), strict=True)
            return (diagnostics, dict(zip(kept["index"].tolist(), examples, strict=True))), float(kept["seconds"])

        def looked_at(result: tuple[Part, float]) -> bool:
            return not any(math.isnan(each.value) for each in result[0][0])

        return self.kept(f"diagnostic-{number:04d}", run, facts, read, looked_at)

    def count(self, name: str, run: Callable[[], tuple[int, float]]) -> tuple[int, float]:
        """A number of samples and its seconds, as :meth:`batch`; the name says all that decides it."""
        name = f"curve-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.kept(
            name,
            run,
            lambda result: {"count": result[0], "seconds": result[1]},
            lambda kept: (int(kept["count"]), float(kept["seconds"])),
        )

    def kept(
        self,
        name: str,
        run: Callable[[], T],
        facts: Callable[[T], dict[str, Any]],
        read: Callable[[Mapping[str, np.ndarray]], T],
        worth_keeping: Callable[[T], bool] = lambda result: True,
    ) -> T:
        """What a file of arrays holds, or what is run now and, if worth it, written there; ValueError for damage."""
        file = self.path / f"{name}.npz"
        if file.exists():
            try:
                with np.load(file) as kept:
                    return read(kept)
            except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as err:
                raise RunMismatchError(f"{file} is damaged ({err}): delete it, and its batch runs again.") from err
        result = run()
        if worth_keeping(result):
            arrays = facts(result)
            write_atomically({file: lambda handle: np.savez(handle, **arrays)})
        return result


class RobustnessEvaluation(Evaluation):
    """
    Runs a suite of attacks on an ART `PyTorchClassifier`, takes the worst case over all of them for each sample, looks
    for the symptoms of masked gradients, and gives a verdict.

    In a program that torchrun has started in several processes, once they have met (:func:`.distributed.join`, or a
    training), all must evaluate the same: they share the batches of each attack and the diagnostics among them, and
    each gets the record that one process would have got. Its seconds are added up over the processes.

    The attacks climb objectives on views of the network that share its weights; each example is judged by the
    classifier's own `predict`. Only samples that are classified correctly when clean are attacked, with true labels;
    the others count as wrong. Every point that an iterative attack visits counts, not only its last. An attack that
    crashes or leaves the ball stops the evaluation by its name.
    """

    def __init__(
        self,
        suite: str | Sequence[AttackPlan] = "standard",
        eps: float | Sequence[float] | None = None,
        norm: float = math.inf,
        *,
        quirks: Sequence[str] = (),
        diagnostics: bool = True,
        converged: float = CONVERGED,
        rounds: int = ROUNDS,
        substitutes: Sequence[PyTorchClassifier] | None = None,
        batch_size: int = 256,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create an evaluation.

        :param suite: Name of a suite, see :data:`.SUITES`, or plans of your own, all with balls of one norm or without.
        :param eps: Radius or radii of the ball, in the unit of the inputs; None for the radii of a paper's protocol,
               as shares of the width of the classifier's `clip_values`, and for plans of your own, which have theirs.
        :param norm: Norm of the ball, infinity or 2; for plans of your own it is theirs.
        :param quirks: What a paper's code did differently, by name; see :data:`.QUIRKS`.
        :param diagnostics: Whether to look for masked gradients and to judge, at the largest radius.
        :param converged: Share of the samples below which a round has found so little that there is no other one, for a
               suite that goes on in rounds; in [0, 1).
        :param rounds: Rounds at most, each about as dear as all that came before.
        :param substitutes: Classifiers on which transfer attacks craft; None for one that is trained on the evaluated
               inputs and the classifier's answers to them.
        :param batch_size: Samples that are attacked at once, and inputs in one pass of the network, at most.
        :param seed: Seed of all randomness.
        :param folder: Folder for the finished batches and diagnostics: the same evaluation goes on from there after a
               kill. None for none.
        :param verbose: Whether to show a progress bar.
        :raises ValueError: For an unknown suite or quirk, radii out of range, or what does not fit together.
        """
        if not isinstance(suite, str) and not all(
            isinstance(each, AttackPlan) for each in (suite if isinstance(suite, Iterable) else [suite])
        ):
            raise TypeError(f"suite: expected the name of one, or AttackPlans, got {suite!r}.")
        for each in substitutes or ():
            check_type("substitutes", each, PyTorchClassifier, "ART PyTorchClassifiers")
        self.suite = get_suite(suite) if isinstance(suite, str) else None
        self.plans = None if isinstance(suite, str) else list(suite)
        if norm not in (2, math.inf):
            raise ValueError(f"norm: expected 2 or infinity, got {norm!r}.")
        if self.suite is None:
            balls = [plan for plan in self.plans or () if plan.bounded]
            norms = {plan.norm for plan in balls}
            if len(norms) != 1:
                raise ValueError("suite: expected at least one plan with a ball, and balls of one norm.")
            if eps is not None or quirks:
                raise ValueError("eps and quirks: plans of your own have their radii, and no quirks.")
            norm, eps = norms.pop(), [plan.eps for plan in balls]
        #: whether the radii are those of a paper, for inputs in [0, 1]
        self.published_eps = eps is None
        if eps is None:
            assert self.suite is not None
            eps = self.suite.eps_for("")
            if eps is None:
                raise ValueError(f"suite '{self.suite.name}' is no paper's protocol: eps is needed, e.g. eps=8 / 255.")
        self.eps = check_radii(eps, norm, None)
        self.norm, self.quirks = norm, tuple(quirks)
        self.diagnostics = diagnostics
        self.converged, self.rounds = number("converged", converged, 0, 1, "[)"), whole("rounds", rounds)
        self.substitutes = substitutes
        self.batch_size, self.seed, self.verbose = whole("batch_size", batch_size), check_seed(seed), verbose
        self.folder = None if folder is None else as_path("folder", folder)
        #: what was kept in the folder of the last evaluation
        self.state: StateFolder | None = None
        if self.suite is not None:
            self.suite.check(norm, self.quirks)

    def evaluate(  # type: ignore[override]
        self, classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray, **kwargs: Any
    ) -> RobustnessRecord:
        """
        Evaluate a classifier.

        :param classifier: The classifier, trained; any ART `PyTorchClassifier`.
        :param x: Inputs (N, ...), in the classifier's `clip_values`.
        :param y: True labels: indices (N,) or one-hot (N, K).
        :param kwargs: None is known.
        :return: The record, with `verdict` and `diagnostics` unless they were turned off.
        :raises TypeError: For another kind of classifier.
        :raises ValueError: For bad inputs or labels, or a folder of another evaluation.
        :raises FloatingPointError: When the logits are not finite.
        :raises AttackError: When an attack crashes or breaks its rules.
        """
        if kwargs:
            raise TypeError(f"evaluate() got unknown arguments: {', '.join(kwargs)}.")
        check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
        x, y = check_images(x, classifier.input_shape), np.asarray(y)
        y = check_labels(y, classifier.nb_classes, length=len(x))
        x = x.astype(np.float32, copy=False)
        box = classifier.clip_values
        if beyond_box(x, box).any():
            raise ValueError(f"x ranges from {x.min():g} to {x.max():g}, beyond the classifier's clip_values.")
        radii = self.eps
        if self.suite is not None and self.published_eps:
            radii = [radius * box_unit(box, f"suite '{self.suite.name}'") for radius in radii]
        check_radii(radii, self.norm, box)
        pristine = _pristine(classifier, self.batch_size) if self.diagnostics else None  # before anything is asked
        # networks may draw random numbers, and ART's `predict` does
        with seeded(derived_seed(self.seed, Stream.EVALUATION)):
            target = Target(classifier, x)
            plans, left_out = self.plans, list[str]()
            if self.suite is not None:
                size = target.image_size
                plans = self.suite.build(
                    radii, self.norm, classifier.nb_classes, self.quirks, size, left_out, box, self.rounds
                )
            found = self._run(target, x, y, list(plans or ()), pristine)
            about: dict[str, Any] = {"left_out": left_out} if left_out else {}
            if self.suite is not None and self.suite.protocol:
                about["protocol"] = self.suite.protocol_of(radii, box, self.substitutes is not None)
            return replace(found, provenance={**found.provenance, **about})

    def _run(
        self,
        target: Target,
        x: np.ndarray,
        y: np.ndarray,
        plans: list[AttackPlan],
        pristine: Callable[[np.ndarray], np.ndarray] | None,
    ) -> RobustnessRecord:
        fingerprint = self._fingerprint(target, x, y, plans)
        check_same({**fingerprint, "diagnostics": self.diagnostics, "folder": str(self.folder)}, "evaluate")
        folder = self.folder
        state = None if folder is None else in_main_process(lambda: StateFolder(folder, fingerprint))
        self.state = state
        clean, predictions = in_main_process(lambda: predict_clean(target, x, y, self.batch_size))
        records: list[AttackRecord] = []
        examples = x.copy()
        fallen = ~clean.standing  # under any attack in any ball: these have their example

        @functools.cache
        def substitutes() -> list[LossDefendedClassifier]:
            """Those that were given, or one that is distilled, from the same seed in each process that needs it."""
            given = self.substitutes
            if given is None:
                eps = max(plan.eps for plan in plans)
                given = [distilled_substitute(target, x, eps, self.seed, self.batch_size)]
            return [Target(each, x).view("adaptive") for each in given]

        with progress(self.verbose, total=len(plans), desc="attacks", unit="attack") as bar:
            for number, plan in enumerate(plans):
                bar.update()
                before = gains(records, plan.eps)[: plan.round - 1] if plan.round > 1 else (len(x),)
                if len(before) < plan.round - 1 or before[-1] < self.converged * len(x):
                    continue  # the round before has found too little
                bar.set_postfix_str(plan.name + (f", eps {plan.eps:.4g}" if plan.bounded else ""))
                record, x_adv, classes = run_plan(
                    target,
                    x,
                    y,
                    plan,
                    clean.standing if plan.independent or not plan.bounded else withstood(clean, records, plan.eps),
                    derived_seed(self.seed, Stream.ATTACK, number),
                    self.batch_size,
                    substitutes,
                    None if state is None else partial(state.batch, number, x),
                )
                records.append(record)
                if plan.bounded:
                    new = ~fallen & ~record.standing
                    examples[new], predictions[new] = x_adv[new], classes[new]
                    fallen |= new
        found = RobustnessRecord(
            clean,
            tuple(records),
            self.seed,
            fingerprint["suite"],
            y,
            provenance={**fingerprint, "device": str(target.classifier.device), "quirks": list(self.quirks)},
            predictions=predictions,
            examples=examples,
        )
        if not self.diagnostics:
            return found
        samples, planted = SAMPLES, PLANTED
        if self.suite is not None and self.suite.look:  # it keeps to a budget on large networks
            cost = budget.operations(target.classifier, x)
            samples = budget.affordable(cost, budget.DIAGNOSTICS, FEW, 4)
            planted = budget.affordable(cost, budget.PLANTED, FEW // 2, 1)
        seed = derived_seed(self.seed, Stream.DIAGNOSTICS)
        examination = Examination(
            target, x, y, found, seed, samples, self.batch_size, pristine, planted, substitutes=substitutes
        )
        diagnostics = tuple(examination.run(None if state is None else state.part, self.verbose))
        more = examination.record_of_found()
        if more is not None:
            for i, (example, taken_for) in examination.found.items():
                examples[i], predictions[i] = example, taken_for
            found = replace(found, attacks=(*found.attacks, more))
        verdict = judge(found, diagnostics, target.classifier.nb_classes, self.converged)
        return replace(found, diagnostics=diagnostics, verdict=verdict, diagnostics_seconds=examination.seconds)

    def _fingerprint(self, target: Target, x: np.ndarray, y: np.ndarray, plans: list[AttackPlan]) -> dict[str, Any]:
        """What decides the outcome."""
        return {
            "classifier": identity(target.classifier),
            "data": identity_of_data(x, y),
            "suite": "own plans" if self.suite is None else self.suite.name,
            "attacks": hashlib.sha256("\n".join(map(repr, plans)).encode()).hexdigest()[:32],
            "substitutes": [] if self.substitutes is None else [identity(each) for each in self.substitutes],
            "seed": self.seed,
            "converged": self.converged,
            "batch_size": self.batch_size,
            "versions": f"art_mmc {art_mmc.__version__}, ART {art.__version__}, torch {torch.__version__}",
        }


def _pristine(classifier: PyTorchClassifier, batch_size: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Predictions (N, K) by a copy that was asked nothing yet; None where the classifier can't be copied."""
    try:
        copied = copy.deepcopy(classifier)
    except Exception:  # whatever a user's network refuses it by; the diagnostic says so
        return None
    return lambda x: copied.predict(x, batch_size=batch_size)


def identity_of_data(x: np.ndarray, y: np.ndarray) -> str:
    """What tells inputs (N, ...) and labels (N,) from others."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes() + y.astype(np.int64).tobytes()).hexdigest()[:32]


def identity(classifier: PyTorchClassifier) -> str:
    """What tells a classifier from another one: its class, settings and weights; the same in another process."""
    told = hashlib.sha256()
    around = [*classifier.preprocessing_operations, *(classifier.postprocessing_defences or ())]
    settings = [
        classifier.model,
        classifier.loss,
        classifier.clip_values,
        *(f"{type(each).__name__} {[getattr(each, name, None) for name in each.params]}" for each in around),
    ]
    told.update(re.sub(r" at 0x\w+", "", "\n".join(map(str, settings))).encode())
    for name, tensor in sorted(classifier.model.state_dict().items()):
        told.update(name.encode())
        told.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).tobytes())
    return f"{type(classifier).__name__} {told.hexdigest()[:32]}"


def evaluate_robustness(
    classifier: LossDefendedClassifier,
    x: np.ndarray,
    y: np.ndarray,
    eps: float | Sequence[float],
    steps: int = 40,
    batch_size: int = 256,
    seed: int = 0,
    verbose: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> RobustnessRecord:
    """
    Attack a classifier in L-inf with true labels: FGSM and PGD on the adaptive objective of the defence's row (the
    soft margin, for a loss of the user's own), and PGD on the training loss. For more attacks, and a verdict, see
    :class:`RobustnessEvaluation`.

    PGD has one random start and steps of 2.5 eps / steps, but no less than eps / 10: far enough to cross the ball, and
    not smaller than needed. Only samples that are classified correctly when clean are attacked; the others count as
    wrong.

    :param classifier: The classifier, trained.
    :param x: Inputs (N, ...), in the classifier's `clip_values`.
    :param y: True labels: indices (N,) or one-hot (N, K).
    :param eps: Radius or radii of the ball, in the unit of the inputs.
    :param steps: Steps of PGD.
    :param batch_size: Samples that are attacked at once.
    :param seed: Seed of the random starts.
    :param verbose: Whether to show a progress bar.
    :param folder: As in :class:`RobustnessEvaluation`.
    :return: The record.
    :raises TypeError: For another kind of classifier.
    :raises ValueError: For bad inputs, labels, radii or numbers.
    :raises FloatingPointError: When the logits are not finite.
    :raises AttackError: When an attack crashes, or leaves the ball or the box.
    """
    check_type("classifier", classifier, LossDefendedClassifier)
    whole("steps", steps)
    radii = check_radii(eps, clip_values=classifier.clip_values)
    adaptive = adaptive_objective(classifier.row)
    plans = [
        replace(plan, objective=adaptive) if plan.objective == "adaptive" else plan
        for attack in ATTACKS
        for radius in radii
        for plan in figures(radius, math.inf, steps)
        if plan.name == attack
    ]
    evaluation = RobustnessEvaluation(
        plans, diagnostics=False, batch_size=batch_size, seed=seed, verbose=verbose, folder=folder
    )
    return evaluation.evaluate(classifier, x, y)
