"""
What the commands share: the parser, what becomes a line on the terminal, and the way from a verb's settings to its
report, in however many processes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from art_mmc.checks import users_place

if TYPE_CHECKING:
    from art_mmc.studies.setup import Job


class UsageError(Exception):
    """A user's mistake, in one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, wherever they come up."""

    #: name of each command -> its parser
    commands: Mapping[str, argparse.ArgumentParser]

    def __init__(self, **kwargs: Any) -> None:
        # line breaks are kept, and the names of options get a little more room than usual
        formatter: Any = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28)
        super().__init__(allow_abbrev=False, formatter_class=formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def page(name: str) -> dict[str, str]:
    """What the help of a command says before its options, and after them."""
    text = (files("art_mmc.cli") / "pages" / f"{name}.txt").read_text("utf-8")
    return dict(zip(("description", "epilog"), text.split("---\n"), strict=False))


@contextmanager
def user_errors() -> Iterator[None]:
    """Around the checks of what the user gave: what they raise is a line, and elsewhere a bug with its traceback."""
    try:
        yield
    except (ValueError, OSError) as err:
        raise UsageError(one_line(err)) from err


@contextmanager
def failures(job: Job, factory: str | None = None) -> Iterator[None]:
    """Around training and attacks: what is due to the settings is a line and no bug; an interrupted run may go on."""
    from art_mmc.evaluation import AttackError
    from art_mmc.theory import FeatureError
    from art_mmc.trainers.run_folder import RunMismatchError

    try:
        yield
    except (AttackError, FeatureError, FloatingPointError, RunMismatchError) as err:
        raise UsageError(one_line(err) + _in_factory(err, factory)) from err
    except BrokenPipeError:
        raise
    except OSError as err:  # a full disk, a file where a folder belongs
        raise UsageError(one_line(err)) from err
    except KeyboardInterrupt as err:
        if not job.goes_on:
            raise
        raise KeyboardInterrupt(f"interrupted; {job.goes_on}") from err
    except Exception as err:
        place = _in_factory(err, factory)
        if not place:
            raise
        raise UsageError(f"--factory {factory}: {type(err).__name__}: {one_line(err)}{place}") from err


def _in_factory(err: BaseException | None, factory: str | None) -> str:
    """Where in the folder of a factory's module an error, or what it came from, was raised."""
    module = sys.modules.get((factory or "").partition(":")[0])
    folder = str(Path(getattr(module, "__file__", None) or "").parent)
    place = ""
    while module is not None and err is not None:
        place, err = users_place(err, folder) or place, err.__cause__ or err.__context__
    return place


def one_line(err: Exception) -> str:
    """The text of an error; that of the operating system without its number."""
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return " ".join(str(err).split())


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
def cpu_threads(wanted: int | None, input_shape: Sequence[int] | None = None) -> Iterator[None]:
    """CPU threads for a while: on tiny images one, which is as fast and gives the same figures on any machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if input_shape and min(input_shape[1:]) < 12 else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_writable(folder: Path) -> None:
    """Make a folder and a file in it, now rather than after the training."""
    from art_mmc.state import make_folder

    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise PermissionError(f"{folder}: no file can be written there ({err.strerror})") from err


def run_verb(
    settings: Any,
    prepare: Callable[[Any, str], Job],
    write: Callable[[Any, Path], Sequence[Path]],
    text: Callable[[Any], str],
    line: Callable[..., str] | None = None,
    status: Callable[[Any], int] = lambda record: 0,
) -> int:
    """
    From settings to a report, and the exit status: `prepare` checks, `write` writes the report on a record to a folder,
    `text` is printed of it, `line` of a part as it comes, unless all is quiet, and `status` may print. Every process
    does the work; the main one writes and prints while the others wait, as torchrun ends it once another has failed.
    """
    from art_mmc.distributed import in_main_process, process_group
    from art_mmc.reports.write import check_report
    from art_mmc.state import locked
    from art_mmc.studies.setup import clear_states

    with ExitStack() as processes:
        with user_errors():
            device_type = find_device(settings.device)
            world = processes.enter_context(process_group(device_type))
            job = prepare(settings, device_type)
            check_writable(job.folder)
            if job.own is None:  # else no report is written, and what lies in the folder is others'
                check_report(job.folder)
        talks = line is not None and world.is_main and not settings.quiet

        def tell(*results: Any) -> None:
            print(line(*results), flush=True)  # type: ignore[misc]

        def finish(record: Any) -> int:
            with user_errors():
                files = write(record, job.folder)
            clear_states(job.states)
            if shown := text(record):
                print(f"\n{shown}" if talks else shown)
            print(f"wrote {', '.join(map(str, files))}{job.note}")
            found = status(record)
            sys.stdout.flush()
            return found

        with ExitStack() as stack:
            if world.is_main:
                with user_errors():
                    stack.enter_context(locked(job.own or job.folder))
            stack.enter_context(cpu_threads(settings.threads, job.dataset.input_shape))
            with failures(job, getattr(settings, "factory", None)):
                record = job.run(tell if talks else None)
            return in_main_process(lambda: finish(record))
