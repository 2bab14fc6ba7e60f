"""
Speed and memory, measured on the user's machine: each case beside what it replaces, alternating, in one run.
"""

from art_mmc.bench.measure import Settings
from art_mmc.bench.report import BENCH_JSON, BENCH_MD, GROWTH_PNG, summary_table, write_bench
from art_mmc.bench.run import GROUPS, run_bench, select

__all__ = [
    "BENCH_JSON",
    "BENCH_MD",
    "GROUPS",
    "GROWTH_PNG",
    "Settings",
    "run_bench",
    "select",
    "summary_table",
    "write_bench",
]
