"""
`art-mmc reproduce`: a paper's table once more, beside the published figures.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.cli.common import (
    all_processes,
    check_writable,
    cpu_threads,
    load_data,
    parse_names,
    parse_radii,
    positive,
    told_once,
    user_errors,
    whole,
)
from art_mmc.cli.evaluate import add_data_folder_options, add_machine_options, clear_state, evaluating

if TYPE_CHECKING:
    from art_mmc.data import Dataset
    from art_mmc.distributed import World
    from art_mmc.published import PublishedTable
    from art_mmc.studies.reproduce import Reproduced

_REPRODUCE = """\
Train the networks of a published table, or take trained ones, attack them by the paper's protocol, and print each
published figure beside ours and our worst case. Writes report.md, report.json, figures.csv and the trained networks.

TABLE is one of pang2020-table1, -table2, -table3 (MMC), li2021-table1 to -table5 (PC), pang2021-table16 (Bag of
Tricks); pang2018-table2 and -table3 (RCE) are tables of detectors, and write what art-mmc detect writes.

The paper's epochs take long: --epoch-share 0.1 trains a tenth of them, --small a smaller network besides. A killed run
goes on where it was with the same command. Started by torchrun, it trains in several processes, and shares the batches
of the attacks among them."""

_REPRODUCE_NOTES = """\
examples:
  art-mmc reproduce li2021-table1 --data-dir ~/data --epoch-share 0.1
  art-mmc reproduce li2021-table1 --data-dir ~/data --defence pc --checkpoint pc=runs/pc.pt
  art-mmc reproduce pang2020-table1 --data-dir ~/data --small --defence sce,mmc --quirk predicted_labels
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    parser = commands.add_parser(
        "reproduce",
        help="a paper's table once more, beside the published figures",
        usage="art-mmc reproduce TABLE --data-dir DIR [options]",
        description=_REPRODUCE,
        epilog=_REPRODUCE_NOTES,
    )
    parser.add_argument("table", metavar="TABLE", help="the table, e.g. pang2020-table1")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", metavar="NAME", help="one of the table's data sets (default: the first)")
    add_data_folder_options(data)
    training = parser.add_argument_group("networks")
    training.add_argument(
        "--defence", action="append", metavar="NAME[,NAME]", help="rows of the table, e.g. sce,mmc (default: all)"
    )
    training.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a trained network for a row; can be repeated",
    )
    training.add_argument(
        "--epoch-share", type=positive, default=1.0, metavar="SHARE", help="share of the paper's epochs (1)"
    )
    training.add_argument(
        "--budget", dest="epoch_share", type=positive, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    training.add_argument("--small", action="store_true", help="train the recipe's scaled-down twin")
    attacks = parser.add_argument_group("attacks")
    attacks.add_argument(
        "--eps", action="append", metavar="EPS[,EPS]", help="some of the paper's radii, e.g. 8/255 (default: all)"
    )
    attacks.add_argument(
        "--quirk",
        action="append",
        metavar="NAME",
        help="do as the paper's code does: predicted_labels, eps256; can be repeated",
    )
    attacks.add_argument(
        "--attack-share",
        type=positive,
        metavar="SHARE",
        help="tables of detectors: share of the paper's iterations of C&W (0.02)",
    )
    attacks.add_argument("--nb-test", type=whole(1), default=1000, metavar="N", help="test images, at most (1000)")
    attacks.add_argument("--batch-size", type=whole(1), default=256, metavar="N", help="images attacked at once (256)")
    add_machine_options(parser)
    parser.add_argument("--output", metavar="DIR", help="folder of the report (default: runs/reproduce-TABLE-DATASET)")
    parser.set_defaults(run=_reproduce)


def _checkpoints(given: list[str]) -> dict[str, Path]:
    files = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--checkpoint: expected NAME=FILE, got '{text}'")
        files[name] = Path(path).expanduser()
        if not files[name].is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
    return files


def _reproduce(args: argparse.Namespace) -> None:
    with user_errors():
        radii = parse_radii(args.eps)

    with all_processes(args.device) as (world, device_type):
        _reproduce_among(world, device_type, radii, args)


def _reproduce_among(world: World, device_type: str, radii: list[float] | None, args: argparse.Namespace) -> None:
    """Every process trains and attacks; the main one writes and prints."""
    from art_mmc.evaluation import RobustnessEvaluation
    from art_mmc.published import get_published
    from art_mmc.reports import paper_text, write_reproduction
    from art_mmc.studies.evaluate import load_any
    from art_mmc.studies.reproduce import check_reproduction, reproduce

    with user_errors():
        table = get_published(args.table)
        name = args.dataset or next(iter(table.datasets), "mnist")
    if table.name in DETECTION:
        _reproduce_detection(args, device_type, table, name)
        return
    with user_errors():
        if table.suite is None:
            raise ValueError(f"{table.name} has nothing that could be attacked")
        if args.attack_share is not None:
            raise ValueError("--attack-share is for tables of detectors; the suites have the papers' iterations")
        if name not in table.datasets:
            raise ValueError(f"--dataset: {table.name} has figures for {', '.join(table.datasets)}, not for '{name}'")
        methods = None if args.defence is None else parse_names(args.defence, ())
        checkpoints = _checkpoints(args.checkpoint)
        quirks = parse_names(args.quirk, ())
        dataset = load_data(name, args)
        RobustnessEvaluation(table.suite, radii, quirks=quirks)
        rows = check_reproduction(table, dataset, methods, checkpoints, args.epoch_share, args.small)
        for path in checkpoints.values():
            load_any(path, dataset, None, "cpu")
        output = Path(args.output or f"runs/reproduce-{table.name}-{name}").expanduser()
        check_writable(output)

    with evaluating(output), cpu_threads(args.threads, dataset.input_shape):
        reproduction = reproduce(
            table,
            dataset,
            methods=[row.key for row in rows],
            checkpoints=checkpoints,
            eps=radii,
            budget=args.epoch_share,
            small=args.small,
            nb_test=args.nb_test,
            quirks=quirks,
            batch_size=args.batch_size,
            seed=args.seed,
            device_type=device_type,
            folder=output,
            verbose=not args.quiet,
            on_result=None if args.quiet or not world.is_main else _print_result,
        )

    def finish() -> None:
        with user_errors():
            files = write_reproduction(reproduction, output)
        for row in rows:
            clear_state(output / f"{row.key}.state")
        if not args.quiet:
            print()
        print(paper_text(reproduction))
        print(f"wrote {', '.join(map(str, files))}")

    told_once(finish)


def _print_result(result: Reproduced) -> None:
    from art_mmc.reports import format_eps, format_percent

    record = result.record
    eps = record.eps[-1]
    status = "" if record.verdict is None else f", verdict: {record.verdict.status}"
    print(
        f"{result.method}: clean {format_percent(record.clean.accuracy)} %, worst case "
        f"{format_percent(record.worst_case(eps).accuracy)} % at {format_eps(eps)}{status} ({record.seconds:.1f} s)",
        flush=True,
    )


#: tables of detectors: the attacks of each, and those that know the detector
DETECTION = {"pang2018-table2": (True, ("cw-wb", "pgd-wb")), "pang2018-table3": (False, ("cw-wb",))}


def _reproduce_detection(args: argparse.Namespace, device_type: str, table: PublishedTable, name: str) -> None:
    """A table of the RCE paper: fit detectors, attack, write what `art-mmc detect` writes."""
    from art_mmc.attacks.detector_aware import PAPER_ATTACKS
    from art_mmc.reports.detect import text_table, write_report
    from art_mmc.studies.detect import ATTACK_SHARE, run_detection_study

    with user_errors():
        if args.attack_share is not None and not 0 < args.attack_share <= 1:
            raise ValueError(f"--attack-share: expected a share above 0 and up to 1, got {args.attack_share:g}")
        for option, value in (("--eps", args.eps), ("--quirk", args.quirk)):
            if value:
                raise ValueError(f"{option} is no option of a table of detectors; see art-mmc detect")
        keys = parse_names(args.defence, [row.key for row in table.methods])
        rows = [table.method(key) for key in keys]
        checkpoints = _checkpoints(args.checkpoint)
        for key in checkpoints:
            if key not in keys:
                raise ValueError(f"--checkpoint: a network for '{key}', which is not among the chosen rows")
        dataset = load_data(name, args)
        output = Path(args.output or f"runs/reproduce-{table.name}-{name}").expanduser()
        check_writable(output)
    classifiers, sources = _detection_networks(args, rows, checkpoints, dataset, device_type, output)
    plain, white_box = DETECTION[table.name]
    with evaluating(output), cpu_threads(args.threads, dataset.input_shape):
        study = run_detection_study(
            classifiers,
            dataset,
            attacks=list(PAPER_ATTACKS) if plain else [],
            white_box=list(white_box),
            budget=args.attack_share or ATTACK_SHARE,
            nb_test=min(args.nb_test, max(1, len(dataset.y_test) // 2)),
            seed=args.seed,
            batch_size=args.batch_size,
            sources=sources,
            verbose=not args.quiet,
        )

    def finish() -> None:
        with user_errors():
            files = write_report(study, output)
        print(text_table(study))
        print(f"wrote {', '.join(map(str, files))}")

    told_once(finish)


def _detection_networks(
    args: argparse.Namespace,
    rows: list[Any],
    checkpoints: dict[str, Path],
    dataset: Dataset,
    device_type: str,
    output: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The classifiers by their names, trained or loaded, and how they came about."""
    from art_mmc.distributed import in_main_process
    from art_mmc.studies.evaluate import load_any
    from art_mmc.studies.reproduce import method_recipe
    from art_mmc.studies.setup import train_defence

    classifiers: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    for row in rows:
        if row.key in checkpoints:
            with user_errors():
                classifiers[row.key], _ = load_any(checkpoints[row.key], dataset, None, device_type)
            sources[row.key] = {"checkpoint": checkpoints[row.key].name}
            continue
        recipe = method_recipe(row, dataset.name, args.epoch_share, args.small)
        with evaluating(output), cpu_threads(args.threads, dataset.input_shape):
            trained = train_defence(
                row.defence,
                dataset,
                recipe,
                seed=args.seed,
                device_type=device_type,
                verbose=not args.quiet,
                folder=output / f"{row.key}.run",
                resume=True,
            )
        save = partial(trained.classifier.save_checkpoint, output / f"{row.key}.pt")
        in_main_process(save)
        classifiers[row.key] = trained.classifier
        sources[row.key] = {
            "backbone": trained.backbone,
            "recipe": recipe.name,
            "epochs": recipe.nb_epochs,
            "seconds": round(trained.seconds, 1),
        }
    return classifiers, sources
