"""
Running the bench: jobs one after the other, their contenders in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from art_mmc.bench.contest import Check, Contest, Job, Settings
from art_mmc.bench.growth import CURVES, grow
from art_mmc.bench.table import GROUPS, JOBS
from art_mmc.bench.timing import Measurement, alternate, clocked
from art_mmc.checks import unknown_name
from art_mmc.comparison import machine
from art_mmc.evaluation.engine import seeded

#: rounds that count where nothing else is asked for
ROUNDS = 5

#: a fresh process each time, and hardly any spread
_MEMORY_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """
    A measurement, what was asked of it, and whether the work was the same.

    :param name: Name of the job.
    :param group: Its group.
    :param measurement: The figures.
    :param note: Sizes, and what else to know.
    :param rounds: Rounds that count.
    :param asked: The bar in words; None for none.
    :param met: Whether it is met; None without a bar.
    :param check: Name of the figure by which the results were compared; the contender's and the reference's; whether
           they agree. Empty for none.
    """

    name: str
    group: str
    measurement: Measurement
    note: str
    rounds: int
    asked: str | None = None
    met: bool | None = None
    check: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        data = asdict(self)
        return {"name": data.pop("name"), "group": data.pop("group"), **data.pop("measurement"), **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The row.
        """
        figures = {name: data[name] for name in Measurement.__dataclass_fields__}
        rest = {name: data[name] for name in cls.__dataclass_fields__ if name != "measurement"}
        return cls(measurement=Measurement(**figures), **rest)


def select(only: Sequence[str] | None = None, device_type: str = "cpu") -> list[str]:
    """
    :param only: Names of groups, jobs and curves; None for all.
    :param device_type: "cpu" or "gpu"; some jobs make sense on a GPU alone.
    :return: Names of jobs and curves, in the order of the tables.
    :raises ValueError: For an unknown name, with the nearest known one.
    """
    known = {**{name: job.group for name, job in JOBS.items()}, **dict.fromkeys(CURVES, "growth")}
    for name in only or ():
        if name not in GROUPS and name not in known:
            raise unknown_name("--only", name, [*GROUPS, *known])
    names = [name for name, group in known.items() if only is None or name in only or group in only]
    return [name for name in names if device_type != "cpu" or name in CURVES or not JOBS[name].cuda_only]


def run_job(job: Job, settings: Settings, rounds: int = ROUNDS) -> list[Row]:
    """
    :param job: The job.
    :param settings: How to measure.
    :param rounds: Rounds that count, times the job's turns; for memory never more than three.
    :return: One row a contender.
    :raises RuntimeError: When the contenders' results show that they did not do the same work.
    """
    with seeded(0):  # even ART's predict draws from torch's global random state
        return _run(job, settings, rounds)


def _run(job: Job, settings: Settings, rounds: int) -> list[Row]:
    contest = job.build(settings)
    if contest.unit == "s":
        rounds *= settings.size(job.turns, 1)
    else:
        rounds = min(rounds, _MEMORY_ROUNDS)
    results: dict[str, Any] = {}
    figures = {name: _figure(name, run, contest, settings, results) for name, run in contest.contenders.items()}
    measurements = alternate(
        job.description, figures, rounds, contest.unit, warm_up=contest.unit == "s", references=contest.references
    )
    checks = {} if contest.check is None else _compare(job, contest.check, results)
    rows = []
    for each in measurements:
        asked = job.asked if each.contender in contest.asked_of else None
        rows.append(
            Row(
                name=job.name,
                group=job.group,
                measurement=each,
                note=contest.note,
                rounds=rounds,
                asked=None if asked is None else asked.words,
                met=None if asked is None else asked.met(each.ratio),
                check=checks.get(each.contender, {}),
            )
        )
    return rows


def _figure(
    name: str, run: Callable[[], Any], contest: Contest, settings: Settings, results: dict[str, Any]
) -> Callable[[], float]:
    """What gives a contender's figure; the result of the job is kept for the comparison."""
    if contest.unit != "s":
        return run

    def keep() -> None:
        results[name] = run()

    return clocked(keep if contest.check is not None else run, settings.device_type, contest.repeats)


def _compare(job: Job, check: Check, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    scores = {name: check.score(result) for name, result in results.items()}
    reference = next(iter(scores))
    compared = {}
    for name, score in scores.items():
        difference = check.difference(score, scores[reference])
        if difference > check.gross:
            raise RuntimeError(
                f"{job.name}: {check.name} of {name} is {score:.4g}, of {reference} {scores[reference]:.4g}: they did "
                "not do the same work, so that their times say nothing."
            )
        compared[name] = {
            "name": check.name,
            "value": score,
            "reference": scores[reference],
            "agrees": difference <= check.close,
        }
    return compared


def run_bench(
    only: Sequence[str] | None = None,
    settings: Settings | None = None,
    rounds: int = ROUNDS,
    on_rows: Callable[[list[Row]], object] | None = None,
    on_curve: Callable[[dict[str, Any]], object] | None = None,
    on_result: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """
    Run jobs, one after the other.

    :param only: Names of groups, jobs and curves; None for all.
    :param settings: How to measure; None for the defaults.
    :param rounds: Rounds that count.
    :param on_rows: Called with the rows of each job.
    :param on_curve: Called with each curve.
    :param on_result: Called after each job and curve with what will be returned, as far as it goes, so that minutes of
           measuring are not lost to what comes last.
    :return: Rows and curves with versions, processor and threads; plain data that JSON can hold.
    :raises ValueError: For unknown names.
    :raises RuntimeError: When contenders did not do the same work.
    """
    settings = settings or Settings()
    names = select(only, settings.device_type)
    device = torch.device("cuda" if settings.device_type != "cpu" and torch.cuda.is_available() else "cpu")
    bench: dict[str, Any] = {
        "format": "art_mmc.bench",
        "version": 1,
        **machine(device),
        "rounds": rounds,
        "settings": settings.to_dict(),
        "rows": [],
        "growth": [],
    }
    for name in names:
        if name in CURVES:
            bench["growth"].append(grow(CURVES[name], settings))
            if on_curve is not None:
                on_curve(bench["growth"][-1])
        else:
            done = run_job(JOBS[name], settings, rounds)
            bench["rows"] += [row.to_dict() for row in done]
            if on_rows is not None:
                on_rows(done)
        if on_result is not None:
            on_result(bench)
    return bench
