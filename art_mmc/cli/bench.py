"""
`art-mmc bench`: measure speed and memory.
"""

from __future__ import annotations

from pathlib import Path

from art_mmc.cli.run import check_writable, cpu_threads, find_device, user_errors
from art_mmc.studies.settings import Bench

SETTINGS, HELP = Bench, "measure speed and memory beside ART's, on this machine"
USAGE = None


def run(settings: Bench) -> None:
    from art_mmc.bench import Settings, run_bench, select, write_bench
    from art_mmc.bench.report import BENCH_JSON, BENCH_MD, GROWTH_PNG, bench_text, conditions, curves_text
    from art_mmc.reports.write import check_report

    with user_errors():
        device_type = find_device(settings.device)
        select(settings.only)
        folder = None if settings.output is None else Path(settings.output).expanduser()
        if folder is not None:
            check_writable(folder)
            check_report(folder, (BENCH_JSON, BENCH_MD, GROWTH_PNG))
    on_gpu = device_type != "cpu"
    sizes = Settings(
        device_type=device_type,
        quick=settings.quick,
        bfloat16=on_gpu if settings.precision is None else settings.precision == "bfloat16",
        compile=on_gpu if settings.compile is None else settings.compile,
    )
    with cpu_threads(settings.threads):
        bench = run_bench(
            settings.only,
            sizes,
            settings.rounds,
            on_rows=lambda rows: print(f"{bench_text(rows)}\n{rows[0].job}; {rows[0].note}\n", flush=True),
            on_result=lambda so_far: None if folder is None else write_bench(so_far, folder),
        )
    if bench["growth"]:
        print(curves_text(bench["growth"]) + "\n")
    print(conditions(bench))
    if folder is not None:
        with user_errors():
            for path in write_bench(bench, folder):
                print(f"wrote {path}")
