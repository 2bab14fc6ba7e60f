"""
What a fresh process of the bench does: `python -m art_mmc.bench.child REQUEST`, where the request and the last line of
the output are JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from art_mmc.bench.contest import Settings
from art_mmc.bench.growth import measure_curve
from art_mmc.bench.memory import largest_batch, peak_megabytes
from art_mmc.bench.table import find_job


def answer(request: dict[str, Any]) -> Any:
    """
    :param request: A job and a contender, for its peak memory; a curve, for its points; or a contender, for its largest
           batch.
    :return: Plain data.
    """
    settings = Settings(**request["settings"])
    if "curve" in request:
        return measure_curve(request["curve"], settings)
    if "largest_batch" in request:
        return largest_batch(request["largest_batch"], settings)
    job, name = find_job(request["job"]), request["contender"]
    settings = replace(settings, trained=False)
    # the first run loads code and makes tables that later ones find; it is not what the job needs
    job.build(replace(settings, quick=True)).contenders[name]()
    return peak_megabytes(job.build(settings).contenders[name], settings.device_type)


def main() -> None:
    """Answer the request on the command line, on standard output."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request.pop("threads"))
    result = answer(request)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
