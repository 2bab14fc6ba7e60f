"""
`art-mmc train`: train one defence, write it to a file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.checks import UNIT_BOX, unknown_name
from art_mmc.cli.common import (
    add_common,
    all_processes,
    check_writable,
    cpu_threads,
    diverging,
    load_run,
    parse_number,
    positive,
    share,
    user_errors,
    whole,
)

if TYPE_CHECKING:
    from art_mmc.distributed import World
    from art_mmc.trainers import Recipe


_TRAIN = """\
Train one defence, on clean or on adversarial images, and write three things: the classifier, to a file FILE.pt for
art_mmc.load_classifier; its history and clean test accuracy, to FILE.json; and a folder FILE.run with checkpoints
(last.pt, best.pt), history.csv and, where TensorBoard is installed, its records.

Ctrl-C stops after the batch; the same command with --resume goes on as if it had never stopped. Started by torchrun,
the same command trains on several GPUs, or in several processes on CPUs, to the same result up to rounding."""


_TRAIN_NOTES = """\
[pgd]: an option of this way of crafting alone.

examples:
  art-mmc train --defence mmc
  art-mmc train --defence mmc --adversarial pgd --eps 0.15
  art-mmc train --defence sce --dataset mnist --data-dir ~/data --recipe madry2018-mnist-at-small --keep best
  art-mmc train --defence pc --dataset mnist --data-dir ~/data --recipe li2021-mnist-at --resume
  art-mmc train --defence mmc --set scale=100 --set variant=paper --config run.toml
  torchrun --nproc-per-node 4 -m art_mmc.cli train --defence mmc --dataset cifar10 --data-dir ~/data --adversarial pgd
"""


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    train = commands.add_parser(
        "train",
        help="train one defence, write it to a file",
        usage="art-mmc train --defence NAME [options]",
        description=_TRAIN,
        epilog=_TRAIN_NOTES,
    )
    train.add_argument("--defence", required=True, metavar="NAME", help="the defence; art-mmc defences lists them")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the defence, e.g. scale=100 or label_smoothing=0.2; can be repeated",
    )
    train.add_argument("--output", metavar="FILE", help="the classifier's file (default: runs/DEFENCE-DATASET.pt)")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same command")
    train.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with these options, e.g. epochs = 20; those of the command line override it",
    )
    add_common(train)
    _add_adversarial(train)
    _add_optimisation(train)
    _add_choice(train)
    train.set_defaults(run=_train)


def _add_adversarial(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adversarial training")
    group.add_argument(
        "--adversarial",
        choices=("pgd", "fgsm", "fast", "trades"),
        help="craft by PGD, by one step (fgsm), by one long step from a random start (fast), or train by TRADES "
        "(default: the recipe's, or clean images alone)",
    )
    group.add_argument(
        "--eps",
        metavar="EPS",
        help="radius of the perturbation, images being in [0, 1], e.g. 0.3 or 8/255 (default: the recipe's, or 8/255; "
        "for fgsm 0.1 to 0.3)",
    )
    group.add_argument(
        "--eps-max", metavar="EPS", help="each image's radius is drawn between --eps and this [fgsm] (default: --eps)"
    )
    group.add_argument("--eps-warmup", type=positive, metavar="EPOCHS", help="epochs over which the radius grows")
    group.add_argument("--norm", choices=("inf", "2"), help="norm of the perturbation [pgd] (default: inf)")
    group.add_argument("--attack-steps", type=whole(1), metavar="N", help="gradient steps [pgd, trades] (default: 10)")
    group.add_argument(
        "--step-size",
        metavar="STEP",
        help="length of a gradient step, e.g. 2/255 [pgd, fast, trades] (default: EPS / 4; fast: 1.25 EPS)",
    )
    group.add_argument(
        "--objective",
        choices=("loss", "adaptive", "margin", "cross_entropy", "dlr"),
        help="what crafting maximises [pgd, fgsm, fast] (default: loss, the defence's own)",
    )
    group.add_argument(
        "--targeted",
        choices=("random", "least_likely"),
        help="craft towards such a wrong class instead of away from the true one [pgd]",
    )
    group.add_argument(
        "--tolerance",
        type=whole(0),
        metavar="N",
        help="stop crafting an image N steps after it is first misclassified [pgd] (default: use all steps)",
    )
    group.add_argument(
        "--crafting-batch-norm",
        choices=("eval", "train"),
        help="batch normalisation while crafting: by running averages or by the batch [pgd] (default: eval)",
    )
    group.add_argument("--beta", type=positive, metavar="B", help="weight of the divergence [trades] (default: 6)")
    group.add_argument(
        "--adv-ratio", type=_part, metavar="SHARE", help="share of each batch that is adversarial (default: 1)"
    )


def _add_optimisation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation (where no default is given: the recipe's)")
    group.add_argument("--batch-size", type=whole(1), metavar="N", help="images in one step, of all processes together")
    group.add_argument(
        "--optimizer",
        choices=("sgd", "nesterov", "adam", "adamw"),
        help="SGD with momentum 0.9, with Nesterov's, Adam or AdamW; each wants an --lr of its own",
    )
    group.add_argument("--lr", type=positive, metavar="RATE", help="learning rate")
    group.add_argument(
        "--clip-gradient", type=positive, metavar="NORM", help="shorten a step's gradient to this 2-norm (default: no)"
    )
    group.add_argument(
        "--scale-rate", action="store_true", help="scale the recipe's rate in proportion to --batch-size"
    )
    group.add_argument(
        "--schedule", choices=("piecewise", "linear", "cosine", "cyclic"), help="how the rate goes down over the epochs"
    )
    group.add_argument("--rate-warmup", type=positive, metavar="EPOCHS", help="epochs over which the rate first grows")
    group.add_argument("--weight-decay", type=share, metavar="WD", help="weight decay, e.g. 5e-4")
    group.add_argument(
        "--decay",
        choices=("all", "conv", "weights"),
        help="what it applies to: all parameters, kernels of convolutions, or all but biases and normalisation",
    )
    group.add_argument("--augmentation", metavar="NAME", help="flip, crop-flip, reflect-crop-flip, ...")
    group.add_argument(
        "--activation", metavar="NAME", help="of the network: relu, softplus, silu, gelu, ... (default: the backbone's)"
    )
    group.add_argument("--averaging", choices=("ema", "swa"), help="average the weights over steps (ema) or epochs")
    group.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast (default: float32)"
    )
    group.add_argument("--compile", action="store_true", help="run training steps through torch.compile")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choice of the weights")
    group.add_argument(
        "--validation",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="share of the training images that is held out, to watch accuracy and robust accuracy on (default: 0.1; "
        "0 for none)",
    )
    group.add_argument(
        "--keep",
        choices=("last", "best"),
        default="last",
        help="write the weights of the last epoch (default), or of the best on those images",
    )
    group.add_argument(
        "--patience", type=whole(1), metavar="EPOCHS", help="stop when so many epochs have brought nothing better"
    )


def _part(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a share in (0, 1], got '{text}'")
    return value


def _defence_options(given: Sequence[str]) -> dict[str, Any]:
    """Options of the defence from NAME=VALUE."""
    options = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set: expected OPTION=VALUE, got '{text}'")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _with_options(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says otherwise."""
    from art_mmc.trainers import AUGMENTATIONS, make_crafting

    if args.scale_rate and (args.batch_size is None or args.lr is not None):
        raise ValueError("--scale-rate scales the recipe's rate: it needs --batch-size, and has no use beside --lr")
    if args.batch_size is not None:
        scaled = recipe.with_batch_size(args.batch_size)
        recipe = scaled if args.scale_rate else dataclasses.replace(scaled, rate=recipe.rate)
    changes = {
        "optimizer": args.optimizer,
        "rate": args.lr,
        "clip_gradient": args.clip_gradient,
        "schedule": args.schedule,
        "rate_warmup": args.rate_warmup,
        "weight_decay": args.weight_decay,
        "decay": args.decay,
        "augmentation": args.augmentation,
        "averaging": args.averaging,
        "attack": args.adversarial,
        "adv_ratio": args.adv_ratio,
        "eps_warmup": args.eps_warmup,
    }
    recipe = dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    if recipe.augmentation is not None and recipe.augmentation not in AUGMENTATIONS:
        raise unknown_name("augmentation", recipe.augmentation, AUGMENTATIONS)
    attack = {
        "eps": args.eps and parse_number("--eps", args.eps),
        "eps_max": args.eps_max and parse_number("--eps-max", args.eps_max),
        "steps": args.attack_steps,
        "step_size": args.step_size and parse_number("--step-size", args.step_size),
        "norm": None if args.norm is None else float(args.norm),
        "objective": args.objective,
        "targeted": args.targeted,
        "batch_norm": args.crafting_batch_norm,
        "tolerance": args.tolerance,
        "beta": args.beta,
    }
    attack = {name: value for name, value in attack.items() if value is not None}
    if recipe.attack is None:
        if attack or args.adv_ratio or args.eps_warmup:
            raise ValueError(
                "--eps and its like are settings of --adversarial, or of a recipe with adversarial training"
            )
        return recipe
    kept = {} if args.adversarial else dict(recipe.attack_options)
    if args.adversarial == "fgsm" and "eps" in attack:
        attack.setdefault("eps_max", None)
    recipe = dataclasses.replace(recipe, attack_options={**kept, **attack})
    make_crafting(recipe.attack, **recipe.attack_options).check(UNIT_BOX)  # data sets are in [0, 1]
    return recipe


def _train(args: argparse.Namespace) -> None:
    with all_processes(args.device) as (world, device_type):
        _train_among(world, device_type, args)


def _train_among(world: World, device_type: str, args: argparse.Namespace) -> None:
    """Every process trains; the main one writes and prints."""
    from art_mmc.data import split_validation
    from art_mmc.defences import get_defence
    from art_mmc.geometry import largest_cosine
    from art_mmc.heads import FixedCentersHead
    from art_mmc.reports import format_percent, history_table, write_files
    from art_mmc.studies.setup import build_classifier, train_defence, training_summary
    from art_mmc.trainers.run_folder import RunFolder

    with user_errors():
        get_defence(args.defence)
        dataset, recipe, backbone = load_run(args)
        recipe = _with_options(recipe, args)
        options = _defence_options(args.set)
        build_classifier(args.defence, dataset, backbone, activation=args.activation, **options)
        if not args.validation and (args.keep == "best" or args.patience):
            raise ValueError("--keep best and --patience need a --validation share of the training images")
        output = Path(args.output or f"runs/{args.defence}-{Path(dataset.name).stem}.pt").expanduser()
        if output.is_dir():
            raise ValueError(f"{output} is a folder; --output names a file")
        document = output.with_suffix(".json")
        if document == output:
            raise ValueError(f"--output {output}: the history goes to that .json file; name the classifier's file .pt")
        validation = None
        if args.validation:
            train, validation = split_validation(dataset.x_train, dataset.y_train, args.validation, args.seed)
            dataset = dataclasses.replace(dataset, x_train=train[0], y_train=train[1])
        check_writable(output.parent)
        folder = output.with_suffix(".run")
        if args.resume:
            RunFolder(folder).read_state()  # a damaged file is told before the training

    with diverging(), cpu_threads(args.threads, dataset.input_shape):
        trained = train_defence(
            args.defence,
            dataset,
            recipe,
            backbone=backbone,
            seed=args.seed,
            device_type=device_type,
            validation_data=validation,
            verbose=not args.quiet,
            activation=args.activation,
            options=options,
            resume=args.resume,
            folder=folder,
            keep=args.keep,
            patience=args.patience,
            precision=args.precision,
            compile_network=args.compile,
        )
        if not world.is_main:
            return
        summary = training_summary(trained, dataset, args.seed, 0 if validation is None else len(validation[1]))
    with user_errors():
        trained.classifier.save_checkpoint(output)
        write_files(output.parent, {document.name: (json.dumps(summary, indent=1) + "\n").encode()})
    if not args.quiet:
        print(history_table(trained.history))
        head = trained.classifier.model.head
        if isinstance(head, FixedCentersHead):
            cosine = largest_cosine(head.centers)
            print(f"{head.nb_classes} fixed centers in {head.in_features} dimensions, largest cosine {cosine:.3f}")
    clean = summary["clean_test_accuracy"]
    low, high = (format_percent(bound) for bound in clean["interval"])
    print(
        f"{args.defence}: clean test accuracy {format_percent(clean['accuracy'])} % (n = {clean['n']}, 95 % interval "
        f"{low} to {high}), {trained.seconds:.1f} s; not attacked, so this says nothing about robustness"
    )
    print(f"wrote {output}, {document}; history and checkpoints in {folder}")
