"""
`art-mmc bench`: measure speed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from art_mmc.cli.common import check_writable, find_device, print_rows, user_errors, whole


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    bench = commands.add_parser(
        "bench",
        help="measure the speed of adversarial training beside ART's",
        description="One epoch of PGD adversarial training of ResNet-20 on CIFAR shapes: ART's trainer, this package's "
        "and a hand-written loop, in turn, in one run. Ratios are medians over the rounds.",
    )
    bench.add_argument("--samples", type=whole(1), default=256, metavar="N", help="images in the epoch (256)")
    bench.add_argument("--batch-size", type=whole(2), default=128, metavar="N", help="images in one step (128)")
    bench.add_argument("--steps", type=whole(1), default=7, metavar="N", help="steps of PGD (7)")
    bench.add_argument("--rounds", type=whole(1), default=5, metavar="N", help="rounds that count (5)")
    bench.add_argument("--device", choices=("cpu", "gpu", "cuda"), help="where to compute")
    bench.add_argument("--output", metavar="FILE", help="write the figures to a .json file too")
    bench.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> None:
    from art_mmc.bench import bench_adversarial_training
    from art_mmc.comparison import machine
    from art_mmc.reporting import write_files

    with user_errors():
        device_type = find_device(args.device)
        if args.output is not None:
            check_writable(Path(args.output).expanduser().parent)
    timings = bench_adversarial_training(args.samples, args.batch_size, args.steps, args.rounds, device_type)
    print(timings[0].job)
    print_rows(
        [("", "seconds", "least", "most", "ratio")]
        + [(t.contender, f"{t.seconds:.2f}", f"{t.least:.2f}", f"{t.most:.2f}", f"{t.ratio:.2f}") for t in timings]
    )
    if args.output is not None:
        import torch

        facts = machine(torch.device("cpu" if device_type == "cpu" else "cuda"))
        document = {"rounds": args.rounds, **facts, "timings": [timing.to_dict() for timing in timings]}
        path = Path(args.output).expanduser()
        with user_errors():
            write_files(path.parent, {path.name: (json.dumps(document, indent=1) + "\n").encode()})
        print(f"wrote {path}")
