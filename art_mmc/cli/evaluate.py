"""
`art-mmc evaluate`: attack a trained network, look for masked gradients, give a verdict.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.checks import box_unit
from art_mmc.cli.common import (
    UsageError,
    all_processes,
    check_writable,
    cpu_threads,
    diverging,
    load_data,
    one_line,
    parse_names,
    parse_number,
    parse_radii,
    told_once,
    user_errors,
    whole,
)

if TYPE_CHECKING:
    from art_mmc.evaluation import RobustnessRecord


_EVALUATE = """\
Attack a trained network by a suite of attacks, look for the symptoms of masked gradients, and give a verdict: broken,
untrustworthy, or holds so far. Prints own loss, cross-entropy, margin and worst case side by side; writes report.md,
report.json, attacks.csv, pictures, and examples.npz with the adversarial images.

CHECKPOINT is a file that art-mmc train wrote; or a TorchScript file; or, with --factory, a state dict of a network of
your own. The latter two must take images in [0, 1] and give logits; where the clip_values of the first are another
range, images are put on it, and eps is in its unit. A TorchScript file and a factory are programs, and
are run: use only those that you trust.

A killed run leaves what it has in DIR/state: the same command goes on from the last finished batch. Started by
torchrun, the same command shares the batches of each attack among several processes, to the same figures; seconds are
added up. Choose --batch-size so that each process has some of them."""


_EVALUATE_NOTES = """\
suites: quick (seconds), standard, strong (the one to quote), and the papers' protocols with their settings, each with
an adaptive attack beside it: pang2020-table1 to -table3, li2021-table1 to -table5, pang2018-rce, pang2021-tricks.

exit status: 0; 1 for what --fail-under asks; 2 for a mistake in the command or an attack that crashed; 130 for Ctrl-C.

examples:
  art-mmc evaluate runs/mmc-digits.pt --suite quick
  art-mmc evaluate pc.pt --dataset mnist --data-dir ~/data --suite strong --eps 0.1,0.2,0.3
  art-mmc evaluate net.pt --factory mynets:resnet --dataset cifar10 --data-dir ~/data --eps 8/255 --fail-under 0.3
  art-mmc evaluate mmc.pt --dataset cifar10 --data-dir ~/data --suite pang2020-table1 --quirk predicted_labels
  torchrun --nproc-per-node 4 -m art_mmc.cli evaluate mmc.pt --dataset cifar10 --data-dir ~/data --suite strong
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    parser = commands.add_parser(
        "evaluate",
        help="attack a trained network, give a verdict, write a report",
        usage="art-mmc evaluate CHECKPOINT [options]",
        description=_EVALUATE,
        epilog=_EVALUATE_NOTES,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the file of the network")
    parser.add_argument(
        "--factory",
        metavar="MODULE:FUNCTION",
        help="builds your network, whose state dict CHECKPOINT holds, or your backbone, for a file that this package "
        "wrote; called with those of input_shape and nb_classes that it takes",
    )
    parser.add_argument("--name", metavar="TEXT", help="what to call it in the report (default: the file's name)")
    add_data_options(parser)
    attacks = parser.add_argument_group("attacks")
    attacks.add_argument("--suite", default="standard", metavar="NAME", help="suite of attacks (default: standard)")
    attacks.add_argument(
        "--eps",
        action="append",
        metavar="EPS[,EPS]",
        help="radii in the unit of the inputs, e.g. 0.1,0.2 or 8/255 where they are in [0, 1]; can be repeated "
        "(default: the paper's, or as in art-mmc compare)",
    )
    attacks.add_argument("--norm", choices=("inf", "2"), default="inf", help="norm of the ball (default: inf)")
    attacks.add_argument(
        "--quirk",
        action="append",
        metavar="NAME",
        help="do as a paper's code does: predicted_labels, eps256; can be repeated",
    )
    attacks.add_argument(
        "--substitute",
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="network on which transfer attacks craft, as CHECKPOINT without a factory; can be repeated (default: a "
        "small one that is trained on the network's answers)",
    )
    add_evaluation_options(attacks)
    parser.add_argument(
        "--fail-under",
        type=_unit,
        metavar="SHARE",
        help="exit with status 1 when the worst-case accuracy at the largest eps is below SHARE, e.g. 0.3, or when the "
        "verdict is untrustworthy or broken, for then the figure means nothing",
    )
    add_machine_options(parser)
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the report (default: runs/evaluate-CHECKPOINT-SUITE)"
    )
    parser.set_defaults(run=_evaluate)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where the images come from."""
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", default="digits", metavar="NAME", help="as in art-mmc train (default: digits)")
    add_data_folder_options(data)


def add_data_folder_options(group: Any) -> None:
    """Where the data sets lie."""
    group.add_argument("--data-dir", metavar="DIR", help="folder of the data sets, in torchvision's layout")
    group.add_argument("--download", action="store_true", help="let torchvision download what is not in --data-dir")


def add_evaluation_options(group: Any) -> None:
    """How many images, and how they are attacked."""
    group.add_argument("--nb-test", type=whole(1), default=1000, metavar="N", help="test images, at most (1000)")
    group.add_argument("--batch-size", type=whole(1), default=256, metavar="N", help="images attacked at once (256)")
    group.add_argument(
        "--curves",
        type=whole(0),
        default=64,
        metavar="N",
        help="images for the curves over eps and steps in the report, which take time (64; 0 for none)",
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Where to compute, from what seed."""
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="seed of all randomness (0)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "cuda"), help="where to compute (default: gpu if there is one; cuda = gpu)"
    )
    parser.add_argument(
        "--threads", type=whole(1), metavar="N", help="CPU threads (default: 1 for tiny images, else torch's choice)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal, only the result")


def _unit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share in [0, 1], got '{text}'")
    return value


def _radii(args: argparse.Namespace, clip_values: Any = None) -> list[float] | None:
    """What --eps was given, for inputs in that box; in the 2-norm any positive numbers."""
    if args.norm == "inf":
        return parse_radii(args.eps, clip_values)
    if args.eps is None:
        raise ValueError("--norm 2 needs --eps, e.g. --eps 0.5")
    radii = [parse_number("--eps", text) for text in parse_names(args.eps, ())]
    if not radii or not all(0 < radius < math.inf for radius in radii):
        raise ValueError(f"--eps: expected positive numbers, got {', '.join(args.eps)}")
    return radii


@contextmanager
def evaluating(state: Path) -> Iterator[None]:
    """
    Around an evaluation: an attack that fails, or state of another evaluation in the folder, is a line; what is
    interrupted can go on.
    """
    from art_mmc.evaluation import AttackError

    try:
        with diverging():
            yield
    except AttackError as err:
        raise UsageError(one_line(err)) from err
    except ValueError as err:
        if str(state) not in str(err):
            raise
        raise UsageError(one_line(err)) from err
    except KeyboardInterrupt as err:
        raise KeyboardInterrupt("interrupted; the same command goes on from the last finished batch") from err


def clear_state(state: Path) -> None:
    """Remove what an evaluation kept in order to go on, and nothing else."""
    for file in [*state.glob("[0-9][0-9][0-9]-[0-9][0-9][0-9][0-9].npz"), state / "evaluation.json"]:
        file.unlink(missing_ok=True)
    if state.is_dir() and not any(state.iterdir()):
        state.rmdir()


def _evaluate(args: argparse.Namespace) -> int:
    with user_errors():
        _radii(args)  # what is no number is told before anything is loaded
    with all_processes(args.device) as (_, device_type):
        return _evaluate_among(device_type, args)


def _evaluate_among(device_type: str, args: argparse.Namespace) -> int:
    """Every process attacks; the main one writes and prints."""
    from art_mmc.evaluation import RobustnessEvaluation, get_suite
    from art_mmc.reports import evaluation_table, verdict_text, write_robustness
    from art_mmc.studies.evaluate import assess, load_any
    from art_mmc.studies.setup import default_eps

    with user_errors():
        suite = get_suite(args.suite)
        dataset = load_data(args.dataset, args)
        checkpoint = Path(args.checkpoint).expanduser()
        classifier, kind = load_any(checkpoint, dataset, args.factory, device_type)
        substitutes = [load_any(Path(path).expanduser(), dataset, None, device_type)[0] for path in args.substitute]
        radii = _radii(args, classifier.clip_values)
        if radii is None:
            unit = box_unit(classifier.clip_values, "the default of --eps")
            radii = [unit * eps for eps in suite.eps_for(dataset.name) or default_eps(dataset)]
        output = Path(args.output or f"runs/evaluate-{checkpoint.stem}-{suite.name}").expanduser()
        state = output / "state"
        evaluation = RobustnessEvaluation(
            suite.name,
            radii,
            math.inf if args.norm == "inf" else 2,
            quirks=parse_names(args.quirk, ()),
            substitutes=substitutes or None,
            batch_size=args.batch_size,
            seed=args.seed,
            folder=state,
            verbose=not args.quiet,
        )
        check_writable(output)

    with evaluating(state), cpu_threads(args.threads, dataset.input_shape):
        assessment = assess(
            classifier,
            dataset,
            evaluation,
            nb_test=args.nb_test,
            curves=args.curves,
            name=args.name or checkpoint.stem,
            about={
                "checkpoint": checkpoint.name,
                "kind": kind,
                "substitutes": [Path(path).name for path in args.substitute],
            },
        )

    def finish() -> int:
        with user_errors():
            files = write_robustness(assessment, output)
        clear_state(state)
        record = assessment.record
        print(evaluation_table(record))
        print()
        print(verdict_text(record))
        print(f"wrote {', '.join(map(str, files))}")
        return _failed(record, args.fail_under)

    return told_once(finish)


def _failed(record: RobustnessRecord, least: float | None) -> int:
    """The exit status for --fail-under."""
    from art_mmc.evaluation import HOLDS
    from art_mmc.reports import format_eps

    if least is None:
        return 0
    eps = record.eps[-1]
    worst = record.worst_case(eps).accuracy
    status = None if record.verdict is None else record.verdict.status
    problems = [f"the worst case at eps {format_eps(eps)} is {worst:.3f}"] if worst < least else []
    if status != HOLDS:
        problems.append(f"the verdict is {status}")
    print(f"--fail-under {least:g}: {'failed, ' + ' and '.join(problems) if problems else 'passed'}")
    return 1 if problems else 0
