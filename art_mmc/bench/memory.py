"""
Peak memory. A process' peak never goes down and what it has freed it often keeps, so that each contender is measured in
a fresh process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from art_mmc.bench.contest import ART, OURS, Contest, Settings

_MEGABYTE = 2**20


def run_in_child(request: dict[str, Any]) -> Any:
    """
    Let a fresh process do something; see :mod:`art_mmc.bench.child`.

    :param request: What to do; plain data.
    :return: Its answer; plain data.
    :raises RuntimeError: When it fails.
    """
    argv = [sys.executable, "-m", "art_mmc.bench.child", json.dumps({"threads": torch.get_num_threads(), **request})]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring {request} in a process of its own failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_megabytes(run: Callable[[], object], device_type: str = "cpu") -> float:
    """
    :param run: What to measure.
    :param device_type: "cpu" for the memory of this process, "gpu" for what torch allocates on the CUDA device if there
           is one.
    :return: How far the memory rose above what it was before, in MiB.
    """
    gc.collect()
    if device_type != "cpu" and torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / _MEGABYTE
    before = _start_anew()
    result = run()  # held, since it is part of what is needed
    peak = _peak()
    del result
    return max(0, peak - before) / _MEGABYTE


def _start_anew() -> int:
    """Give back what is freed, forget the peak, and tell the memory in use, in bytes."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """
    The process' peak so far, in bytes. Where there is one Linux' own figure, since `getrusage` gives a process that
    was just started the peak of the one that started it.
    """
    if sys.platform == "linux":
        return _status("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def memory_contest(job: str, settings: Settings) -> Contest:
    """
    :param job: Name of a job whose contenders are ART and this package.
    :param settings: How to measure.
    :return: The peak of each, in a fresh process each time.
    """

    def contender(name: str) -> Callable[[], float]:
        return lambda: run_in_child({"job": job, "contender": name, "settings": settings.to_dict()})

    where = "torch's allocations on the GPU" if settings.device_type != "cpu" else "resident memory of a fresh process"
    return Contest(
        {ART: contender(ART), OURS: contender(OURS)},
        note=f"the job {job}; rise of {where} above what network, inputs and a small first run take",
        unit="MB",
    )


def largest_batch_contest(settings: Settings) -> Contest:
    """
    :param settings: How to measure.
    :return: The largest batch, a power of two, in which PGD on a GPU fits its memory.
    """

    def contender(who: str) -> Callable[[], float]:
        return lambda: run_in_child({"largest_batch": who, "settings": settings.to_dict()})

    names = (ART, OURS, *([f"{OURS}, bfloat16"] if settings.bfloat16 else []))
    return Contest(
        {name: contender(name) for name in names},
        note="PGD with one step, ResNet-20, 3x32x32, batches of powers of two up to 262,144",
        unit="images",
    )


def largest_batch(who: str, settings: Settings) -> int:
    """
    :param who: Name of the contender.
    :param settings: How to measure.
    :return: The largest batch that fits; 0 if none does.
    """
    from art.attacks.evasion import ProjectedGradientDescent

    from art_mmc.bench.subjects import SHAPES, art_classifier, images, network, our_classifiers

    theirs = art_classifier(network("resnet20", settings), "resnet20", settings)
    classifier = theirs if who == ART else our_classifiers(theirs, settings)[who]
    fits = 0
    for power in range(settings.size(19, 3)):
        x, y = images(SHAPES["resnet20"], 2**power)
        attack = ProjectedGradientDescent(classifier, max_iter=1, batch_size=2**power, verbose=False)
        try:
            attack.generate(x, y)
        except torch.cuda.OutOfMemoryError:
            break
        fits = 2**power
    return fits
