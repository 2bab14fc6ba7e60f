"""
From a network to an attacked, saved and reloaded MMC classifier, on the digits that come with scikit-learn.

    python examples/get_started.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from art.attacks.evasion import DeepFool, FastGradientMethod, ProjectedGradientDescent

from art_mmc import MMCClassifier, MMCTrainer, load_classifier, load_dataset
from art_mmc.data import split_validation


class Backbone(torch.nn.Module):
    """Any network will do that maps images (B, 1, 8, 8) to features (B, d); the classifier adds the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(512, 64),
            torch.nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, 1, 8, 8) to features (B, 64)."""
        return self.layers(x)


def main() -> None:
    """Train, attack, save, load."""
    torch.manual_seed(0)
    data = load_dataset("digits")
    x, y = data.x_test[:200], data.y_test[:200]

    classifier = MMCClassifier(Backbone(), input_shape=data.input_shape, nb_classes=data.nb_classes)
    trainer = MMCTrainer(classifier, seed=0)
    (x_train, y_train), validation = split_validation(data.x_train, data.y_train, 0.1, seed=0)  # never the test set
    trainer.fit(x_train, y_train, validation_data=validation, batch_size=64, nb_epochs=30)
    last = trainer.history[-1]
    watched = f"{last['val_accuracy']:.1%} of {len(validation[1])} held-out images"
    print(f"trained: loss {last['loss']:.2f}, {watched} right, {last['seconds']:.2f} s an epoch")

    def accuracy(inputs) -> str:
        return f"{(classifier.predict(inputs).argmax(axis=1) == y).mean():6.1%}"

    eps = 0.15
    pgd = ProjectedGradientDescent(classifier, eps=eps, eps_step=0.02, max_iter=40, verbose=False)
    print(f"accuracy on {len(x)} test images, clean and under ART's attacks, L-inf, eps {eps}")
    print(f"  clean                           {accuracy(x)}")
    print(f"  FGSM                            {accuracy(FastGradientMethod(classifier, eps=eps).generate(x, y))}")
    with classifier.using_objective("loss"):
        print(f"  PGD on MMC's own loss           {accuracy(pgd.generate(x, y))}")
    print(f"  PGD on the soft margin, default {accuracy(pgd.generate(x, y))}")
    deep_fool = DeepFool(classifier, max_iter=50, verbose=False).generate(x[:50])
    distance = torch.linalg.vector_norm(torch.from_numpy(deep_fool - x[:50]).flatten(1), dim=1).median()
    print(f"DeepFool, no bound: median L2 distance {distance:.2f} over 50 images")

    with TemporaryDirectory() as folder:
        path = Path(folder) / "mmc.pt"
        classifier.save_checkpoint(path)
        again = load_classifier(path, backbone=Backbone())
        same = (again.predict(x) == classifier.predict(x)).all()
        print(f"saved in one file of {path.stat().st_size / 1024:.0f} KiB and loaded: predictions equal: {bool(same)}")


if __name__ == "__main__":
    main()
