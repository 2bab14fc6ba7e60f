"""
Measuring contenders in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """
    One contender's figure for one job.

    :param job: What was done.
    :param contender: Who did it.
    :param unit: "s", "MB" or "images".
    :param median: Median over the rounds.
    :param least: Smallest figure.
    :param most: Largest figure.
    :param ratio: Median over the rounds of this figure by the reference's in the same round.
    :param reference: Whose figure it is divided by.
    """

    job: str
    contender: str
    unit: str
    median: float
    least: float
    most: float
    ratio: float
    reference: str


def clocked(run: Callable[[], object], device_type: str = "cpu", repeats: int = 1) -> Callable[[], float]:
    """
    :param run: What to time.
    :param device_type: "cpu", or "gpu": then all that a GPU has queued is waited for, before and after.
    :param repeats: How often to run in one timing, for what takes microseconds.
    :return: A function that runs it and gives the seconds of one run.
    """
    cuda = device_type != "cpu" and torch.cuda.is_available()

    def timed() -> float:
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    return timed


def alternate(
    job: str,
    contenders: dict[str, Callable[[], float]],
    rounds: int,
    unit: str = "s",
    warm_up: bool = True,
    on_round: Callable[[], object] | None = None,
    references: Mapping[str, str] | None = None,
) -> list[Measurement]:
    """
    Measure contenders in turn, so that whatever else the machine does falls on all of them. Every other round goes
    backwards, so that none of them always follows the same one.

    :param job: What is done.
    :param contenders: Name -> a function that does the job and gives the figure; the first is the reference.
    :param rounds: Rounds that count, at least 1.
    :param unit: Unit of the figures.
    :param warm_up: Whether to go one round first that does not count.
    :param on_round: Called after each round.
    :param references: Contender -> whose figure its own is divided by, where that is not the first.
    :return: One measurement a contender.
    :raises ValueError: Without rounds.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected a whole number of at least 1, got {rounds}.")
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + warm_up):
        names = list(contenders)
        for name in reversed(names) if index % 2 else names:
            figures[name].append(contenders[name]())
        if on_round is not None:
            on_round()
    counted = {name: values[warm_up:] for name, values in figures.items()}
    first, others = next(iter(contenders)), references or {}
    return [
        Measurement(
            job=job,
            contender=name,
            unit=unit,
            median=statistics.median(values),
            least=min(values),
            most=max(values),
            ratio=statistics.median(
                _quotient(a, b) for a, b in zip(values, counted[others.get(name, first)], strict=True)
            ),
            reference=others.get(name, first),
        )
        for name, values in counted.items()
    ]


def _quotient(figure: float, reference: float) -> float:
    """Memory may be nothing at all, on both sides."""
    return figure / reference if reference else float(figure > 0) + 1.0
