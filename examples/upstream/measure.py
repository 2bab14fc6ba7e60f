"""
What `pytorch_classifier.patch` brings: ART's own attacks before and after it, in turn, on one network, in seconds, and
whether the adversarial examples are the same bit for bit. `python examples/upstream/measure.py [--rounds 5]` patches a
copy of the installed ART and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

#: images, in one batch, and their height and width
IMAGES, SIDE = 16, 16

#: attack -> its arguments
JOBS: dict[str, dict[str, Any]] = {
    "FastGradientMethod": {"eps": 0.03},
    "ProjectedGradientDescent": {"eps": 0.03, "eps_step": 0.01, "max_iter": 20, "verbose": False},
    "AutoProjectedGradientDescent": {"eps": 0.03, "max_iter": 10, "nb_random_init": 1, "verbose": False},
    "CarliniL2Method": {"max_iter": 3, "binary_search_steps": 2, "initial_const": 10, "verbose": False},
    "DeepFool": {"max_iter": 3, "verbose": False},
}


def network(images: Any) -> Any:
    """A small residual network its logits on the images given of mean 0 and variance 1 a class."""
    import torch
    from torch import nn

    def unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            stride = 1 if inputs == outputs else 2
            self.body = nn.Sequential(unit(inputs, outputs, stride), nn.ReLU(), unit(outputs, outputs))
            self.skip = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + self.skip(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [64, 64, 128, 256]
            blocks = [Block(a, b) for a, b in zip(widths, widths[1:], strict=False)]
            self.layers = nn.Sequential(unit(3, 64), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.last = nn.Linear(256, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.layers(x))

    torch.manual_seed(0)
    net = Network().eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(images))
        spread, mean = logits.std(dim=0), logits.mean(dim=0)
        net.last.weight /= spread[:, None]
        net.last.bias.copy_((net.last.bias - mean) / spread)
    return net


def work() -> None:
    """Answer each line, the name of a job, with seconds and a digest of the adversarial examples."""
    import hashlib

    import numpy as np
    import torch
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    torch.set_num_threads(1)
    loss = torch.nn.CrossEntropyLoss()
    images = np.random.default_rng(0).random((IMAGES, 3, SIDE, SIDE)).astype(np.float32)
    net = network(images)
    classifier = PyTorchClassifier(net, loss, (3, SIDE, SIDE), 10, clip_values=(0, 1), device_type="cpu")
    for line in sys.stdin:
        arguments = JOBS[line.strip()]
        x, y = images, np.arange(IMAGES) % 10
        np.random.seed(0)
        torch.manual_seed(0)
        attack = getattr(evasion, line.strip())(classifier, batch_size=IMAGES, **arguments)
        start = time.process_time()
        examples = attack.generate(x, np.eye(10, dtype=np.float32)[y])
        seconds = time.process_time() - start
        changed = float((examples != x).any(axis=(1, 2, 3)).mean())
        print(json.dumps([seconds, hashlib.sha256(examples.tobytes()).hexdigest(), changed]), flush=True)


def measure(folder: Path, jobs: list[str], rounds: int) -> list[tuple[str, float, float, bool, float]]:
    """
    :param folder: Where `before` and `after` hold a copy of ART each.
    :param jobs: Names of attacks.
    :param rounds: Rounds after one to warm up, the two in turn; the least of their seconds counts.
    :return: For each attack its name, seconds before and after, whether the examples are the same, and the share of
             the images that it changed.
    """
    workers = {}
    for name in ("before", "after"):
        environment = {**os.environ, "PYTHONPATH": str(folder / name), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE / "measure.py"), "--worker"]
        workers[name] = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    rows = []
    try:
        for job in jobs:
            answers: dict[str, list[Any]] = {name: [] for name in workers}
            for _ in range(rounds + 1):
                for name, worker in workers.items():
                    assert worker.stdin
                    assert worker.stdout
                    print(job, file=worker.stdin, flush=True)
                    answers[name].append(json.loads(worker.stdout.readline()))
            before, after = (min(seconds for seconds, _, _ in answers[name][1:]) for name in workers)
            digests = {digest for each in answers.values() for _, digest, _ in each}
            rows.append((job, before, after, len(digests) == 1, answers["before"][0][2]))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attacks", default=",".join(JOBS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work()
    import torch
    from patches import apply, copy_of_art

    with tempfile.TemporaryDirectory() as folder:
        for name in ("before", "after"):
            copy_of_art(Path(folder, name))
        apply("pytorch_classifier", Path(folder, "after"))
        rows = measure(Path(folder), options.attacks.split(","), options.rounds)
    print("| attack | before, s | after, s | times faster | same examples |\n|---|---:|---:|---:|---|")
    for name, before, after, same, _ in rows:
        print(f"| {name} | {before:.2f} | {after:.2f} | {before / after:.2f} | {'yes' if same else 'no'} |")
    print(f"\nProcessor time of one thread, {platform.machine()}; Python {platform.python_version()}, torch", end=" ")
    print(f"{torch.__version__}; the least of {options.rounds} rounds in turn.")
    return None


if __name__ == "__main__":
    main()
