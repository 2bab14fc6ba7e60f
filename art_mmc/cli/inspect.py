"""
`art-mmc inspect`: measure on trained networks what the papers explain their losses by, and write a report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from art_mmc.cli.common import (
    UsageError,
    check_writable,
    cpu_threads,
    diverging,
    find_device,
    one_line,
    parse_radii,
    user_errors,
    whole,
)

_INSPECT = """\
Measure on trained networks what the papers explain their losses by: sample density in feature space (MMC), distances to
the decision boundaries (MMLDA), probability gaps and the classes that attacks land on (PC). Draw features in the plane
and convergence curves. Writes report.md, report.json and pictures. It says why a loss works, not how robust a network
is: for that, art-mmc compare."""


_INSPECT_NOTES = """\
examples:
  art-mmc inspect runs/mmc-digits.pt
  art-mmc inspect sce.pt mmc.pt pc.pt --dataset mnist --data-dir ~/data --eps 0.05,0.1,0.2,0.3 --output runs/inside
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    parser = commands.add_parser(
        "inspect",
        help="measure the theory on trained networks, write a report",
        usage="art-mmc inspect CHECKPOINT [CHECKPOINT ...] [options]",
        description=_INSPECT,
        epilog=_INSPECT_NOTES,
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file that art-mmc train wrote; several are drawn together. The history of the training is looked for "
        "beside it",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", default="digits", metavar="NAME", help="as in art-mmc train; the one that they were trained on"
    )
    data.add_argument("--data-dir", metavar="DIR", help="folder of the data sets, in torchvision's layout")
    data.add_argument("--download", action="store_true", help="let torchvision download what is not in --data-dir")
    data.add_argument(
        "--nb-train", type=whole(1), metavar="N", help="training images (default: 2000, or 50 a class if that is more)"
    )
    data.add_argument("--nb-test", type=whole(3), default=500, metavar="N", help="test images, at most (500)")
    data.add_argument("--nb-points", type=whole(3), default=300, metavar="N", help="of them in feature maps (300)")
    measures = parser.add_argument_group("measurements")
    measures.add_argument(
        "--eps",
        action="append",
        metavar="EPS[,EPS]",
        help="L-inf radii of the attacks, inputs being in [0, 1], e.g. 0.1,0.2 or 8/255; can be repeated (default: as "
        "in art-mmc compare)",
    )
    measures.add_argument("--steps", type=whole(1), default=10, metavar="N", help="steps of MIM and PGD (10)")
    measures.add_argument("--neighbours", type=whole(1), default=10, metavar="K", help="neighbours of a feature (10)")
    measures.add_argument(
        "--components", type=whole(1), metavar="D", help="components in which they are looked for (default: 5)"
    )
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="seed of all randomness (0)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "cuda"), help="where to compute (default: gpu if there is one; cuda = gpu)"
    )
    parser.add_argument(
        "--threads", type=whole(1), metavar="N", help="CPU threads (default: 1 for tiny images, else torch's choice)"
    )
    parser.add_argument("--quiet", action="store_true", help="nothing on the terminal but what was written")
    parser.add_argument(
        "--output", default="runs/inspect", metavar="DIR", help="folder of the report (default: runs/inspect)"
    )
    parser.set_defaults(run=_inspect)


def _names(paths: Sequence[Path]) -> list[str]:
    """The files' names without their endings; with the folder where two are the same."""
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.stem}-{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two checkpoints would both be called '{twice}': give them different file names")
    return names


def _inspect(args: argparse.Namespace) -> None:
    from art_mmc.classifiers import load_classifier
    from art_mmc.data import load_dataset
    from art_mmc.studies.history import find_history
    from art_mmc.studies.inspect import check_fits
    from art_mmc.studies.setup import default_eps
    from art_mmc.theory import FeatureError, inspect_classifier, read_history, write_inspection

    with user_errors():
        radii = parse_radii(args.eps)
        paths = [Path(path).expanduser() for path in args.checkpoints]
        names = _names(paths)
        device_type = find_device(args.device)
        classifiers = [load_classifier(path, device_type=device_type) for path in paths]
        found = [find_history(path) for path in paths]
        histories = [None if place is None else read_history(place) for place in found]
        dataset = load_dataset(args.dataset, args.data_dir, args.download)
        for classifier, path in zip(classifiers, paths, strict=True):
            try:
                check_fits(classifier, dataset)
            except ValueError as err:
                raise ValueError(f"{path}: {err}") from None
        output = Path(args.output).expanduser()
        check_writable(output)

    inspections = []
    with diverging(), cpu_threads(args.threads, dataset.input_shape):
        for name, classifier, history in zip(names, classifiers, histories, strict=True):
            try:
                inspection = inspect_classifier(
                    classifier,
                    dataset,
                    radii or default_eps(dataset),
                    name=name,
                    nb_train=args.nb_train,
                    nb_test=args.nb_test,
                    nb_points=args.nb_points,
                    k=args.neighbours,
                    dim=args.components,
                    steps=args.steps,
                    seed=args.seed,
                    history=history,
                )
            except FeatureError as err:  # too few of a class, or a network whose features have collapsed
                raise UsageError(f"{name}: {one_line(err)}") from err
            inspections.append(inspection)
            if not args.quiet:
                _print_result(inspection)
        sources = {name: path.name for name, path in zip(names, paths, strict=True)}
        device = classifiers[0].device
        with user_errors():
            files = write_inspection(inspections, output, dataset, device, args.seed, sources)
    print(f"wrote {', '.join(map(str, files))}")


def _print_result(inspection: Any) -> None:
    from art_mmc.reports import format_percent

    ranks = inspection.ranks
    fooled = {attack: ranks.counts(attack).sum(axis=0) for attack in ranks.attacks}
    landed = ", ".join(
        f"{attack} {format_percent(counts[0] / counts.sum())} % of {counts.sum()}" if counts.sum() else f"{attack} none"
        for attack, counts in fooled.items()
    )
    print(
        f"{inspection.name}: clean {format_percent(inspection.correct.mean())} %, compactness "
        f"{inspection.compactness['train']:.3g} (train) {inspection.compactness['test']:.3g} (test), probability gap "
        f"{inspection.gaps['clean'].mean():.3f}, newly fooled that land on the runner-up: {landed}",
        flush=True,
    )
