"""
`art-mmc compare`: train and attack defences side by side.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.cli.common import (
    add_common,
    all_processes,
    check_writable,
    cpu_threads,
    diverging,
    load_run,
    parse_names,
    parse_radii,
    told_once,
    user_errors,
    whole,
)

if TYPE_CHECKING:
    import argparse

    from art_mmc.distributed import World
    from art_mmc.studies.setup import DefenceResult


_COMPARE = """\
Train defences from the same seed by the same recipe, attack each on the same test images, print a table and write
report.md, report.json and curves.png."""


_COMPARE_NOTES = """\
The table gives the percentage of test images that are classified correctly, clean and under four columns an eps: FGSM;
own, PGD on the loss that the network was trained by; adapt, PGD on the objective that sees through the defence; worst,
the worst case over all of them: an upper bound; train, then evaluate CHECKPOINT --suite strong gives a better one.
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    compare = commands.add_parser(
        "compare",
        help="train and attack defences, write a report",
        usage="art-mmc compare [options]",
        description=_COMPARE,
        epilog=_COMPARE_NOTES,
    )
    compare.add_argument(
        "--defence",
        action="append",
        metavar="NAME[,NAME]",
        help="defences to compare; can be repeated (default: all; see art-mmc defences)",
    )
    add_common(compare)
    attacks = compare.add_argument_group("attacks")
    attacks.add_argument(
        "--eps",
        action="append",
        metavar="EPS[,EPS]",
        help="L-inf radii, inputs being in [0, 1], e.g. 0.1,0.2 or 8/255; can be repeated (default: 0.05,0.1,0.15,0.2 "
        "for tiny, 0.1,0.2,0.3 for grey, 2/255,4/255,8/255,16/255 for colour images)",
    )
    attacks.add_argument("--steps", type=whole(1), default=40, metavar="N", help="steps of PGD (40)")
    attacks.add_argument("--nb-test", type=whole(1), default=1000, metavar="N", help="test images, at most (1000)")
    compare.add_argument(
        "--output", default="runs/compare", metavar="DIR", help="folder of the report (default: runs/compare)"
    )
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    with user_errors():
        radii = parse_radii(args.eps)

    with all_processes(args.device) as (world, device_type):
        _compare_among(world, device_type, radii, args)


def _compare_among(world: World, device_type: str, radii: list[float] | None, args: argparse.Namespace) -> None:
    """Every process trains and attacks; the main one writes and prints."""
    from art_mmc.defences import get_defence
    from art_mmc.reports import flattery_sentences, text_table, write_report
    from art_mmc.studies.setup import ORDER, build_classifier, compare

    with user_errors():
        defences = parse_names(args.defence, ORDER)
        if not defences:
            raise ValueError("--defence: expected a name, got none")
        for name in defences:
            get_defence(name)
        dataset, recipe, backbone = load_run(args)
        for name in defences:
            build_classifier(name, dataset, backbone)
        output = Path(args.output).expanduser()
        check_writable(output)

    with diverging(), cpu_threads(args.threads, dataset.input_shape):
        comparison = compare(
            defences,
            dataset,
            backbone,
            radii,
            recipe,
            args.seed,
            device_type,
            nb_test=args.nb_test,
            steps=args.steps,
            verbose=not args.quiet,
            on_result=None if args.quiet or not world.is_main else _print_result,
        )

    def finish() -> None:
        with user_errors():
            files = write_report(comparison, output)
        if not args.quiet:
            print()
        print(text_table(comparison, shutil.get_terminal_size((120, 24)).columns))
        print()
        for sentence in flattery_sentences(comparison):
            print(sentence)
        print(f"wrote {', '.join(map(str, files))}")

    told_once(finish)


def _print_result(result: DefenceResult) -> None:
    from art_mmc.reports import format_eps, format_percent

    record = result.robustness
    worst = ", ".join(f"{format_percent(record.worst_case(eps).accuracy)} % at {format_eps(eps)}" for eps in record.eps)
    print(
        f"{result.defence}: clean {format_percent(record.clean.accuracy)} %, worst case {worst} "
        f"(training {result.training_seconds:.1f} s, attacks {result.evaluation_seconds:.1f} s)",
        flush=True,
    )
