"""
What the suites leave beside AutoAttack, and what each attack in them is worth, in CPU seconds of one thread: on small
networks that are trained here on digits, by each loss and adversarially, and on files of your own.

    python examples/record_suites.py examples/results/suites
    python examples/record_suites.py examples/results/suites --data mnist --data-dir data --eps 0.1 runs/mnist/*.pt

What is in the folder's suites.json already is not measured again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from art_mmc import create_classifier, load_classifier, load_dataset
from art_mmc.attacks import AutoAttackStandard
from art_mmc.classifiers import CLASSIFIERS
from art_mmc.evaluation import SUITES, RobustnessEvaluation
from art_mmc.evaluation.engine import Target, run_plan
from art_mmc.reports.tables import markdown_rows
from art_mmc.state import seeded
from art_mmc.trainers import PGD, AdversarialLossTrainer

NAMES = ("quick", "standard", "strong")


def networks():
    """Name -> a function that trains it, its classes, radius and norm."""

    def trained(defence, classes=10, adversarial=False, epochs=10):
        data = load_dataset("digits")
        kept = data.y_train < classes
        with seeded(0):
            classifier = create_classifier(defence, "cnn", input_shape=(1, 8, 8), nb_classes=classes)
            if adversarial:
                trainer = AdversarialLossTrainer(classifier, PGD(0.1, steps=5, step_size=0.03), seed=0, verbose=False)
                trainer.fit(data.x_train[kept], data.y_train[kept], nb_epochs=epochs, batch_size=64)
            else:
                classifier.fit(data.x_train[kept], data.y_train[kept], nb_epochs=epochs, batch_size=64)
        return classifier

    rows = {defence: (lambda defence=defence: trained(defence), 10, 0.1, np.inf) for defence in CLASSIFIERS}
    rows["sce, PGD AT"] = lambda: trained("sce", adversarial=True), 10, 0.1, np.inf
    rows["mmc, PGD AT"] = lambda: trained("mmc", adversarial=True), 10, 0.1, np.inf
    rows["mmc, 3 classes"] = lambda: trained("mmc", 3), 3, 0.1, np.inf
    rows["pc, L2"] = lambda: trained("pc"), 10, 0.4, 2
    return rows


def timed(job):
    """What a job gives, and its CPU seconds."""
    start = time.process_time()
    return job(), time.process_time() - start


def measure(classifier, x, y, eps, norm):
    """What AutoAttack and each suite leave, and for each attack of `strong` what it leaves alone and breaks first."""
    reference = AutoAttackStandard(classifier, norm=norm, eps=eps, seed=0, verbose=False)
    examples, seconds = timed(lambda: reference.generate(x, y))
    left = int((classifier.predict(examples).argmax(axis=1) == y).sum())
    found = {"n": len(x), "eps": eps, "norm": str(norm), "left": {"AutoAttack": left}}
    found |= {"seconds": {"AutoAttack": seconds}, "judging": {}, "verdicts": {}}
    for name in NAMES:
        evaluation = RobustnessEvaluation(name, eps, norm, verbose=False)
        record, seconds = timed(lambda evaluation=evaluation: evaluation.evaluate(classifier, x, y))
        found["left"][name], found["verdicts"][name] = record.worst_case(eps).correct, record.verdict.status
        found["seconds"][name] = seconds
        found["judging"][name] = seconds * record.diagnostics_seconds / record.seconds
    target = Target(classifier, x)
    clean = target.classes(x) == y
    standing, found["attacks"] = clean, {}
    for plan in SUITES["strong"].build([eps], norm, classifier.nb_classes, rounds=1):
        (alone, _, _), _ = timed(lambda plan=plan: run_plan(target, x, y, plan, clean, 0))
        (after, _, _), seconds = timed(lambda plan=plan, among=standing: run_plan(target, x, y, plan, among, 0))
        broken = int((standing & ~after.standing).sum())
        found["attacks"][plan.name] = {"alone": alone.correct, "first": broken, "seconds": seconds}
        standing = standing & after.standing
    return found


def report(results):
    """The tables in Markdown."""
    titles = ["AutoAttack", *NAMES]
    rows = [
        [name, f"{'L2' if each['norm'] == '2' else 'L-inf'} {each['eps']:g}", str(each["n"])]
        + [f"{each['left'][title]} ({each['seconds'][title]:.1f})" for title in titles]
        + [f"{each['judging']['strong']:.1f}", each["verdicts"]["strong"]]
        for name, each in results.items()
    ]
    attacks = [
        [name, attack, str(row["alone"]), str(row["first"]), f"{row['seconds']:.2f}"]
        for name, each in results.items()
        for attack, row in each["attacks"].items()
    ]
    return "\n\n".join(
        (
            "# What the suites leave, and what their attacks are worth",
            "Images left and, in brackets, CPU seconds of one thread, diagnostics included; then the share of those in "
            "the seconds of `strong`, and its verdict.",
            markdown_rows(["Network", "Ball", "Images", *titles, "Diagnostics", "Verdict"], rows, left=2),
            "Each attack of `strong` up to its first round: what it leaves alone, what it breaks that those before it "
            "left, and the seconds for that.",
            markdown_rows(["Network", "Attack", "Left alone", "Broken first", "Seconds"], attacks, left=2) + "\n",
        )
    )


def main() -> None:
    """Measure what is missing, network by network, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    file = asked.folder / "suites.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    if asked.files:
        data = load_dataset(asked.data, asked.data_dir)
        rows = {f"{each.stem}, {asked.data}": (each, data.nb_classes, asked.eps, np.inf) for each in asked.files}
    else:
        data, rows = load_dataset("digits"), networks()
    warm = None
    for name, (build, classes, eps, norm) in rows.items():
        if name in results:
            continue
        classifier = load_classifier(build) if asked.files else build()
        index = np.flatnonzero(data.y_test < classes)[: asked.images]
        if not warm:  # what is imported when it is first used is no attack's time
            warm = RobustnessEvaluation("quick", eps, norm, verbose=False).evaluate(
                classifier, data.x_test[index[:8]], data.y_test[index[:8]]
            )
        results[name] = measure(classifier, data.x_test[index], data.y_test[index].astype(np.int64), eps, norm)
        asked.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
        (asked.folder / "suites.md").write_text(report(results))
        print(name, results[name]["left"], {key: round(each, 1) for key, each in results[name]["seconds"].items()})


if __name__ == "__main__":
    main()
