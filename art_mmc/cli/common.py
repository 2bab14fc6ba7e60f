"""
What the commands share: parsers of values, options, checks of what the user gave.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from art_mmc.checks import UNIT_BOX, check_eps

if TYPE_CHECKING:
    from art_mmc.data import Dataset
    from art_mmc.distributed import World
    from art_mmc.trainers import Recipe

T = TypeVar("T")


class UsageError(Exception):
    """A user's mistake, in one line."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and gives the names of options a little more room than usual."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, wherever they come up."""

    #: name of each command -> its parser
    commands: Mapping[str, argparse.ArgumentParser]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


@contextmanager
def user_errors() -> Iterator[None]:
    """
    Around the checks of what the user gave: what they raise is a line on the terminal. Elsewhere it would be a bug, and
    keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError) as err:
        raise UsageError(one_line(err)) from err


@contextmanager
def diverging() -> Iterator[None]:
    """
    Around training and attacks: a loss or logits that are no numbers are due to the settings, not to a bug, and so is a
    run that another one's files are in the way of.
    """
    from art_mmc.trainers.run_folder import RunMismatchError

    try:
        yield
    except (FloatingPointError, RunMismatchError) as err:
        raise UsageError(one_line(err)) from err


def one_line(err: Exception) -> str:
    """The text of an error; that of the operating system without its number."""
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return " ".join(str(err).split())


def whole(low: int, high: int | None = None) -> Any:
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


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got '{text}'")
    return value


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share in [0, 1), got '{text}'")
    return value


def add_common(parser: argparse.ArgumentParser) -> None:
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
    training.add_argument("--epochs", type=whole(1), metavar="N", help="epochs; the recipe's schedule is scaled along")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="seed of all randomness (0)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "cuda"), help="where to compute (default: gpu if there is one; cuda = gpu)"
    )
    parser.add_argument(
        "--threads", type=whole(1), metavar="N", help="CPU threads (default: 1 for tiny images, else torch's choice)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal, only the result")


def parse_number(option: str, text: str) -> float:
    """A number such as 0.3 or 8/255."""
    over, slash, under = text.partition("/")
    try:
        return float(over) / float(under if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{option}: expected a number such as 0.1 or 8/255, got '{text}'") from None


def parse_names(given: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """Names from a repeated option whose values may be lists."""
    if given is None:
        return list(default)
    return list(dict.fromkeys(name.strip() for part in given for name in part.split(",") if name.strip()))


def parse_radii(given: Sequence[str] | None, clip_values: Any = UNIT_BOX) -> list[float] | None:
    """Radii from what --eps was given, in the unit of inputs in that box; None for the data set's own."""
    if given is None:
        return None
    radii = [parse_number("--eps", text) for text in parse_names(given, ())]
    if not radii:
        raise ValueError("--eps: expected a number such as 0.1 or 8/255, got none")
    try:
        return [check_eps(radius, "--eps", clip_values) for radius in radii]
    except ValueError as err:
        raise ValueError(str(err).replace(" / ", "/")) from None  # as one types it here


def find_device(name: str | None) -> str:
    import torch

    if name == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "gpu"
    if name is not None:
        raise ValueError(f"--device {name}: torch finds no CUDA device here; use --device cpu")
    return "cpu"


@contextmanager
def all_processes(device: str | None) -> Iterator[tuple[World, str]]:
    """
    Around the work of a command that torchrun may have started in several processes: they meet, and each takes its
    device. All do the same; the main one writes and prints.
    """
    from art_mmc.distributed import process_group

    with ExitStack() as stack:
        with user_errors():
            device_type = find_device(device)
            here = stack.enter_context(process_group(device_type))
        yield here, device_type


def told_once(finish: Callable[[], T]) -> T:
    """
    Write the files and print, in the main process; the others wait, as the first process to end with another status
    than 0 would have torchrun end the one that still writes.
    """
    from art_mmc.distributed import in_main_process

    def there() -> T:
        result = finish()
        sys.stdout.flush()
        return result

    return in_main_process(there)


def load_data(name: str, args: argparse.Namespace) -> Dataset:
    """The data set of that name; one process downloads it, and then all have it."""
    from art_mmc.data import load_dataset
    from art_mmc.distributed import main_process_first

    def load() -> Dataset:
        return load_dataset(name, args.data_dir, args.download)

    return main_process_first(load) if args.download else load()


@contextmanager
def cpu_threads(wanted: int | None, input_shape: Sequence[int]) -> Iterator[None]:
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


def load_run(args: argparse.Namespace) -> tuple[Dataset, Recipe, str]:
    """The data set, the recipe and the name of the backbone that the options mean."""
    from art_mmc.studies.setup import default_backbone
    from art_mmc.trainers import get_recipe

    dataset = load_data(args.dataset, args)
    recipe = get_recipe(args.recipe, dataset.name)
    if args.epochs is not None:
        recipe = recipe.scaled(args.epochs)
    return dataset, recipe, args.backbone or default_backbone(dataset.input_shape, recipe)


def check_writable(folder: Path) -> None:
    """Make a folder and a file in it, now rather than after the training."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise PermissionError(f"{folder}: no file can be written there ({err.strerror})") from err


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its longest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{entry:<{width}}" for entry, width in zip(row, widths, strict=True)).rstrip())
