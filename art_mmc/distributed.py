"""
Several processes that work on one thing, as torchrun starts them: which one this is, which part is its own, and how
they put together what each has. In one process all of this does nothing.

Under torchrun every process runs the same program. What is called here from one of them must be called from all.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import distributed as dist

P = ParamSpec("P")
T = TypeVar("T")


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
        dist.destroy_process_group()


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
        dist.destroy_process_group()


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
        dist.all_gather_object(values, value)
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
