"""What is other in ART's tree: the network is asked through `PyTorchClassifier` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from art.estimators.classification import PyTorchClassifier


class Network:
    """
    The network of a classifier on tensors, after the classifier's preprocessing.

    :param classifier: Any `PyTorchClassifier`.
    """

    def __init__(self, classifier: PyTorchClassifier) -> None:
        self.classifier = classifier
        self.device = classifier.device
        #: whether a gradient was NaN or infinite, bool (); looked at seldom, so that nobody waits for the device
        self.broken = torch.zeros((), dtype=torch.bool, device=self.device)

    @contextmanager
    def crafting(self) -> Iterator[None]:
        """Evaluation mode inside; afterwards each module is in its own again."""
        flags = [(module, module.training) for module in self.classifier.model.modules()]
        self.classifier.model.eval()
        try:
            yield
        finally:
            for module, flag in flags:
                module.training = flag

    def _run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.classifier.all_framework_preprocessing:
            leaf = x.detach().clone().requires_grad_(True)
            inputs, _ = self.classifier._apply_preprocessing(leaf, y=None, fit=False, no_grad=False)
        else:
            array, _ = self.classifier._apply_preprocessing(x.cpu().numpy(), y=None, fit=False)
            leaf = inputs = torch.tensor(array, device=self.device).requires_grad_(True)
        logits = self.classifier._model(inputs)[-1].float()
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                "This attack has not yet been tested for binary classification with a single output classifier: "
                f"expected logits (N, K) with K >= 2, got shape {tuple(logits.shape)}."
            )
        return leaf, logits

    def _back(self, x: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Gradients with respect to x, (B, ...), from those with respect to what the network got."""
        if not self.classifier.all_framework_preprocessing:
            arrays = x.cpu().numpy(), gradients.cpu().numpy()
            gradients = torch.as_tensor(self.classifier._apply_preprocessing_gradient(*arrays)).to(x)
        self.broken |= ~torch.isfinite(gradients).all()
        return gradients

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, ...).
        :return: Logits (B, K), without a graph.
        """
        with torch.no_grad():
            return self._run(x)[1]

    def gradients(
        self, x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        :param x: Inputs (B, ...).
        :param function: Logits (B, K) -> values (B,).
        :return: The logits, the values and their gradients with respect to x, (B, ...).
        """
        leaf, logits = self._run(x)
        values = function(logits)
        (gradients,) = torch.autograd.grad(values.sum(), leaf)
        return logits.detach(), values.detach(), self._back(x, gradients)

    def class_gradients(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param x: Inputs (B, ...).
        :return: Logits (B, K) and their gradients with respect to x, (B, K, ...).
        """
        leaf, logits = self._run(x)
        parts = [torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in logits.sum(dim=0)]
        return logits.detach(), torch.stack([self._back(x, each) for each in parts], dim=1)
