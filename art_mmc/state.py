"""
The world as it was found: networks, random states and files after a call that does not train are what they were before.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.checks import check_seed


class Stream(IntEnum):
    """What a seed is used for; two uses of one seed draw different numbers. The values are part of recorded figures."""

    TARGETS = 1
    SUBSTITUTE_NOISE = 2
    SUBSTITUTE = 3
    TRANSFER = 4
    PLANTED = 5
    DETERMINISM = 6
    DIAGNOSTIC_ATTACK = 7
    DIAGNOSTIC = 8
    MEMORY = 9
    ATTACK = 10
    DIAGNOSTICS = 11
    EVALUATION = 12
    DIFFERENCES = 13
    BORDER = 14
    CURVE = 20
    CURVE_POINTS = 21
    ANSWERS = 22  # a network that draws numbers: its answers to a substitute, its gradients along a curve
    NETWORK_OUTPUTS = 41


def derived_seed(seed: int, *parts: int) -> int:
    """A seed below 2**32 by a run's seed and what tells one use from another: a :class:`Stream`, a batch's number."""
    return int(np.random.SeedSequence((seed, *parts)).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """
    Seed the global random states of numpy, torch and Python, which ART's attacks and torch's layers draw from;
    afterwards they are as before.

    :param seed: The seed.
    """
    state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        np.random.seed(check_seed(seed))
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
            random.setstate(python_state)


@contextmanager
def on_interrupt(handler: Any) -> Iterator[None]:
    """Ctrl-C goes to a handler for a while, in the main thread: Python lets no other one set it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def untouched(network: torch.nn.Module) -> Iterator[None]:
    """Around calls that set modes or draw numbers: afterwards modules' flags and torch's random state are as before."""
    flags = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            for module, flag in flags:
                if module.training is not flag:
                    module.training = flag


#: processes and folders whose locks they hold
_HELD: set[tuple[int, str]] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Around work that writes to a folder, made if need be: BlockingIOError when another process is at it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    make_folder(folder)
    own = os.getpid(), str(folder.resolve())
    if own in _HELD:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)  # the system lets go of the lock when the process ends, and leaves no file
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise BlockingIOError(
                f"{folder}: another run is writing there; wait for it, or take another place"
            ) from err
        except OSError:  # a file system without locks
            pass
        _HELD.add(own)
        yield
    finally:
        _HELD.discard(own)
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; NotADirectoryError where one of them is a file."""
    for each in (path, *path.parents):
        if each.exists():
            if not each.is_dir():
                raise NotADirectoryError(f"{each} is a file, where a folder is needed; take another place")
            break
    path.mkdir(parents=True, exist_ok=True)


def check_replaceable(path: Path, ours: Callable[[Path], bool]) -> None:
    """ValueError for a file that is there and is a link, or not ours: it is not replaced."""
    if path.is_symlink() or (path.exists() and not (path.is_file() and ours(path))):
        what = "is a link" if path.is_symlink() else "was not written by art-mmc"
        raise ValueError(f"{path} {what}, and is not replaced: move it away or take another --output")


def write_atomically(files: Mapping[Path, bytes | Callable[[Any], Any]]) -> list[Path]:
    """
    Write files that belong together, path -> its content or what writes it to an open file, and return their paths: all
    beside their places first, then renamed, so that a reader never sees half of one, and a failure leaves the old ones.
    """
    staged = {path: path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp") for path in files}
    try:
        for path, temporary in staged.items():
            make_folder(path.parent)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder, where a file is needed; take another place")
            content = files[path]
            try:
                with open(temporary, "wb") as handle:
                    handle.write(content) if isinstance(content, bytes) else content(handle)
                    handle.flush()
                    os.fsync(handle.fileno())
            except (OSError, RuntimeError) as err:
                cause = err.__context__ if isinstance(err, RuntimeError) else err  # torch buries that the disk is full
                if not isinstance(cause, OSError) or cause.errno is None:  # its own words say it
                    raise
                raise OSError(cause.errno, cause.strerror, str(path)) from err
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            with suppress(NotADirectoryError):  # the error on its way says so
                temporary.unlink(missing_ok=True)
    return list(staged)
