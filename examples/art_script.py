"""
An ordinary ART attack script. Only the line that builds the classifier differs between the two columns.

    python examples/art_script.py
"""

import numpy as np
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    BasicIterativeMethod,
    CarliniL2Method,
    FastGradientMethod,
    MomentumIterativeMethod,
    ProjectedGradientDescent,
    SquareAttack,
)
from art.estimators.classification import PyTorchClassifier

from art_mmc import MMCClassifier, load_dataset


def backbone() -> torch.nn.Module:
    """The network up to its features (B, 64)."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 64),
        torch.nn.ReLU(),
    )


def stock() -> PyTorchClassifier:
    """ART's own class around the network with a softmax layer."""
    model = torch.nn.Sequential(backbone(), torch.nn.Linear(64, 10))
    return PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        clip_values=(0, 1),
    )


def defended() -> PyTorchClassifier:
    """The MMC classifier around the same network."""
    return MMCClassifier(backbone(), input_shape=(1, 8, 8), nb_classes=10)


def run(classifier: PyTorchClassifier, data) -> dict[str, float]:
    """Train and attack: the script, the same for both."""
    np.random.seed(0)
    classifier.fit(data.x_train, data.y_train, batch_size=64, nb_epochs=15)
    x, y = data.x_test[:100], data.y_test[:100]
    bounded = {"eps": 0.1, "eps_step": 0.02, "max_iter": 20, "verbose": False}
    attacks = {
        "FGSM": FastGradientMethod(classifier, eps=0.1),
        "BIM": BasicIterativeMethod(classifier, **bounded),
        "MIM": MomentumIterativeMethod(classifier, **bounded),
        "PGD": ProjectedGradientDescent(classifier, **bounded),
        "APGD-DLR": AutoProjectedGradientDescent(
            classifier, loss_type="difference_logits_ratio", nb_random_init=1, **bounded
        ),
        "Square": SquareAttack(classifier, eps=0.1, max_iter=100, verbose=False),
        "C&W, L2 at most 1": CarliniL2Method(
            classifier, max_iter=15, binary_search_steps=2, initial_const=1.0, batch_size=100, verbose=False
        ),
    }
    accuracy = {"clean": float((classifier.predict(x).argmax(axis=1) == y).mean())}
    for name, attack in attacks.items():
        adversarial = attack.generate(x, y)
        if name.startswith("C&W"):  # it bounds no distance: what it took more than 1 for does not count
            far = np.linalg.norm((adversarial - x).reshape(len(x), -1), axis=1) > 1
            adversarial[far] = x[far]
        accuracy[name] = float((classifier.predict(adversarial).argmax(axis=1) == y).mean())
    return accuracy


def main() -> None:
    """Run the script on both classifiers and print them side by side."""
    data = load_dataset("digits")
    columns = []
    for build in (stock, defended):
        torch.manual_seed(0)
        columns.append(run(build(), data))
    print(f"{'accuracy, L-inf eps 0.1':<24}{'PyTorchClassifier':>20}{'MMCClassifier':>16}")
    for name in columns[0]:
        print(f"{name:<24}{columns[0][name]:>20.1%}{columns[1][name]:>16.1%}")


if __name__ == "__main__":
    main()
