"""
`art-mmc detect`: how well adversarial examples are detected, also by an attacker who knows the detector.
"""

from __future__ import annotations

import argparse
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
    positive,
    share,
    told_once,
    user_errors,
    whole,
)

if TYPE_CHECKING:
    from art_mmc.data import Dataset
    from art_mmc.distributed import World
    from art_mmc.evaluation.detection import DetectionRecord


_DETECT = """\
Train defences or load them, fit detectors on clean training images, attack test images with the attacks of the reverse
cross-entropy paper and with two that know the detector, and write report.md, report.json and roc.png.

Started by torchrun, the same command trains in several processes, and shares the batches of the attacks among them."""


_DETECT_NOTES = """\
The table gives the area under the ROC curve x 100, of the images that are right when clean and wrong after the attack:
100 finds all attacks, 50 is a coin; in brackets where C&W failed on too many images to tell. The report also has what
classifier and detector hold together.

detectors: confidence, non-me, kernel-density, lid, mahalanobis, center-distance (defences with centers only)
attacks:   fgsm, bim, ilcm, jsma, cw, cw-hc; cw-wb (C&W with the kernel density in its objective) and pgd-wb (PGD with
           the score of each detector in its objective) know the detector

examples:
  art-mmc detect                                        sce and rce on the digits
  art-mmc detect --defence sce,rce,mmc --detector kernel-density,mahalanobis --attack bim,pgd-wb
  art-mmc detect --checkpoint runs/sce-mnist.pt --checkpoint runs/rce-mnist.pt --dataset mnist --data-dir ~/data
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    detect = commands.add_parser(
        "detect",
        help="fit and attack detectors of adversarial examples, write a report",
        usage="art-mmc detect [options]",
        description=_DETECT,
        epilog=_DETECT_NOTES,
    )
    detect.add_argument(
        "--defence",
        action="append",
        metavar="NAME[,NAME]",
        help="defences to train; can be repeated (default: sce,rce; see art-mmc defences)",
    )
    detect.add_argument(
        "--checkpoint",
        action="append",
        metavar="FILE",
        help="a file that art-mmc train wrote, in the place of training; can be repeated",
    )
    add_common(detect)
    detectors = detect.add_argument_group("detectors")
    detectors.add_argument(
        "--detector",
        action="append",
        metavar="NAME[,NAME]",
        help="detectors, see below (default: confidence,non-me,kernel-density)",
    )
    detectors.add_argument(
        "--bandwidth",
        metavar="S2",
        help="sigma^2 of the kernel density: a number, paper, or cross-validation (default)",
    )
    detectors.add_argument(
        "--fpr", type=share, default=0.05, metavar="SHARE", help="false positives that set the thresholds (0.05)"
    )
    detectors.add_argument(
        "--fit-per-class", type=whole(2), default=1000, metavar="N", help="training images of a class to fit on (1000)"
    )
    attacks = detect.add_argument_group("attacks")
    attacks.add_argument(
        "--attack", action="append", metavar="NAME[,NAME]", help="attacks, see below (default: all of them)"
    )
    attacks.add_argument(
        "--eps",
        metavar="EPS",
        help="L-inf radius, inputs being in [0, 1], e.g. 0.1 or 8/255 (default: 0.16, 8/255 for colour images)",
    )
    attacks.add_argument(
        "--attack-share", type=positive, metavar="SHARE", help="share of the paper's iterations of C&W (0.02)"
    )
    # its name before; `reproduce` has a --budget of epochs
    attacks.add_argument(
        "--budget", dest="attack_share", type=positive, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    attacks.add_argument("--nb-test", type=whole(1), metavar="N", help="test images to attack (default: 500, or half)")
    attacks.add_argument(
        "--nb-white-box", type=whole(1), default=100, metavar="N", help="of them under cw-wb, which is slow (100)"
    )
    detect.add_argument(
        "--output", default="runs/detect", metavar="DIR", help="folder of the report (default: runs/detect)"
    )
    detect.set_defaults(run=_detect)


def _load(paths: list[str], device_type: str, dataset: Dataset) -> dict[str, Any]:
    """The classifiers of checkpoints by their names, after the files, that fit the data set."""
    from art_mmc.classifiers import load_classifier

    classifiers: dict[str, Any] = {}
    for path in paths:
        classifier = load_classifier(Path(path).expanduser(), device_type=device_type)
        if (classifier.input_shape, classifier.nb_classes) != (dataset.input_shape, dataset.nb_classes):
            raise ValueError(
                f"--checkpoint {path}: it takes inputs {classifier.input_shape} of {classifier.nb_classes} classes, "
                f"{dataset.name} has {dataset.input_shape} of {dataset.nb_classes}"
            )
        name = Path(path).stem
        if name in classifiers:
            raise ValueError(f"--checkpoint: two files would both be called '{name}': give them different names")
        classifiers[name] = classifier
    return classifiers


def _parse_bandwidth(text: str | None) -> float | str:
    if text in (None, "paper", "cross-validation"):
        return text or "cross-validation"
    try:
        return float(text)  # type: ignore[arg-type]
    except ValueError:
        raise ValueError(f"--bandwidth: expected a number, paper or cross-validation, got '{text}'") from None


def _detect(args: argparse.Namespace) -> None:
    with user_errors():
        radii = parse_radii(None if args.eps is None else [args.eps])
        if radii is not None and len(radii) > 1:
            raise ValueError("--eps: expected one radius")
        for option, value in (("--attack-share", args.attack_share), ("--fpr", args.fpr)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{option}: expected a share above 0 and up to 1, got {value:g}")
        if args.checkpoint and (args.defence or args.epochs or args.backbone):
            raise ValueError("--checkpoint takes the place of training: leave out --defence, --epochs and --backbone")

    with all_processes(args.device) as (world, device_type):
        _detect_among(world, device_type, radii, args)


def _detect_among(world: World, device_type: str, radii: list[float] | None, args: argparse.Namespace) -> None:
    """Every process trains and attacks; the main one writes and prints."""
    from art_mmc.attacks.detector_aware import PAPER_ATTACKS
    from art_mmc.defences import get_defence
    from art_mmc.detectors import DETECTORS, create_detector
    from art_mmc.reports.detect import text_table, write_report
    from art_mmc.studies.detect import ATTACK_SHARE, PAPER_DETECTORS, WHITE_BOX_ATTACKS, run_detection_study
    from art_mmc.studies.setup import build_classifier, train_defence

    with user_errors():
        detectors = parse_names(args.detector, PAPER_DETECTORS)
        attacks = parse_names(args.attack, (*PAPER_ATTACKS, *WHITE_BOX_ATTACKS))
        if args.attack is None and "kernel-density" not in detectors:
            attacks.remove("cw-wb")
        defences = [] if args.checkpoint else parse_names(args.defence, ("sce", "rce"))
        for option, names in (("--detector", detectors), ("--attack", attacks)):
            if not names:
                raise ValueError(f"{option}: expected a name, got none")
        for name in defences:
            get_defence(name)
        check_names("attack", attacks, (*PAPER_ATTACKS, *WHITE_BOX_ATTACKS))
        check_names("detector", detectors, DETECTORS)
        if "cw-wb" in attacks and "kernel-density" not in detectors:
            raise ValueError("--attack cw-wb attacks the kernel density: add kernel-density to --detector")
        params = {"kernel-density": {"bandwidth": _parse_bandwidth(args.bandwidth)}}
        dataset, recipe, backbone = load_run(args)
        classifiers = _load(args.checkpoint or [], device_type, dataset)
        sources: dict[str, Any] = {
            name: {"checkpoint": str(path)} for name, path in zip(classifiers, args.checkpoint or [], strict=True)
        }
        untrained = {name: build_classifier(name, dataset, backbone) for name in defences}
        for classifier in (*classifiers.values(), *untrained.values()):
            for name in detectors:
                create_detector(name, classifier, **params.get(name, {}))
        output = Path(args.output).expanduser()
        check_writable(output)

    with diverging(), cpu_threads(args.threads, dataset.input_shape):
        for name in defences:
            trained = train_defence(
                name,
                dataset,
                recipe,
                backbone=backbone,
                seed=args.seed,
                device_type=device_type,
                verbose=not args.quiet,
            )
            classifiers[name] = trained.classifier
            sources[name] = {
                "backbone": backbone,
                "recipe": recipe.name,
                "epochs": recipe.nb_epochs,
                "seconds": round(trained.seconds, 1),
            }
        study = run_detection_study(
            classifiers,
            dataset,
            detectors=detectors,
            attacks=[name for name in attacks if name in PAPER_ATTACKS],
            white_box=[name for name in attacks if name in WHITE_BOX_ATTACKS],
            eps=None if radii is None else radii[0],
            budget=args.attack_share or ATTACK_SHARE,
            nb_test=args.nb_test or min(500, max(1, len(dataset.y_test) // 2)),
            nb_white_box=args.nb_white_box,
            fit_per_class=args.fit_per_class,
            false_positive_rate=args.fpr,
            detector_params=params,
            seed=args.seed,
            sources=sources,
            verbose=not args.quiet,
            on_attack=None if args.quiet or not world.is_main else _print_attack,
        )

    def finish() -> None:
        with user_errors():
            files = write_report(study, output)
        if not args.quiet:
            print()
        print(text_table(study))
        print(f"wrote {', '.join(map(str, files))}")

    told_once(finish)


def check_names(kind: str, given: list[str], known: Any) -> None:
    """Refuse names that are not known."""
    from art_mmc.checks import unknown_name

    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known)


def _print_attack(classifier: str, attack: str, records: list[DetectionRecord]) -> None:
    from art_mmc.reports import format_percent
    from art_mmc.reports.detect import TITLES

    areas = [(TITLES[record.detector], record.auc()) for record in records]
    text = ", ".join(f"{name} {'-' if area is None else format_percent(area.value)}" for name, area in areas)
    seconds = sum({id(record.settings): record.seconds for record in records}.values())
    left = format_percent(min(record.adversarial_correct.mean() for record in records))
    print(f"{classifier}, {attack}: {left} % still correct; AUC x 100: {text} ({seconds:.1f} s)", flush=True)
