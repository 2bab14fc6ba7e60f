"""
The positive control: an attack that is to be trusted must find an adversarial example that is known to be there.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.accelerate import share_network
from art_mmc.evaluation.engine import Target, attack_batch
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.models import DefendedNet
from art_mmc.models.inference import Prepared
from art_mmc.state import Stream, derived_seed

#: random points inside the ball, and as many on its edge, that a planted classifier tells from the planted one; as many
#: again must not be taken for it; places on the edge that are tried for each image
NOISE, CORNERS = 100, 5

#: methods that ask for all samples of a batch at once and in their order, which the planted layers need
METHODS = ("fgsm", "pgd", "bim", "mim")


class Planted(nn.Module):
    """The network up to its last linear layer, and for each sample a layer of two classes, 1 for its planted point."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None

    def _last_layers(self) -> list[nn.Module]:
        """Those of which the one that runs last is the network's last layer."""
        if isinstance(self.network, DefendedNet) and not isinstance(self.network.head, nn.Identity):
            return [self.network.head]
        return [module for module in self.network.modules() if isinstance(module, nn.Linear)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the last linear layer reads, or the outputs if there is none that reads these samples, (B, d)."""
        read: list[torch.Tensor] = []
        hooks = [
            module.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
            for module in self._last_layers()
        ]
        try:
            outputs = self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        # a network that folds several copies of its inputs into one pass puts them together after its last layer
        own = read[-1] if read and len(read[-1]) == len(x) else outputs
        return own.flatten(1).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 2) of inputs (B, ...) in the order of the weights; ValueError for more samples than layers."""
        if self.weight is None or self.bias is None or len(x) > len(self.weight):
            raise ValueError("the planted layers belong to the samples of one batch.")
        score = (self.features(x) * self.weight[: len(x)]).sum(dim=1) + self.bias[: len(x)]
        return torch.stack([-score, score], dim=1)


def positive_control(
    target: Target, x: np.ndarray, plan: AttackPlan, seed: int = 0, batch_size: int = 256
) -> tuple[int, int]:
    """
    Plant an adversarial example in the ball of each of a few images (M, ...), by a new linear layer that tells a point
    on its edge from random ones there and inside, and see whether an untargeted attack by one of :data:`METHODS` finds
    one: in how many balls it did, and could be planted, layers that new random points get past being left out.

    | Paper link: https://arxiv.org/abs/2206.13991 (binarisation test; the layer is trained by logistic regression there
    and Fisher's discriminant, in closed form, here)
    """
    if plan.method not in METHODS or plan.targets is not None or plan.transfer:
        raise ValueError(f"plan: expected an untargeted one by {', '.join(METHODS)}, got '{plan.method}'.")
    base = target.view("loss")
    planted = Planted(Prepared(base.model).network)
    rng = np.random.default_rng(derived_seed(seed, Stream.PLANTED))
    with torch.no_grad():
        layers = [(image, _plant(base, planted, image, plan, rng, batch_size)) for image in x]
    usable = [(image, layer) for image, layer in layers if layer is not None]
    parts = (usable[start : start + batch_size] for start in range(0, len(usable), batch_size))
    return sum(_found(base, planted, part, plan, seed) for part in parts), len(usable)


def _found(
    base: LossDefendedClassifier,
    planted: Planted,
    left: list[tuple[np.ndarray, tuple[torch.Tensor, torch.Tensor]]],
    plan: AttackPlan,
    seed: int,
) -> int:
    """In how many balls of a batch the attack finds an example."""
    count = len(left)
    for restart in range(plan.restarts):
        if not left:
            break
        inputs = np.stack([image for image, _ in left])
        planted.weight = torch.stack([weight for _, (weight, _) in left])
        planted.bias = torch.stack([bias for _, (_, bias) in left])
        once = replace(plan, restarts=1, step_size=plan.step_sizes[restart % len(plan.step_sizes)])
        clean = np.zeros(len(left), dtype=np.int64)
        around = Target(_around(base, planted), inputs)
        outcome = attack_batch(around, inputs, clean, once, derived_seed(seed, restart))
        left = [each for each, stands in zip(left, outcome.standing, strict=True) if stands]
    return count - len(left)


def _around(base: LossDefendedClassifier, planted: Planted) -> LossDefendedClassifier:
    around = share_network(base, planted, objective="margin")
    around.nb_classes, around._loss = 2, nn.CrossEntropyLoss()
    return around


def _plant(
    base: LossDefendedClassifier,
    planted: Planted,
    image: np.ndarray,
    plan: AttackPlan,
    rng: np.random.Generator,
    batch_size: int = 256,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weights (d,) and bias of a layer that is positive at a point of the edge and negative at random ones, if any."""
    low, high = (-math.inf, math.inf) if base.clip_values is None else base.clip_values

    def features(moves: np.ndarray) -> torch.Tensor:
        points = np.clip(image + plan.eps * moves, low, high).astype(np.float32)
        preprocessed, _ = base._apply_preprocessing(points, y=None, fit=False)
        parts = torch.as_tensor(preprocessed, device=base.device).split(batch_size)
        return torch.cat([planted.features(part) for part in parts]).double()

    def inside(count: int) -> np.ndarray:
        if plan.norm == math.inf:
            return rng.uniform(-1, 1, (count, *image.shape))
        return edge(count) * rng.uniform(0, 1, (count, *[1] * image.ndim))

    def edge(count: int) -> np.ndarray:
        moves = rng.normal(size=(count, *image.shape))
        if plan.norm == math.inf:
            return np.sign(moves)
        return moves / np.sqrt((moves**2).reshape(count, -1).sum(axis=1)).reshape(-1, *[1] * image.ndim)

    known = features(np.concatenate([inside(NOISE), edge(NOISE), np.zeros((1, *image.shape))]))
    new = features(np.concatenate([inside(NOISE), edge(NOISE)]))
    mean = known.mean(dim=0)
    centred = known - mean
    # Fisher's discriminant with a ridge, by the inverse of the smaller matrix (Woodbury)
    ridge = 0.1 * (float(centred.square().mean()) or 1.0)
    gram = centred @ centred.T + len(known) * ridge * torch.eye(len(known), dtype=known.dtype, device=known.device)
    for _ in range(CORNERS):
        point = features(edge(1))[0]
        away = point - mean
        weight = (away - centred.T @ torch.linalg.solve(gram, centred @ away)) / ridge
        nearest, reached = float((known @ weight).max()), float(point @ weight)
        if not reached > nearest + 1e-6 * abs(nearest):
            continue
        weight, half = weight / (reached - nearest), (nearest + reached) / 2 / (reached - nearest)
        if float((new @ weight).max()) < half:
            return weight.float(), torch.tensor(-half, device=weight.device).float()
    return None
