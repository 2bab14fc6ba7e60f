"""
What should an attack maximise? The nine defences under ART's PGD with one step rule and nine objectives, beside what
ART's own class reports for the same weights, PGD by a schedule, and the worst case known.

    python examples/record_objectives.py                                       # two defences on digits, in seconds
    python examples/record_objectives.py examples/results/objectives NETWORKS  # all nine, on digits and on MNIST

NETWORKS is a folder with NAME.pt as `art-mmc train --defence NAME --dataset mnist --backbone lenet5` writes it.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from art_mmc import create_classifier, create_trainer, load_classifier, load_dataset
from art_mmc.attacks import AutoPGD, ScheduledPGD
from art_mmc.defences import DEFENCES
from art_mmc.objectives import OBJECTIVES, soft_margin
from art_mmc.reports import json_bytes
from art_mmc.reports.tables import table
from art_mmc.state import write_atomically
from art_mmc.studies.setup import machine

EPS, STEPS, SHARPNESS = 0.1, 40, (1, 2, 3, 5)
ART, SCHEDULED, WORST = "ART's own class", "ScheduledPGD", "worst case known"


def trained(name, data, epochs):
    """A network as `art-mmc compare` trains it on the digits."""
    torch.manual_seed(0)
    classifier = create_classifier(
        name, "cnn", input_shape=data.input_shape, nb_classes=data.nb_classes, device_type="cpu"
    )
    trainer = create_trainer(classifier, seed=0, verbose=False)
    trainer.fit(data.x_train, data.y_train, batch_size=64, nb_epochs=epochs)
    return classifier


def measure(classifier, x, y, thorough=True) -> dict:
    """What is maximised, or which attack -> percent of the images that are left."""
    settings = {"eps": EPS, "max_iter": STEPS, "batch_size": 250, "verbose": False}
    pgd = partial(ProjectedGradientDescent, **settings, eps_step=EPS / 4)
    theirs = PyTorchClassifier(
        classifier.model,
        torch.nn.CrossEntropyLoss(),
        classifier.input_shape,
        classifier.nb_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attacks = {ART: pgd(theirs)}
    for objective in ("loss", "cross_entropy", "rescaled_cross_entropy", "dlr", "margin"):
        attacks[objective] = pgd(classifier.with_objective(objective))
    for t in SHARPNESS:
        # an objective gets its name from the table, as those of the package do
        OBJECTIVES[f"soft_margin, t = {t}"] = partial(soft_margin, t=float(t))
        attacks[f"soft_margin, t = {t}"] = pgd(classifier.with_objective(f"soft_margin, t = {t}"))
    attacks[SCHEDULED] = ScheduledPGD(classifier, **settings)
    if thorough:
        long = {**settings, "max_iter": 100, "seed": 0}
        attacks["ScheduledPGD, 100 steps, 3 starts"] = ScheduledPGD(classifier, **long, nb_restarts=3)
        attacks["APGD towards each class, dlr, 100 steps"] = AutoPGD(classifier, **long, objective="dlr", nb_targets=9)
    robust = classifier.predict(x).argmax(axis=1) == y
    left = {"clean": 100 * float(robust.mean())}
    right, standing = np.flatnonzero(robust), robust.copy()
    for name, attack in attacks.items():
        among = np.flatnonzero(standing) if "100 steps" in name else right  # the long ones get what the others left
        held = standing.copy() if "100 steps" in name else np.zeros_like(robust)
        held[among] = classifier.predict(attack.generate(x[among], y[among])).argmax(axis=1) == y[among]
        left[name] = 100 * float(held.mean())
        standing &= held
    left[WORST] = 100 * float(standing.mean())
    return left


def markdown(left) -> str:
    """One row a defence; the default objective's figure in bold."""
    columns = [name for name in next(iter(left.values())) if "100 steps" not in name]

    def cell(row, name):
        return f"**{row[1][name]:.1f}**" if name == "soft_margin, t = 3" else f"{row[1][name]:.1f}"

    titles = [("Defence", lambda row: row[0]), *((name, partial(cell, name=name)) for name in columns)]
    return table(list(left.items()), titles)


def main() -> None:
    np.random.seed(0)
    if len(sys.argv) < 3:
        data = load_dataset("digits")
        left = {
            name: measure(trained(name, data, 10), data.x_test[:40], data.y_test[:40], thorough=False)
            for name in ("sce", "mmc")
        }
        print(markdown(left))
        return
    folder, networks = Path(sys.argv[1]), Path(sys.argv[2])
    digits, sample = load_dataset("digits"), load_dataset("mnist-sample")
    chosen = np.random.default_rng(0).permutation(len(sample.x_test))[:250]
    sources = {
        "mnist": (
            sample.x_test[chosen],
            sample.y_test[chosen],
            lambda name: load_classifier(networks / f"{name}.pt", device_type="cpu"),
        ),
        "digits": (digits.x_test[:250], digits.y_test[:250], lambda name: trained(name, digits, 40)),
    }
    path = folder / "objectives.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"left": {}}
    found |= {"script": "examples/record_objectives.py", "eps": EPS, "steps": STEPS, **machine(torch.device("cpu"))}
    for dataset, (x, y, network) in sources.items():
        left = found["left"].setdefault(dataset, {})
        for name in DEFENCES:  # a run that was interrupted goes on
            if name not in left:
                left[name] = {"n": len(x), **measure(network(name), x, np.asarray(y))}
                write_atomically({path: json_bytes(found)})
    for dataset, left in found["left"].items():
        print(f"\n{dataset}\n{markdown(left)}")


if __name__ == "__main__":
    main()
