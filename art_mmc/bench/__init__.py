"""
Speed and memory, measured on the user's machine: each case beside what it replaces, alternating, in one run.
"""

from art_mmc.bench.cases import CASES, find_case
from art_mmc.bench.growth import CURVES, slope, worst_step
from art_mmc.bench.measure import Case, Check, Contest, Goal, Row, Settings, alternate, run_case
from art_mmc.bench.report import (
    BENCH_JSON,
    BENCH_MD,
    GROWTH_PNG,
    bench_markdown,
    bench_text,
    summary_table,
    write_bench,
)
from art_mmc.bench.run import GROUPS, run_bench, select

__all__ = [
    "BENCH_JSON",
    "BENCH_MD",
    "CASES",
    "CURVES",
    "GROUPS",
    "GROWTH_PNG",
    "Case",
    "Check",
    "Contest",
    "Goal",
    "Row",
    "Settings",
    "alternate",
    "bench_markdown",
    "bench_text",
    "find_case",
    "run_bench",
    "run_case",
    "select",
    "slope",
    "summary_table",
    "worst_step",
    "write_bench",
]
