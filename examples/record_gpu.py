"""
What one GPU shows in nine minutes: `python examples/record_gpu.py --dataset cifar10.npz`, or --dataset cifar10 with
--data-dir. It runs the tests marked `gpu`, trains MMC on CIFAR-10 by the recipe pang2020-cifar10-fast and a ResNet-18
adversarially, attacks both by the suite `strong`, runs the bench, and writes examples/results/gpu/. Each part has its
share of the time; one that was stopped goes on with the same command, and one that is finished is not done again.
--quick tries all of it on made-up images, on a CPU in a few minutes: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.bench.subjects import images
from art_mmc.reports import json_bytes, load_robustness
from art_mmc.reports.tables import between, device_text, table, versions_text, with_interval
from art_mmc.state import write_atomically
from art_mmc.studies.history import beside
from art_mmc.studies.setup import machine

ROOT = Path(__file__).resolve().parent.parent
ART_MMC = [sys.executable, "-m", "art_mmc.cli"]


def parts(folder: Path, data: list[str], quick: bool) -> Iterator[tuple[str, list[str], float]]:
    """Name, command and share of the time of each part, in order; what is attacked is what was trained by then."""
    device = ["--device", "cpu" if quick else "gpu"]
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "test_gpu.py")]
    yield "tests", [*tests, "-p", "no:cacheprovider", *(["-k", "mmc"] if quick else [])], 0.15
    train = [*ART_MMC, "train", *data, *device, "--validation", "0", "--resume", "--quiet"]
    train += ["--backbone", "resnet20", "--epochs", "1"] if quick else ["--precision", "bfloat16", "--compile"]
    clean, robust = folder / "mmc.pt", folder / "sce-at.pt"
    yield "mmc", [*train, "--defence", "mmc", "--recipe", "pang2020-cifar10-fast", "--output", str(clean)], 0.3
    robustly = ["--defence", "sce", "--recipe", "pang2021-cifar10-at", "--schedule", "linear", "--output", str(robust)]
    robustly += ["--attack-steps", "1"] if quick else ["--backbone", "preact-resnet18", "--epochs", "6"]
    yield "sce-at", [*train, *robustly], 0.2
    attack = [*ART_MMC, "evaluate", *data, *device, "--eps", "8/255", "--curves", "0", "--quiet"]
    attack += ["--suite", "quick", "--nb-test", "20"] if quick else ["--suite", "strong", "--batch-size", "500"]
    for file in (clean, robust):
        network = file if file.is_file() else beside(file, ".run") / "last.pt"
        name = f"evaluate-{file.stem}"
        yield name, [*attack, str(network), "--name", file.stem, "--output", str(folder / name)], 0.12
    bench = [*ART_MMC, "bench", *device, "--output", str(folder / "bench")]
    sizes = (
        ["--quick", "--rounds", "1", "--only", "fit"] if quick else ["--only", "attacks,predict,fit,training,memory"]
    )
    yield "bench", [*bench, *sizes], 0.11


def run(command: list[str], limit: float, quick: bool) -> dict[str, Any]:
    """Run a part; at the end of its time it is stopped as Ctrl-C does, so that it can go on."""
    start = time.monotonic()
    environment = {**os.environ, **({"ART_MMC_GPU": "cpu", "CUDA_VISIBLE_DEVICES": ""} if quick else {})}
    with subprocess.Popen(command, env=environment) as process:
        try:
            status = {0: "finished"}.get(process.wait(limit), "failed")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)  # a batch, or a compilation, that has begun
            except subprocess.TimeoutExpired:
                process.kill()
            status = "stopped"
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "command": command[1:]}


def summary(folder: Path, done: dict[str, Any], facts: dict[str, Any], quick: bool) -> str:
    """The parts and their figures, in Markdown."""

    def figure(name: str) -> str:
        trained, report = folder / f"{name}.json", folder / name / "report.json"
        if trained.is_file():
            found = json.loads(trained.read_text(encoding="utf-8"))["clean_test_accuracy"]
            return f"clean {between(found['accuracy'], found['interval'])} %, n = {found['n']}"
        if not name.startswith("evaluate") or not report.is_file():
            return ""
        record = load_robustness(report)
        worst = record.worst_case(record.eps[-1])
        return f"clean {with_interval(record.clean)} %, worst case {with_interval(worst)} %, n = {worst.n}"

    rows = table(
        list(done.items()),
        [
            ("Part", lambda row: row[0]),
            ("Status", lambda row: row[1]["status"]),
            ("Figures", lambda row: figure(row[0])),
            ("Seconds", lambda row: f"{row[1]['seconds']:.0f}"),
        ],
        left=3,
    )
    made = " Made-up images and tiny sizes: the figures mean nothing." if quick else ""
    conditions = f"{device_text(facts)}; {versions_text(facts['versions'])}; {facts['date'][:10]}."
    return f"# One GPU\n\n{rows}\n\n{conditions}{made}\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--minutes", type=float, help="default: 9, or 60")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, help="default: examples/results/gpu, or runs/gpu-quick")
    args = parser.parse_args(argv)
    if not args.quick and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --quick tries it on the CPU")
    folder = args.output or (Path("runs/gpu-quick") if args.quick else ROOT / "examples" / "results" / "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    data = ["--dataset", args.dataset, *(["--data-dir", args.data_dir] if args.data_dir else [])]
    if args.quick:
        (x, y), made = images((3, 32, 32), 160), folder / "made.npz"
        np.savez(made, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
        data = ["--dataset", str(made)]
    minutes = args.minutes or (60.0 if args.quick else 9.0)
    parts_json, end = folder / "parts.json", time.monotonic() + 60 * minutes
    done = json.loads(parts_json.read_text(encoding="utf-8")) if parts_json.is_file() else {}
    for name, command, share in parts(folder, data, args.quick):
        limit = min(60 * minutes * share, end - time.monotonic())
        if done.get(name, {}).get("status") != "finished" and limit > 5:
            print(f"{name}: {limit:.0f} s at most", flush=True)
            attacked = f"evaluate-{name}"  # what was found, or half found, of the network before it trained on is void
            done.pop(attacked, None)
            shutil.rmtree(folder / attacked / "state", ignore_errors=True)
            done[name] = run(command, limit, args.quick)
            facts = machine(torch.device("cuda" if torch.cuda.is_available() and not args.quick else "cpu"))
            text = summary(folder, done, facts, args.quick).encode()
            write_atomically({parts_json: json_bytes(done), folder / "report.md": text})
    print((folder / "report.md").read_text(encoding="utf-8"))
    return int(any(part["status"] == "failed" for part in done.values()))


if __name__ == "__main__":
    raise SystemExit(main())
