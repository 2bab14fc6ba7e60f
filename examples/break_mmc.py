"""
Why a robust accuracy can be an illusion: MMC on the digits that come with scikit-learn, attacked in three ways.

    python examples/break_mmc.py                     # prints the three numbers and what they mean
    python examples/break_mmc.py examples/results    # and writes break-mmc.png and break-mmc.json there
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from art_mmc import create_classifier, create_trainer, load_dataset
from art_mmc.evaluation import (
    PGD_ADAPTIVE,
    PGD_CROSS_ENTROPY,
    PGD_LOSS,
    WORST_CASE,
    RobustnessEvaluation,
    headline,
)
from art_mmc.reports import evaluation_table, figure_png, json_bytes, new_figure, style_panel
from art_mmc.state import write_atomically
from art_mmc.studies.setup import machine

EPS = [0.05, 0.1, 0.15, 0.2]

#: attack -> its name, colour and dashes in the picture
SHOWN = {
    PGD_CROSS_ENTROPY: ("PGD on the cross-entropy", "#CC6677", (0, (6, 1.5, 1.2, 1.5))),
    PGD_LOSS: ("PGD on MMC's own loss", "#332288", (0, (3.2, 1.6))),
    PGD_ADAPTIVE: ("PGD on the soft margin", "#117733", "-"),
    WORST_CASE: ("worst case of all attacks", "#2b2b2b", "-"),
}


def train(data):
    """MMC with centers of norm 10; temperature 1/2 gives the raw logits of the released code, -||z - mu||^2."""
    torch.manual_seed(0)
    classifier = create_classifier(
        "mmc",
        "cnn",
        input_shape=data.input_shape,
        nb_classes=data.nb_classes,
        scale=10.0,
        temperature=0.5,
        device_type="cpu",
    )
    create_trainer(classifier, seed=0, verbose=False).fit(data.x_train, data.y_train, batch_size=64, nb_epochs=40)
    return classifier


def zero_gradients(classifier, x, y) -> dict:
    """Objective -> percent of the images at which its gradient is exactly zero."""
    shares = {}
    for objective in ("cross_entropy", "loss", "soft_margin"):
        gradient = classifier.with_objective(objective).loss_gradient(x, y)
        shares[objective] = 100 * float((gradient == 0).reshape(len(x), -1).all(axis=1).mean())
    return shares


def explain(record, dead, logits) -> None:
    """The three numbers in plain words."""
    eps = EPS[-1]
    left = {attack: 100 * record.get(attack, eps).accuracy for attack in SHOWN}
    top = np.sort(logits, axis=1)
    gap = np.median(top[:, -1] - top[:, -2])
    print(
        f"""
At eps {eps}, {record.get(PGD_LOSS, eps).steps} steps of the same attack leave

  {left[PGD_CROSS_ENTROPY]:5.1f} %  when it climbs the cross-entropy, as most attack libraries do,
  {left[PGD_LOSS]:5.1f} %  when it climbs MMC's own loss, as in the paper,
  {left[PGD_ADAPTIVE]:5.1f} %  when it climbs the soft margin between the best wrong logits and the right one;

  {left[WORST_CASE]:5.1f} %  of the images withstand all of the attacks: the worst case: {headline(record)}.

Nothing but the attack's goal has changed. The first number is an illusion. MMC pulls features to centers so far apart
that the two largest logits differ by {gap:.0f} (median). A float32 softmax of that is exactly 0 and 1, so the
cross-entropy is exactly 0, and so is its gradient: there the attack has no direction to walk in, and stands still.

  {dead["cross_entropy"]:5.1f} %  of the images have no gradient of the cross-entropy,
  {dead["loss"]:5.1f} %  none of MMC's own loss,
  {dead["soft_margin"]:5.1f} %  none of the soft margin.

The own loss has a gradient, but it asks for the wrong thing: to be far from the right center, not to be nearer to
another one. A defence must be attacked where its decision is made: at the difference of the logits.

Verdict on this network: {record.verdict.status}."""
    )


def picture(record, dead):
    """Accuracy over eps under each objective; beside it, where the gradients are zero."""
    figure = new_figure(9, 3.7)
    curves, bars = figure.subplots(1, 2, width_ratios=[2.1, 1])
    for attack, (name, colour, dashes) in SHOWN.items():
        shares = [record.clean.accuracy, *(record.get(attack, eps).accuracy for eps in EPS)]
        width = 2.8 if attack == WORST_CASE else 2.0
        style = {"color": colour, "linestyle": dashes, "linewidth": width, "marker": "o", "clip_on": False}
        curves.plot([0, *EPS], 100 * np.array(shares), label=name, **style)
    curves.set(xlim=(0, 0.205), ylim=(0, 104), xticks=[0, *EPS], yticks=range(0, 101, 25))
    curves.set_xlabel("eps (L-inf)", fontsize=9.5)
    curves.set_ylabel("accuracy, %", fontsize=9.5)
    curves.set_title("Same attack, another goal", fontsize=10.5, loc="left")
    style_panel(curves)
    curves.legend(loc="lower left", fontsize=9, frameon=False, handlelength=3)
    colours = [SHOWN[attack][1] for attack in (PGD_CROSS_ENTROPY, PGD_LOSS, PGD_ADAPTIVE)]
    for i, (share, colour) in enumerate(zip(dead.values(), colours, strict=True)):
        bars.bar(i, share, color=colour, width=0.62)
        bars.text(i, share + 2, f"{share:.0f} %", ha="center", fontsize=9.5)
    bars.set(ylim=(0, 104), yticks=range(0, 101, 25), xlim=(-0.6, 2.6))
    bars.set_xticks(range(3), ["cross-\nentropy", "own\nloss", "soft\nmargin"])
    bars.set_title("Images with a zero gradient, %", fontsize=10.5, loc="left")
    style_panel(bars)
    figure.suptitle(f"MMC on digits, {record.clean.n} test images", fontsize=12.5, fontweight="bold", x=0.02, ha="left")
    return figure


def main() -> None:
    """Train, attack, explain; with a folder, write the picture and the figures."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    data = load_dataset("digits")
    classifier = train(data)
    x, y = data.x_test[:200], data.y_test[:200]
    record = RobustnessEvaluation("quick", EPS, verbose=False).evaluate(classifier, x, y)
    print(evaluation_table(record))
    dead = zero_gradients(classifier, x, y)
    explain(record, dead, classifier.predict(x))
    if len(sys.argv) > 1:
        document = {
            "script": "examples/break_mmc.py",
            "seconds": round(time.perf_counter() - start, 1),
            **machine(classifier.device),
            "zero_gradients_percent": dead,
            "record": record.to_dict(),
        }
        contents = {"break-mmc.png": figure_png(picture(record, dead)), "break-mmc.json": json_bytes(document)}
        print("wrote", *write_atomically({Path(sys.argv[1], name): each for name, each in contents.items()}))


if __name__ == "__main__":
    main()
