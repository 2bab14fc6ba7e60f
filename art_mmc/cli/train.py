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

from art_mmc.checks import unknown_name
from art_mmc.cli.common import (
    add_common,
    check_writable,
    cpu_threads,
    diverging,
    find_device,
    load_run,
    parse_number,
    positive,
    share,
    user_errors,
    whole,
)

if TYPE_CHECKING:
    from art_mmc.trainers import Recipe


_TRAIN = """\
Train one defence, on clean or on adversarial examples, and write it to a file for art_mmc.load_classifier; beside it, a
.json file with history and clean test accuracy, and a folder FILE.run with checkpoints (last.pt, best.pt) and
history.csv. Ctrl-C stops after the batch; the same command with --resume goes on as if it had never stopped."""


_TRAIN_NOTES = """\
examples:
  art-mmc train --defence mmc --adversarial pgd --eps 0.15
  art-mmc train --defence sce --dataset mnist --data-dir ~/data --recipe madry2018-mnist-at-small --keep best
  art-mmc train --defence pc --dataset mnist --data-dir ~/data --recipe li2021-mnist-at --resume
  art-mmc train --defence mmc --set scale=100 --set variant=paper --config run.toml
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
    train.add_argument("--defence", required=True, metavar="NAME", help="the defence; see art-mmc defences")
    add_common(train)
    train.add_argument("--batch-size", type=whole(1), metavar="N", help="samples in one step (default: the recipe's)")
    train.add_argument("--lr", type=positive, metavar="RATE", help="learning rate (default: the recipe's)")
    train.add_argument(
        "--validation",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="share of the training images that is held out and watched (0.1); 0 for none",
    )
    train.add_argument("--output", metavar="FILE", help="the file (default: runs/DEFENCE-DATASET.pt)")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the defence, e.g. scale=100 or label_smoothing=0.2; can be repeated",
    )
    train.add_argument("--config", metavar="FILE", help="a TOML file with options by these names, without the dashes")
    _add_adversarial(train)
    _add_tricks(train)
    train.set_defaults(run=_train)


def _add_adversarial(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adversarial training")
    group.add_argument(
        "--adversarial",
        choices=("pgd", "fgsm", "fast", "trades"),
        help="how to craft: PGD, FGSM (a range of eps), fast (FGSM from a random start), TRADES",
    )
    group.add_argument("--eps", metavar="EPS", help="radius, inputs being in [0, 1], e.g. 0.3 or 8/255")
    group.add_argument("--attack-steps", type=whole(1), metavar="N", help="gradient steps (pgd, trades)")
    group.add_argument("--step-size", metavar="STEP", help="length of a step, e.g. 2/255 (default: eps / 4)")
    group.add_argument("--norm", choices=("inf", "2"), help="norm of the ball (pgd; default: inf)")
    group.add_argument(
        "--objective",
        choices=("loss", "adaptive", "margin", "cross_entropy", "dlr"),
        help="what the crafting climbs (default: the defence's own loss)",
    )
    group.add_argument("--targeted", choices=("random", "least_likely"), help="aim at a class (pgd)")
    group.add_argument("--crafting-batch-norm", choices=("eval", "train"), help="mode while crafting (pgd; eval)")
    group.add_argument(
        "--tolerance", type=whole(0), metavar="N", help="more steps for a sample that is misclassified already (pgd)"
    )
    group.add_argument("--beta", type=positive, metavar="B", help="weight of the divergence (trades; 6)")
    group.add_argument("--adv-ratio", type=positive, metavar="SHARE", help="adversarial share of a batch (1)")
    group.add_argument("--eps-warmup", type=positive, metavar="EPOCHS", help="epochs over which eps grows")


def _add_tricks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings of the training")
    group.add_argument(
        "--schedule", choices=("piecewise", "linear", "cosine", "cyclic"), help="of the rate (default: the recipe's)"
    )
    group.add_argument("--rate-warmup", type=positive, metavar="EPOCHS", help="epochs over which the rate grows")
    group.add_argument("--weight-decay", type=share, metavar="WD", help="weight decay (default: the recipe's)")
    group.add_argument(
        "--decay", choices=("all", "conv", "weights"), help="what decays: weights leaves out normalisation and biases"
    )
    group.add_argument("--scale-rate", action="store_true", help="scale the rate with --batch-size (linear rule)")
    group.add_argument("--activation", metavar="NAME", help="of the backbone: relu, softplus, silu, gelu, elu, ...")
    group.add_argument("--augmentation", metavar="NAME", help="e.g. crop-flip (default: the recipe's)")
    group.add_argument("--averaging", choices=("ema", "swa"), help="average the weights")
    group.add_argument(
        "--keep",
        choices=("last", "best"),
        default="last",
        help="weights to keep: last, or best on the validation share",
    )
    group.add_argument("--patience", type=whole(1), metavar="EPOCHS", help="stop after so many without a better one")
    group.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="float32 (default) or autocast"
    )
    group.add_argument("--compile", action="store_true", help="run training steps through torch.compile")
    group.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same --output")


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

    if args.batch_size is not None:
        scaled = recipe.with_batch_size(args.batch_size)
        recipe = scaled if args.scale_rate else dataclasses.replace(scaled, rate=recipe.rate)
    changes = {
        "rate": args.lr,
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
        attack["eps_max"] = None
    recipe = dataclasses.replace(recipe, attack_options={**kept, **attack})
    make_crafting(recipe.attack, **recipe.attack_options)
    return recipe


def _train(args: argparse.Namespace) -> None:
    from art_mmc.comparison import build_classifier, train_defence, training_summary
    from art_mmc.data import split_validation
    from art_mmc.defences import get_defence
    from art_mmc.reporting import format_percent, history_table, write_files
    from art_mmc.trainers.run_folder import RunFolder

    with user_errors():
        get_defence(args.defence)
        device_type = find_device(args.device)
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
        summary = training_summary(trained, dataset, args.seed, 0 if validation is None else len(validation[1]))
    with user_errors():
        trained.classifier.save_checkpoint(output)
        write_files(output.parent, {document.name: (json.dumps(summary, indent=1) + "\n").encode()})
    if not args.quiet:
        print(history_table(trained.history))
    clean = summary["clean_test_accuracy"]
    low, high = (format_percent(bound) for bound in clean["interval"])
    print(
        f"{args.defence}: clean test accuracy {format_percent(clean['accuracy'])} % (n = {clean['n']}, 95 % interval "
        f"{low} to {high}), {trained.seconds:.1f} s; not attacked, so this says nothing about robustness"
    )
    print(f"wrote {output}, {document}; history and checkpoints in {folder}")
