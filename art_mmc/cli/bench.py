"""
`art-mmc bench`: measure speed and memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from art_mmc.cli.common import check_writable, find_device, parse_names, user_errors, whole


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    bench = commands.add_parser(
        "bench",
        help="measure speed and memory beside ART's, on this machine",
        description="Attacks, fit, predict, adversarial training, losses, centers, peak memory and growth: this\n"
        "package beside what it replaces, in turn, in one run. Ratios are medians over the rounds. All of it\n"
        "takes about eight minutes on two cores; whatever else the machine does is noise.",
    )
    bench.add_argument(
        "--only",
        action="append",
        metavar="NAME[,NAME]",
        help="groups (attacks, predict, fit, training, losses, centers, memory, growth) or single jobs, by the names "
        "in the table",
    )
    bench.add_argument("--rounds", type=whole(1), default=5, metavar="N", help="rounds that count (5)")
    bench.add_argument(
        "--device", choices=("cpu", "gpu", "cuda"), help="where to compute (default: gpu if there is one)"
    )
    bench.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: torch's choice)")
    bench.add_argument("--quick", action="store_true", help="tiny sizes, to try it out: the figures mean nothing")
    bench.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="bfloat16: rows in mixed precision too (default: bfloat16 on a GPU, else float32)",
    )
    bench.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="rows with a torch.compile'd network too (default: on a GPU)",
    )
    bench.add_argument("--output", metavar="DIR", help="write bench.md, bench.json and growth.png there")
    bench.set_defaults(run=_bench)


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bench(args: argparse.Namespace) -> None:
    from art_mmc.bench import Settings, bench_text, run_bench, select, write_bench
    from art_mmc.bench.report import conditions, curves_text

    with user_errors():
        device_type = find_device(args.device)
        only = None if args.only is None else parse_names(args.only, ())
        select(only, device_type)
        folder = None if args.output is None else Path(args.output).expanduser()
        if folder is not None:
            check_writable(folder)
    on_gpu = device_type != "cpu"
    settings = Settings(
        device_type=device_type,
        quick=args.quick,
        bfloat16=on_gpu if args.precision is None else args.precision == "bfloat16",
        compile=on_gpu if args.compile is None else args.compile,
    )
    curves: list[dict[str, Any]] = []
    with _threads(args.threads):
        bench = run_bench(
            only,
            settings,
            args.rounds,
            on_rows=lambda rows: print(f"{bench_text(rows)}\n{rows[0].job}; {rows[0].note}\n", flush=True),
            on_curve=curves.append,
            on_result=lambda so_far: None if folder is None else write_bench(so_far, folder),
        )
    if curves:
        print(curves_text(curves) + "\n")
    print(conditions(bench))
    if folder is not None:
        with user_errors():
            for path in write_bench(bench, folder):
                print(f"wrote {path}")
