"""
The command line, `art-mmc`: parse, check, call, print. What it calls is in `comparison` and `reporting`.

torch and ART are imported inside the commands, so that help and errors of usage come at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from art_mmc.checks import check_eps, unknown_name

if TYPE_CHECKING:
    from art_mmc.comparison import DefenceResult
    from art_mmc.data import Dataset
    from art_mmc.trainers import Recipe

_DESCRIPTION = """\
Train networks by loss-based defences (MMC, MMLDA, RCE, PC, GCE, I-SCE, L-GM, center loss), and measure with the attacks
of the Adversarial Robustness Toolbox what is left of their robustness."""

_EXAMPLES = """\
examples:
  art-mmc compare                                      all nine defences on scikit-learn's digits, about a minute
  art-mmc compare --defence sce,mmc --eps 0.1,0.2      two of them, at two radii
  art-mmc compare --dataset mnist --data-dir ~/data --download
  art-mmc compare --dataset my.npz --eps 4/255,8/255 --backbone resnet20
  art-mmc train --defence mmc --output mmc.pt          one defence, to a file for art_mmc.load_classifier
  art-mmc train --defence pc --dataset fashion-mnist --data-dir ~/data --recipe li2021
"""

_COMPARE = """\
Train defences from the same seed by the same recipe, attack each on the same test images, print a table and write
report.md, report.json and curves.png."""

_COMPARE_NOTES = """\
The table gives the percentage of test images that are classified correctly, clean and under four columns an eps: FGSM;
own, PGD on the loss that the network was trained by; adapt, PGD on the objective that sees through the defence; worst,
the worst case over all of them, which is the number to quote.
"""

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


class _UsageError(Exception):
    """A user's mistake, in one line."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and gives the names of options a little more room than usual."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, wherever they come up."""

    #: name of each command -> its parser
    commands: dict[str, argparse.ArgumentParser]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


@contextmanager
def _user_errors() -> Iterator[None]:
    """
    Around the checks of what the user gave: what they raise is a line on the terminal. Elsewhere it would be a bug, and
    keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError) as err:
        raise _UsageError(_one_line(err)) from err


@contextmanager
def _diverging() -> Iterator[None]:
    """
    Around training and attacks: a loss or logits that are no numbers are due to the settings, not to a bug, and so is a
    run that another one's files are in the way of.
    """
    from art_mmc.trainers.run_folder import RunMismatchError

    try:
        yield
    except (FloatingPointError, RunMismatchError) as err:
        raise _UsageError(_one_line(err)) from err


def _one_line(err: Exception) -> str:
    """The text of an error; that of the operating system without its number."""
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return " ".join(str(err).split())


# ----------------------------------------------------------------------------------------------------------- the parser


def _whole(low: int, high: int | None = None) -> Any:
    """A parser of whole numbers from `low`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            limit = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"expected a whole number {limit}, got '{text}'")
        return value

    return parse


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got '{text}'")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share in [0, 1), got '{text}'")
    return value


def _add_common(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help="digits (default), mnist, fashion-mnist, kmnist, cifar10, cifar100, svhn, tiny-imagenet, or the path of "
        "an .npz file with x_train, y_train, x_test and y_test",
    )
    data.add_argument("--data-dir", metavar="DIR", help="folder of the data sets, in torchvision's layout")
    data.add_argument("--download", action="store_true", help="let torchvision download what is not in --data-dir")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--recipe",
        default="default",
        metavar="NAME",
        help="hyper-parameters of a paper, e.g. pang2020; see art-mmc recipes (default: Adam, for small images)",
    )
    training.add_argument(
        "--backbone",
        metavar="NAME",
        help="network; see art-mmc backbones (default: the recipe's, or cnn for tiny images, lenet5 for grey and "
        "resnet20 for colour ones)",
    )
    training.add_argument("--epochs", type=_whole(1), metavar="N", help="epochs; the recipe's schedule is scaled along")
    parser.add_argument("--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N", help="seed of all randomness (0)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "cuda"), help="where to compute (default: gpu if there is one; cuda = gpu)"
    )
    parser.add_argument(
        "--threads", type=_whole(1), metavar="N", help="CPU threads (default: 1 for tiny images, else torch's choice)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal, only the result")


def _add_adversarial(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adversarial training")
    group.add_argument(
        "--adversarial",
        choices=("pgd", "fgsm", "fast", "trades"),
        help="how to craft: PGD, FGSM (a range of eps), fast (FGSM from a random start), TRADES",
    )
    group.add_argument("--eps", metavar="EPS", help="radius, inputs being in [0, 1], e.g. 0.3 or 8/255")
    group.add_argument("--attack-steps", type=_whole(1), metavar="N", help="gradient steps (pgd, trades)")
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
        "--tolerance", type=_whole(0), metavar="N", help="more steps for a sample that is misclassified already (pgd)"
    )
    group.add_argument("--beta", type=_positive, metavar="B", help="weight of the divergence (trades; 6)")
    group.add_argument("--adv-ratio", type=_positive, metavar="SHARE", help="adversarial share of a batch (1)")
    group.add_argument("--eps-warmup", type=_positive, metavar="EPOCHS", help="epochs over which eps grows")


def _add_tricks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings of the training")
    group.add_argument(
        "--schedule", choices=("piecewise", "linear", "cosine", "cyclic"), help="of the rate (default: the recipe's)"
    )
    group.add_argument("--rate-warmup", type=_positive, metavar="EPOCHS", help="epochs over which the rate grows")
    group.add_argument("--weight-decay", type=_share, metavar="WD", help="weight decay (default: the recipe's)")
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
    group.add_argument("--patience", type=_whole(1), metavar="EPOCHS", help="stop after so many without a better one")
    group.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="float32 (default) or autocast"
    )
    group.add_argument("--compile", action="store_true", help="run training steps through torch.compile")
    group.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same --output")


def build_parser() -> _Parser:
    """
    :return: The parser of the command line. Its errors are exceptions, which :func:`main` turns into a line.
    """
    from art_mmc import __version__

    parser = _Parser(prog="art-mmc", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"art-mmc {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    table = parser.commands = {}

    compare = table["compare"] = commands.add_parser(
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
    _add_common(compare)
    attacks = compare.add_argument_group("attacks")
    attacks.add_argument(
        "--eps",
        action="append",
        metavar="EPS[,EPS]",
        help="L-inf radii, inputs being in [0, 1], e.g. 0.1,0.2 or 8/255; can be repeated (default: 0.05,0.1,0.15,0.2 "
        "for tiny, 0.1,0.2,0.3 for grey, 2/255,4/255,8/255,16/255 for colour images)",
    )
    attacks.add_argument("--steps", type=_whole(1), default=40, metavar="N", help="steps of PGD (40)")
    attacks.add_argument("--nb-test", type=_whole(1), default=1000, metavar="N", help="test images, at most (1000)")
    compare.add_argument(
        "--output", default="runs/compare", metavar="DIR", help="folder of the report (default: runs/compare)"
    )
    compare.set_defaults(run=_compare)

    train = table["train"] = commands.add_parser(
        "train",
        help="train one defence, write it to a file",
        usage="art-mmc train --defence NAME [options]",
        description=_TRAIN,
        epilog=_TRAIN_NOTES,
    )
    train.add_argument("--defence", required=True, metavar="NAME", help="the defence; see art-mmc defences")
    _add_common(train)
    train.add_argument("--batch-size", type=_whole(1), metavar="N", help="samples in one step (default: the recipe's)")
    train.add_argument("--lr", type=_positive, metavar="RATE", help="learning rate (default: the recipe's)")
    train.add_argument(
        "--validation",
        type=_share,
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

    bench = table["bench"] = commands.add_parser(
        "bench",
        help="measure the speed of adversarial training beside ART's",
        description="One epoch of PGD adversarial training of ResNet-20 on CIFAR shapes: ART's trainer, this package's "
        "and a hand-written loop, in turn, in one run. Ratios are medians over the rounds.",
    )
    bench.add_argument("--samples", type=_whole(1), default=256, metavar="N", help="images in the epoch (256)")
    bench.add_argument("--batch-size", type=_whole(2), default=128, metavar="N", help="images in one step (128)")
    bench.add_argument("--steps", type=_whole(1), default=7, metavar="N", help="steps of PGD (7)")
    bench.add_argument("--rounds", type=_whole(1), default=5, metavar="N", help="rounds that count (5)")
    bench.add_argument("--device", choices=("cpu", "gpu", "cuda"), help="where to compute")
    bench.add_argument("--output", metavar="FILE", help="write the figures to a .json file too")
    bench.set_defaults(run=_bench)

    for name, run, text in (
        ("defences", _defences, "list the defences"),
        ("recipes", _recipes, "list the papers' hyper-parameters"),
        ("backbones", _backbones, "list the networks"),
    ):
        table[name] = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        table[name].set_defaults(run=run)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith("-") and argv[0] not in parser.commands:
        raise _UsageError(str(unknown_name("command", argv[0], parser.commands)))
    args, rest = parser.parse_known_args(argv)
    if getattr(args, "config", None) is not None:
        with _user_errors():
            args, rest = parser.parse_known_args([argv[0], *_from_toml(args.config), *argv[1:]])
    if rest and rest[0].startswith("-"):
        known = parser.commands.get(args.command or "", parser)._option_string_actions
        names = [option for option in known if option.startswith("--")]
        raise _UsageError(str(unknown_name("option", rest[0].partition("=")[0], names)))
    if rest:
        raise _UsageError(f"unexpected argument '{rest[0]}'; see art-mmc {args.command} --help")
    if args.command is None:
        raise _UsageError(f"a command is needed: {', '.join(parser.commands)}; see art-mmc --help")
    return args


# ------------------------------------------------------------------------------------- from arguments to what they mean


def _from_toml(path: str) -> list[str]:
    """The options that a TOML file holds, as on the command line, which comes after them and so overrides them."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            options = tomllib.load(file)
    except tomllib.TOMLDecodeError as err:
        raise ValueError(f"--config {path}: {err}") from None
    argv: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if option == "--set" and isinstance(value, dict):
            for key, entry in value.items():
                argv += ["--set", f"{key}={json.dumps(entry)}"]
        elif isinstance(value, bool):
            argv += [option] if value else []
        elif isinstance(value, (str, int, float)):
            argv += [option, str(value)]
        else:
            raise ValueError(f"--config {path}: {name}: expected a string, a number or true, got {value!r}")
    return argv


def _number(option: str, text: str) -> float:
    """A number such as 0.3 or 8/255."""
    over, slash, under = text.partition("/")
    try:
        return float(over) / float(under if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{option}: expected a number such as 0.1 or 8/255, got '{text}'") from None


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
        "eps": args.eps and _number("--eps", args.eps),
        "steps": args.attack_steps,
        "step_size": args.step_size and _number("--step-size", args.step_size),
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


def _names(given: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """Names from a repeated option whose values may be lists."""
    if given is None:
        return list(default)
    return list(dict.fromkeys(name.strip() for part in given for name in part.split(",") if name.strip()))


def _radii(given: Sequence[str] | None) -> list[float] | None:
    """Radii from what --eps was given, None for the data set's own."""
    if given is None:
        return None
    radii = [_number("--eps", text) for text in _names(given, ())]
    if not radii:
        raise ValueError("--eps: expected a number such as 0.1 or 8/255, got none")
    try:
        return [check_eps(radius, name="--eps") for radius in radii]
    except ValueError as err:
        raise ValueError(str(err).replace(" / ", "/")) from None  # as one types it here


def _device_type(name: str | None) -> str:
    import torch

    if name == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "gpu"
    if name is not None:
        raise ValueError(f"--device {name}: torch finds no CUDA device here; use --device cpu")
    return "cpu"


@contextmanager
def _threads(wanted: int | None, input_shape: Sequence[int]) -> Iterator[None]:
    """
    CPU threads for a while. On tiny images one is as fast as many, does not crawl when other processes want the cores,
    and gives the same figures whatever their number.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if min(input_shape[1:]) < 12 else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(args: argparse.Namespace) -> tuple[Dataset, Recipe, str]:
    """The data set, the recipe and the name of the backbone that the options mean."""
    from art_mmc.comparison import default_backbone
    from art_mmc.data import load_dataset
    from art_mmc.trainers import get_recipe

    dataset = load_dataset(args.dataset, args.data_dir, args.download)
    recipe = get_recipe(args.recipe, dataset.name)
    if args.epochs is not None:
        recipe = recipe.scaled(args.epochs)
    return dataset, recipe, args.backbone or default_backbone(dataset.input_shape, recipe)


def _check_writable(folder: Path) -> None:
    """Make a folder and a file in it, now rather than after the training."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise PermissionError(f"{folder}: no file can be written there ({err.strerror})") from err


# --------------------------------------------------------------------------------------------------------- the commands


def _compare(args: argparse.Namespace) -> None:
    with _user_errors():
        radii = _radii(args.eps)

    from art_mmc.comparison import ORDER, build_classifier, compare
    from art_mmc.defences import get_defence
    from art_mmc.reporting import flattery_sentences, text_table, write_report

    with _user_errors():
        defences = _names(args.defence, ORDER)
        if not defences:
            raise ValueError("--defence: expected a name, got none")
        for name in defences:
            get_defence(name)
        device_type = _device_type(args.device)
        dataset, recipe, backbone = _load(args)
        for name in defences:
            build_classifier(name, dataset, backbone)
        output = Path(args.output).expanduser()
        _check_writable(output)

    with _diverging(), _threads(args.threads, dataset.input_shape):
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
            on_result=None if args.quiet else _print_result,
        )
    with _user_errors():
        files = write_report(comparison, output)
    if not args.quiet:
        print()
    print(text_table(comparison, shutil.get_terminal_size((120, 24)).columns))
    print()
    for sentence in flattery_sentences(comparison):
        print(sentence)
    print(f"wrote {', '.join(map(str, files))}")


def _print_result(result: DefenceResult) -> None:
    from art_mmc.reporting import format_eps, format_percent

    record = result.robustness
    worst = ", ".join(f"{format_percent(record.worst_case(eps).accuracy)} % at {format_eps(eps)}" for eps in record.eps)
    print(
        f"{result.defence}: clean {format_percent(record.clean.accuracy)} %, worst case {worst} "
        f"(training {result.training_seconds:.1f} s, attacks {result.evaluation_seconds:.1f} s)",
        flush=True,
    )


def _train(args: argparse.Namespace) -> None:
    from art_mmc.comparison import build_classifier, train_defence, training_summary
    from art_mmc.data import split_validation
    from art_mmc.defences import get_defence
    from art_mmc.reporting import format_percent, history_table, write_files
    from art_mmc.trainers.run_folder import RunFolder

    with _user_errors():
        get_defence(args.defence)
        device_type = _device_type(args.device)
        dataset, recipe, backbone = _load(args)
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
        _check_writable(output.parent)
        folder = output.with_suffix(".run")
        if args.resume:
            RunFolder(folder).read_state()  # a damaged file is told before the training

    with _diverging(), _threads(args.threads, dataset.input_shape):
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
    with _user_errors():
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


def _bench(args: argparse.Namespace) -> None:
    from art_mmc.bench import bench_adversarial_training
    from art_mmc.comparison import machine
    from art_mmc.reporting import write_files

    with _user_errors():
        device_type = _device_type(args.device)
        if args.output is not None:
            _check_writable(Path(args.output).expanduser().parent)
    timings = bench_adversarial_training(args.samples, args.batch_size, args.steps, args.rounds, device_type)
    print(timings[0].job)
    _print_rows(
        [("", "seconds", "least", "most", "ratio")]
        + [(t.contender, f"{t.seconds:.2f}", f"{t.least:.2f}", f"{t.most:.2f}", f"{t.ratio:.2f}") for t in timings]
    )
    if args.output is not None:
        import torch

        facts = machine(torch.device("cpu" if device_type == "cpu" else "cuda"))
        document = {"rounds": args.rounds, **facts, "timings": [timing.to_dict() for timing in timings]}
        path = Path(args.output).expanduser()
        with _user_errors():
            write_files(path.parent, {path.name: (json.dumps(document, indent=1) + "\n").encode()})
        print(f"wrote {path}")


def _defences(args: argparse.Namespace) -> None:
    from art_mmc.defences import DEFENCES

    _print_rows([(row.name, row.title, f"{row.paper}, {row.link}") for row in DEFENCES.values()])


def _recipes(args: argparse.Namespace) -> None:
    from art_mmc.trainers import RECIPES

    _print_rows(
        [
            (
                recipe.name,
                f"{recipe.nb_epochs} epochs, batches of {recipe.batch_size}",
                recipe.backbone,
                recipe.description,
            )
            for recipe in RECIPES.values()
        ]
    )


def _backbones(args: argparse.Namespace) -> None:
    from art_mmc.models import BACKBONES

    _print_rows([(name, row.description) for name, row in BACKBONES.items()])


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its longest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{entry:<{width}}" for entry, width in zip(row, widths, strict=True)).rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """
    The command line.

    :param argv: Arguments without the program's name; None for those of the process.
    :return: Exit status: 0, 2 for a user's mistake, 130 for Ctrl-C.
    """
    try:
        args = _parse(argv)
        args.run(args)
    except _UsageError as err:
        print(f"art-mmc: error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as err:
        resume = "; the same command with --resume goes on" if getattr(err, "folder", None) else ""
        print(f"art-mmc: {'interrupted' if resume else str(err) or 'interrupted'}{resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `art-mmc recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as err:  # --help and --version
        return int(err.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
