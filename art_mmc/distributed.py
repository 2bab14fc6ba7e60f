"""
Several processes that work on one thing, as torchrun starts them: which one this is, which part is its own, and how
they put together what each has. In one process all of this does nothing.

Under torchrun every process runs the same program. What is called here from one of them must be called from all.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import distributed as dist

P = ParamSpec("P")
T = TypeVar("T")

#: how long a process waits for one that has more to do: the last batch of an attack may take hours. A process that has
#: ended is noticed at once
PATIENCE = timedelta(days=7)


class World(NamedTuple):
    """
    Where a process stands among the others.

    :param rank: Number of this process, from 0.
    :param size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def shard(self, n: int) -> slice:
        """
        The process' part of n things in a row: one in `size`, from the `rank`-th on. Parts differ by one at most, and a
        first half of the things is shared out as evenly as the whole. `whole[rank::size] = part`, for each process in
        turn, puts them together again.

        :param n: Number of things.
        :return: A slice; empty where there are fewer things than processes before this one.
        """
        return slice(self.rank, n, self.size)

    def share(self, n: int) -> int:
        """
        :param n: Number of things.
        :return: How many of them are in :meth:`shard`.
        """
        return len(range(self.rank, n, self.size))


def world() -> World:
    """
    :return: Rank and number of the processes; (0, 1) where there is but one.
    """
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def shard(n: int) -> slice:
    """
    :param n: Number of things.
    :return: This process' part of them; see :meth:`World.shard`.
    """
    return world().shard(n)


# ---------------------------------------------------------------------------------------------- beginning and end


def launched() -> bool:
    """
    :return: Whether torchrun, or something that sets the same environment variables, started several processes.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return dist.is_available() and all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


def _start(device_type: str) -> None:
    """Choose this process' device and meet the others."""
    cuda = device_type != "cpu" and torch.cuda.is_available()
    if cuda:
        local, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {count}: start no more processes "
                f"than that (--nproc-per-node {count}), or train on the CPU."
            )
        torch.cuda.set_device(local)
    # gloo beside nccl: small things that the processes agree on must not wait for the GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    _Shared.group = dist.new_group(backend="gloo", timeout=PATIENCE)


def _end() -> None:
    dist.destroy_process_group()
    _Shared.group = None


@contextmanager
def process_group(device_type: str = "gpu") -> Iterator[World]:
    """
    Around the whole work of a program that torchrun may have started: meets the other processes and takes the GPU
    `LOCAL_RANK`, which a classifier made inside then uses. Where there are no others, or they have met already, it does
    nothing.

    After an exception the group is left as it is: to take it down could mean to wait for processes that wait for this
    one. torchrun ends them as soon as this one has ended.

    :param device_type: "cpu", or "gpu" for the GPUs if there are any.
    :return: Rank and number of the processes.
    :raises ValueError: When there are more processes than GPUs.
    """
    mine = launched() and not dist.is_initialized()
    if mine:
        _start(device_type)
    yield world()
    if mine:
        _end()


def join(device_type: str = "gpu") -> World:
    """
    As :func:`process_group`, from here to the end of the program. Called again it does nothing.

    :param device_type: "cpu", or "gpu" for the GPUs if there are any.
    :return: Rank and number of the processes.
    :raises ValueError: When there are more processes than GPUs.
    """
    if launched() and not dist.is_initialized():
        _start(device_type)
        atexit.register(_leave)
    return world()


def _leave() -> None:
    if dist.is_initialized() and not hasattr(sys, "last_value"):  # set after an exception; see process_group
        _end()


# ---------------------------------------------------------------------------------------------- putting together


def total(tensor: torch.Tensor) -> torch.Tensor:
    """
    Add up a tensor over the processes, in place.

    :param tensor: A tensor, of the same shape in each process; without gradient.
    :return: The same tensor, the same in each process.
    """
    if world().size > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: torch.Tensor) -> torch.Tensor:
    """
    Overwrite a tensor by the main process' one.

    :param tensor: A tensor, of the same shape in each process; without gradient.
    :return: The same tensor, the same in each process.
    """
    if world().size > 1:
        dist.broadcast(tensor, 0)
    return tensor


def gather_objects(value: T) -> list[T]:
    """
    :param value: Anything that pickle can take.
    :return: The value of each process, in the order of their ranks; the same list in each process.
    """
    values: list[Any] = [value] * world().size
    if len(values) > 1:
        dist.all_gather_object(values, value, group=_Shared.group)
    return values


def broadcast_object(value: T) -> T:
    """
    :param value: Anything that pickle can take; that of the main process counts.
    :return: The main process' value.
    """
    values = [value]
    if world().size > 1:
        dist.broadcast_object_list(values)
    return values[0]


def main_process_only(function: Callable[P, T]) -> Callable[P, T | None]:
    """
    A decorator for what one process does for all, such as writing a file.

    :param function: The function.
    :return: The function that does nothing, and returns None, in all but the main process.
    """

    @functools.wraps(function)
    def only_there(*args: P.args, **kwargs: P.kwargs) -> T | None:
        return function(*args, **kwargs) if world().is_main else None

    return only_there


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    gather_objects(None)


# ---------------------------------------------------------------------------------------------- sharing the work


class _Shared:
    """What :func:`share_out` keeps between its calls."""

    #: the patient group; None for the default one, where somebody else made it
    group: Any = None
    #: number of calls so far, the same in all processes
    calls = 0
    #: whether a job is being done
    busy = False


class _Failed(NamedTuple):
    """The job that failed, and its error."""

    job: int
    error: BaseException


def share_out(jobs: Sequence[Callable[[], T]]) -> Iterator[T]:
    """
    Do jobs that do not depend on each other: each process takes the next one as soon as it is free, and all processes
    get all results, in the order of the jobs. In one process they are done in turn, each when its result is asked for,
    and so they are inside of a job, where there are no others to share with.

    If jobs fail, no new ones are begun, and the error of the first of them is raised in all processes, as it would be
    in one; where pickle does not take it, as a RuntimeError with its name and text. Ctrl-C, in whichever process, is
    raised in all.

    :param jobs: The jobs, the same in each process; pickle must take their results.
    :return: The results. In several processes the jobs are done when the first one is asked for.
    """
    if world().size == 1 or _Shared.busy:
        for job in jobs:
            yield job()
    elif jobs:
        results = _exchange(*_take_turns(jobs))
        for number in range(len(jobs)):
            yield results.pop(number)


def _take_turns(jobs: Sequence[Callable[[], T]]) -> tuple[dict[int, T], _Failed | None]:
    """Jobs done in this process: results by the numbers of the jobs, and what ended them early."""
    # the store by which the processes met counts for all of them; torch has no public name for it
    store = dist.distributed_c10d._get_default_store()
    key = f"art_mmc/jobs/{_Shared.calls}"
    _Shared.calls += 1
    done: dict[int, T] = {}
    while (number := store.add(key, 1) - 1) < len(jobs):
        failed = _attempt(done, number, jobs[number])
        if failed:
            store.add(key, len(jobs))  # the others begin no more; those before this one have been taken already
            return done, failed
    return done, None


def _attempt(done: dict[int, T], number: int, job: Callable[[], T]) -> _Failed | None:
    """Do a job, and keep its result or give back its error."""
    _Shared.busy = True
    try:
        done[number] = job()
    except (Exception, KeyboardInterrupt) as err:
        return _Failed(number, err)
    finally:
        _Shared.busy = False
    return None


def _exchange(done: dict[int, T], failed: _Failed | None) -> dict[int, T]:
    """The results of all processes; or the error that counts, raised in all of them."""
    told = failed and _Failed(failed.job, _portable(failed.error))
    with _no_second_interrupt(failed is not None and isinstance(failed.error, KeyboardInterrupt)):
        everything = gather_objects(({} if told else done, told))
    failures = [failure for _, failure in everything if failure]
    if failures:
        first = min(failures, key=lambda each: (not isinstance(each.error, KeyboardInterrupt), each.job))
        if failed and failed.job == first.job:
            raise failed.error  # with its traceback
        raise first.error
    return {number: result for part, _ in everything for number, result in part.items()}


def _portable(error: BaseException) -> BaseException:
    """The error as another process can raise it."""
    with suppress(Exception):  # whatever the class of an error has against it; the error itself is told in any case
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def _no_second_interrupt(interrupted: bool) -> Iterator[None]:
    """Ctrl-C comes from the terminal and once more from torchrun, while a process tells the others of the first."""
    if not interrupted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def in_main_process(job: Callable[[], T]) -> T:
    """
    Do something in the main process alone, while the others wait.

    :param job: What to do.
    :return: Its result, in all processes; so is its error.
    """
    if world().size == 1 or _Shared.busy:
        return job()
    done: dict[int, T] = {}
    failed = _attempt(done, 0, job) if world().is_main else None
    return _exchange(done, failed)[0]


def main_process_first(function: Callable[[], T]) -> T:
    """
    Do something in all processes that the main one must have done before the others, such as a download.

    :param function: What to do.
    :return: This process' result.
    """
    first: list[T] = []
    in_main_process(lambda: first.append(function()))
    return first[0] if first else function()


def check_same(about: Mapping[str, Any], doing: str) -> None:
    """
    All processes must be about to do the same.

    :param about: Name -> a description of what must be the same.
    :param doing: What they do, in an error: "train".
    :raises ValueError: When it is not, in all processes.
    """
    if world().size == 1 or _Shared.busy:
        return
    first, *others = gather_objects(dict(about))
    for rank, other in enumerate(others, 1):
        if different := [name for name in first if first[name] != other[name]]:
            what = "; ".join(f"{name}: {difference(first[name], other[name])}" for name in different)
            raise ValueError(
                f"processes 0 and {rank} are not about to {doing} the same: {what}. Each needs the same settings and "
                "the same data in the same order."
            )


def difference(old: Any, new: Any) -> str:
    """
    :param old: A description, parts divided by commas.
    :param new: Another one.
    :return: What differs, without the parts that they share.
    """
    was, now = str(old).split(", "), str(new).split(", ")
    return f"was {', '.join(p for p in was if p not in now)}, is {', '.join(p for p in now if p not in was)}"


class Agreement:
    """
    What the processes agree on while they work, without waiting for each other: the largest of the numbers that they
    gave one call before. In one process the answer is the number itself, at once.
    """

    def __init__(self) -> None:
        self._asked: tuple[Any, torch.Tensor] | None = None

    def reach(self, value: int) -> int:
        """
        :param value: This process' number; 0 for no wish.
        :return: The largest number that any process gave in the call before, 0 in the first.
        """
        if world().size == 1:
            return value
        # a group of GPUs alone has no room for a tensor on the CPU
        here = "cpu" if "cpu:" in dist.get_backend_config() else "cuda"
        wish = torch.tensor([value], device=here)
        asked, self._asked = self._asked, (dist.all_reduce(wish, dist.ReduceOp.MAX, async_op=True), wish)
        if asked is None:
            return 0
        asked[0].wait()
        return int(asked[1])

    def settle(self, value: int) -> int:
        """
        :param value: This process' number; 0 for no wish.
        :return: The largest number that any process gave in this call or the one before.
        """
        return max(self.reach(value), self.reach(value))
