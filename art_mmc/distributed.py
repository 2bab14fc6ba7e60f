"""
Several processes that work on one thing, as torchrun starts them: which one this is, which part is its own, and how
they put together what each has. In one process all of this does nothing.

Under torchrun every process runs the same program. What is called here from one of them must be called from all.
"""

import atexit
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed as dist
from tqdm.auto import tqdm

from art_mmc import checks
from art_mmc.state import on_interrupt

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
        """How many of n things are in :meth:`shard`."""
        return len(range(self.rank, n, self.size))


def world() -> World:
    """Rank and number of the processes; (0, 1) where there is but one."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def shard(n: int) -> slice:
    """The part of n things that is for this process; see :meth:`World.shard`."""
    return world().shard(n)


# ---------------------------------------------------------------------------------------------- beginning and end


def launched() -> bool:
    """Whether torchrun, or something that sets the same environment variables, started several processes."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return dist.is_available() and all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


def _meet(device_type: str) -> bool:
    """Choose this process' device and meet the others, if there are any; whether they have met only now."""
    if not launched() or dist.is_initialized():
        return False
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
    return True


def _part() -> None:
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
    met = _meet(device_type)
    yield world()
    if met:
        _part()


def join(device_type: str = "gpu") -> World:
    """
    As :func:`process_group`, from here to the end of the program. Called again it does nothing.

    :param device_type: "cpu", or "gpu" for the GPUs if there are any.
    :return: Rank and number of the processes.
    :raises ValueError: When there are more processes than GPUs.
    """
    if _meet(device_type):
        atexit.register(_leave)
    return world()


def _leave() -> None:
    if dist.is_initialized() and not hasattr(sys, "last_value"):  # set after an exception; see process_group
        _part()


# ---------------------------------------------------------------------------------------------- putting together


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Add up a tensor without gradient, of the same shape in each process, over the processes, in place."""
    if world().size > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: torch.Tensor) -> torch.Tensor:
    """Overwrite a tensor without gradient, of the same shape in each process, by the main process' one."""
    if world().size > 1:
        dist.broadcast(tensor, 0)
    return tensor


def gather_objects(value: T) -> list[T]:
    """The values of all processes, which pickle must take, in the order of their ranks."""
    values: list[Any] = [value] * world().size
    if len(values) > 1:
        dist.all_gather_object(values, value, group=_Shared.group)
    return values


def broadcast_object(value: T) -> T:
    """The main process' value, which pickle must take."""
    values = [value]
    if world().size > 1:
        dist.broadcast_object_list(values, group=_Shared.group)
    return values[0]


def largest(value: int) -> int:
    """The largest of the numbers that the processes give."""
    if world().size == 1:
        return value
    # a group of GPUs alone, which somebody else made, has no room for a tensor on the CPU
    numbers = torch.tensor([value], device="cpu" if "cpu:" in dist.get_backend_config(_Shared.group) else "cuda")
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_Shared.group)
    return int(numbers)


# ---------------------------------------------------------------------------------------------- sharing the work


class _Shared:
    """What holds in the whole process."""

    #: the patient group on the CPU; None for the default one, where somebody else made it
    group: Any = None
    #: whether a job is being done
    busy = False


def share_out(jobs: Sequence[Callable[[], T]]) -> Iterator[T]:
    """
    Do jobs that do not depend on each other, each process one in `size` of them, and all processes get all results, in
    the order of the jobs. In one process they are done in turn, each when its result is asked for, and so they are
    inside of a job, where there are no others to share with.

    A process whose job fails begins no new one. When all have come to an end, the error of the first job that failed is
    raised in all, as it would be in one; where pickle does not take it, as a RuntimeError with its name and text.
    Ctrl-C, in whichever process, is raised in all.

    :param jobs: The jobs, the same in each process; pickle must take their results.
    :return: The results. In several processes the jobs are done when the first one is asked for.
    """
    if world().size == 1 or _Shared.busy:
        for job in jobs:
            yield job()
    elif jobs:
        results = _do(jobs, range(len(jobs))[shard(len(jobs))])
        for number in range(len(jobs)):
            yield results.pop(number)


def progress(shown: bool, **settings: Any) -> Any:
    """A bar of tqdm's, in the main process, on a terminal or in a notebook: into a pipe or a file goes none."""
    terminal = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    return tqdm(disable=not (shown and terminal and world().is_main), leave=False, **settings)


def in_main_process(job: Callable[[], T]) -> T:
    """Do something in the main process alone, while the others wait; its result, or its error, is that of all."""
    if world().size == 1 or _Shared.busy:
        return job()
    return _do([job], range(world().is_main))[0]


def _do(jobs: Sequence[Callable[[], T]], mine: Iterable[int]) -> dict[int, T]:
    """Do those jobs that are this process'; the results of all processes, or the error that counts, raised in all."""
    done: dict[int, T] = {}
    failed: tuple[int, BaseException] | None = None  # the number of the job and its error
    number, _Shared.busy = 0, True
    try:
        for number in mine:
            done[number] = jobs[number]()
    except (Exception, KeyboardInterrupt) as err:
        failed = number, err
    finally:
        _Shared.busy = False
    told = failed and (failed[0], _portable(failed[1]))
    # Ctrl-C comes from the terminal and once more from torchrun, while a process tells the others of the first
    interrupted = failed is not None and isinstance(failed[1], KeyboardInterrupt)
    with on_interrupt(signal.SIG_IGN) if interrupted else nullcontext():
        everything = gather_objects(({} if told else done, told))
    failures = [failure for _, failure in everything if failure]
    if failures:
        first, error = min(failures, key=lambda each: (not isinstance(each[1], KeyboardInterrupt), each[0]))
        raise failed[1] if failed and failed[0] == first else error  # its own with its traceback
    return {number: result for part, _ in everything for number, result in part.items()}


def _portable(error: BaseException) -> BaseException:
    """The error as another process can raise it."""
    with suppress(Exception):  # whatever the class of an error has against it; the error itself is told in any case
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def main_process_first(function: Callable[[], T]) -> T:
    """Do something in all processes that the main one must have done before the others, such as a download."""
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
        if changes := differences(first, other):
            raise ValueError(
                f"processes 0 and {rank} are not about to {doing} the same: {changes}. Each needs the same settings "
                "and the same data in the same order."
            )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> str:
    """What differs between two descriptions by name: of mappings their entries, of texts the parts between commas."""
    changes = []
    for name in {**old, **new}:
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            changes.append(differences(was, now, f"{within}{name}."))
            continue
        if isinstance(was, str) and isinstance(now, str):
            one, other = was.split(", "), now.split(", ")
            was, now = (
                ", ".join(_balanced(part) for part in parts if part not in known)
                for parts, known in ((one, other), (other, one))
            )
            changes.append(f"{within}{name}: was {was or 'without'}, is {now or 'without'}")
        else:
            changes.append(f"{within}{name}: was {checks.shown(was)}, is {checks.shown(now)}")
    return "; ".join(changes)


def _balanced(part: str) -> str:
    """A part of a longer text, without brackets that close what began before it, and with those that its own lack."""
    for opening, closing in (("(", ")"), ("[", "]"), ("{", "}")):
        surplus = part.count(closing) - part.count(opening)
        part = "".join(part.rsplit(closing, surplus)) if surplus > 0 else part + closing * -surplus
    return part
