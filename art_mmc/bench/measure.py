"""
Measuring: who does what, in turn and each beside its reference, by a clock or by peak memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from art_mmc.checks import whole
from art_mmc.state import seeded

T = TypeVar("T")

#: names of contenders
ART, OURS, BY_HAND = "ART", "art_mmc", "hand-written loop"

#: rounds that count where nothing else is asked for; and for memory: a fresh process each time, and hardly any spread
ROUNDS, _MEMORY_ROUNDS = 5, 3


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    device_type: str = "cpu"  # or "gpu" for the current CUDA device if there is one
    quick: bool = False  # tiny sizes, to try it out
    bfloat16: bool = False  # rows under torch.autocast too
    compile: bool = False  # rows with a torch.compile'd network too
    trained: bool = True  # networks are trained a little first; what memory they take does not depend on it

    def size(self, full: T, quick: T) -> T:
        """The size to measure with, or the one to try it out."""
        return quick if self.quick else full

    @property
    def plain(self) -> Settings:
        """The same without rows in other ways of computing."""
        return replace(self, bfloat16=False, compile=False)

    @property
    def device(self) -> torch.device:
        """The device that the settings mean on this machine."""
        return torch.device("cuda" if self.device_type != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Check:
    """How to tell that contenders did the same work: a figure, with its unit, of what each of them gave."""

    name: str
    score: Callable[[Any], float]
    close: float  # difference from the reference's up to which the results agree
    gross: float  # difference beyond which the comparison would be one of different work
    relative: bool = False  # differences are shares of the reference's figure

    def compare(self, case: str, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What a row says of each contender's result; refuse results of different work."""
        scores = {name: self.score(result) for name, result in results.items()}
        reference, wanted = next(iter(scores.items()))
        rows = {}
        for name, score in scores.items():
            difference = abs(score - wanted) / (abs(wanted) if self.relative and wanted else 1.0)
            if difference > self.gross:
                raise RuntimeError(
                    f"{case}: {self.name} of {name} is {score:.4g}, of {reference} {wanted:.4g}: they did not do the "
                    "same work, so that their times say nothing."
                )
            agrees = difference <= self.close
            rows[name] = {"name": self.name, "value": score, "reference": wanted, "agrees": agrees}
        return rows


@dataclass(frozen=True)
class Contest:
    """A case, ready to run."""

    contenders: dict[str, Callable[[], Any]]  # the first is the reference
    note: str  # sizes, and what a reader has to know to judge the comparison
    asked_of: tuple[str, ...] = (OURS,)  # the contenders that the goal is for
    check: Check | None = None
    unit: str = "s"  # the contenders are timed; otherwise what they return is the figure
    repeats: int = 1  # runs in one timing, for what takes microseconds
    references: Mapping[str, str] = field(default_factory=dict)  # where that is not the first


@dataclass(frozen=True)
class Case:
    """One row of the table of cases."""

    name: str
    group: str
    title: str
    build: Callable[[Settings], Contest]
    goal: float | None = None  # the largest ratio that meets it
    turns: int = 1  # rounds are so many times the usual ones, where a difference is small or a run short


@dataclass(frozen=True)
class Row:
    """One contender's figure, what was asked of it, and whether the work was the same; a row of `bench.json`."""

    name: str
    group: str
    job: str
    contender: str
    unit: str  # "s" or "MB"
    median: float
    least: float
    most: float
    ratio: float  # median over the rounds of this figure by the reference's in the same round
    reference: str
    note: str
    rounds: int
    asked: str | None = None  # the goal in words
    met: bool | None = None
    check: dict[str, Any] = field(default_factory=dict)  # see Check.compare


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """The time of one run, in seconds, with what a GPU has queued."""
    start = timer()
    for _ in range(repeats):
        run()
    return (timer() - start) / repeats


def timer() -> float:
    """As torch.utils.benchmark's timer, whose import warns on a machine that has CUDA and no GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def alternate(figures: Mapping[str, Callable[[], float]], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Name -> a figure a round, of contenders in turn, every other round backwards; a first one does not count."""
    found: dict[str, list[float]] = {name: [] for name in figures}
    for index in range(whole("rounds", rounds) + warm_up):
        for name in list(figures)[:: -1 if index % 2 else 1]:
            found[name].append(figures[name]())
    return {name: values[warm_up:] for name, values in found.items()}


def run_case(case: Case, settings: Settings, rounds: int = ROUNDS) -> list[Row]:
    """One row a contender; RuntimeError when their results show that they did not do the same work."""
    results: dict[str, Any] = {}

    def figure(name: str, run: Callable[[], Any]) -> Callable[[], float]:
        if contest.unit != "s":
            return run
        keep = run if contest.check is None else lambda: results.update({name: run()})
        return lambda: seconds(keep, contest.repeats)

    with seeded(0):  # even ART's predict draws from torch's global random state
        contest = case.build(settings)
        timed = contest.unit == "s"
        rounds = rounds * settings.size(case.turns, 1) if timed else min(rounds, _MEMORY_ROUNDS)
        figures = alternate({name: figure(name, run) for name, run in contest.contenders.items()}, rounds, timed)
        checks = {} if contest.check is None else contest.check.compare(case.name, results)
    rows = []
    for name, values in figures.items():
        reference = contest.references.get(name, next(iter(figures)))
        pairs = zip(values, figures[reference], strict=True)  # memory may be nothing at all, on both sides
        ratio = statistics.median(mine / theirs if theirs else float(mine > 0) + 1.0 for mine, theirs in pairs)
        goal = case.goal if name in contest.asked_of else None
        words, met = (None, None) if goal is None else (f"<= {goal:.2f}", ratio <= goal)
        spread = (statistics.median(values), min(values), max(values))
        head = (case.name, case.group, case.title, name, contest.unit)
        rows.append(Row(*head, *spread, ratio, reference, contest.note, rounds, words, met, checks.get(name, {})))
    return rows


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with plain data in a process of its own: a process' peak never goes down."""
    code = (
        f"import json, sys, torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from {function.__module__} import {function.__name__} as call; "
        r"result = call(*json.loads(sys.argv[1])); print('\n' + json.dumps(result))"
    )
    argv = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring {arguments} in a process of its own failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_megabytes(run: Callable[[], object], device: torch.device | None = None) -> float:
    """How far the memory of this process, or what torch allocates on a CUDA device, rises above what it was, in MiB."""
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = _start_anew()
    result = run()  # held, since it is part of what is needed
    peak = _peak()
    del result
    return max(0, peak - before) / 2**20


def _start_anew() -> int:
    """Give back what is freed, forget the peak, and tell the memory in use, in bytes."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """The process' peak so far, in bytes: on Linux not `getrusage`'s, which begins with that of its parent."""
    if sys.platform == "linux":
        return _status("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
