"""
Speed and memory, measured on the user's machine: each job beside what it replaces, alternating, in one run.
"""

from art_mmc.bench.contest import Asked, Check, Contest, Job, Settings
from art_mmc.bench.growth import CURVES, Curve, slope, worst_step
from art_mmc.bench.report import (
    BENCH_JSON,
    BENCH_MD,
    GROWTH_PNG,
    bench_markdown,
    bench_text,
    summary_table,
    write_bench,
)
from art_mmc.bench.run import Row, run_bench, select
from art_mmc.bench.table import GROUPS, JOBS, find_job
from art_mmc.bench.timing import Measurement, alternate, clocked

__all__ = [
    "BENCH_JSON",
    "BENCH_MD",
    "CURVES",
    "GROUPS",
    "GROWTH_PNG",
    "JOBS",
    "Asked",
    "Check",
    "Contest",
    "Curve",
    "Job",
    "Measurement",
    "Row",
    "Settings",
    "alternate",
    "bench_markdown",
    "bench_text",
    "clocked",
    "find_job",
    "run_bench",
    "select",
    "slope",
    "summary_table",
    "worst_step",
    "write_bench",
]
