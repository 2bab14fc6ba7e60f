"""
Running the bench: cases and curves, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from art_mmc.bench.cases import CASES
from art_mmc.bench.growth import CURVES, grow
from art_mmc.bench.measure import ROUNDS, Row, Settings, run_case
from art_mmc.checks import check_name
from art_mmc.studies.setup import machine

#: names of the groups, in order; the curves of growth are a group of their own
GROUPS = (*dict.fromkeys(case.group for case in CASES.values()), "growth")


def select(only: Sequence[str] | None = None) -> list[str]:
    """
    Names of cases and curves, in the order of the tables: those of the groups, cases and curves named; None for all.
    ValueError for an unknown name, with the nearest known one.
    """
    known = {**{name: case.group for name, case in CASES.items()}, **dict.fromkeys(CURVES, "growth")}
    for name in only or ():
        check_name("--only", name, [*GROUPS, *known])
    return [name for name, group in known.items() if only is None or name in only or group in only]


def run_bench(
    only: Sequence[str] | None = None,
    settings: Settings | None = None,
    rounds: int = ROUNDS,
    on_rows: Callable[[list[Row]], object] = lambda rows: None,
    on_curve: Callable[[dict[str, Any]], object] = lambda curve: None,
    on_result: Callable[[dict[str, Any]], object] = lambda so_far: None,
) -> dict[str, Any]:
    """
    Run cases and curves, one after the other, those that :func:`select` gives, with so many rounds that count. Rows and
    curves with versions, processor and threads; plain data that JSON can hold. It tells the rows of each case, each
    curve, and after each of them what it will return, as far as it goes, so that minutes of measuring are not lost to
    what comes last. RuntimeError when contenders did not do the same work.
    """
    settings = settings or Settings()
    bench: dict[str, Any] = {
        "format": "art_mmc.bench",
        "version": 1,
        **machine(settings.device),
        "rounds": rounds,
        "settings": asdict(settings),
        "rows": [],
        "growth": [],
    }
    for name in select(only):
        if name in CURVES:
            bench["growth"].append(grow(name, settings))
            on_curve(bench["growth"][-1])
        else:
            rows = run_case(CASES[name], settings, rounds)
            bench["rows"] += map(asdict, rows)
            on_rows(rows)
        on_result(bench)
    return bench
