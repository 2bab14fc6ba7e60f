"""
The papers' hyper-parameters, by name: "pang2020-mnist" and so on, `<first author><year>-<data set>`.

A recipe says how to optimise, whatever the defence: the papers train their baselines by the same recipe as their own
loss. Published values carry their source; what is ours says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from art_mmc.checks import check_name, whole
from art_mmc.defences import DEFENCES

#: names of the schedules
SCHEDULES = ("piecewise", "linear", "cosine", "cyclic")

#: names of the optimizers
OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw")

#: how inputs in [0, 1] are scaled inside the network: not at all, minus 0.5, minus the mean training image, or minus
#: the mean of a channel and divided by its standard deviation
SCALINGS = ("unit", "half", "pixel-mean", "channel")


@dataclass(frozen=True)
class Recipe:
    """
    How a network is trained.

    :param name: Name, e.g. "pang2020-mnist".
    :param description: One line.
    :param source: Where the values come from.
    :param defences: Defences that the source trains in this way; it can be used for others.
    :param backbone: Name of the backbone.
    :param optimizer: "sgd" (momentum 0.9), "nesterov" (the same with Nesterov's momentum), "adam" or "adamw".
    :param rate: Learning rate at the start.
    :param nb_epochs: Passes over the data.
    :param batch_size: Samples in one step.
    :param schedule: How the rate goes from `rate` on, counted from the start of a stage: "piecewise" (times `gamma` at
           each milestone), "linear" (to zero), "cosine" (to zero) or "cyclic" (up from zero over two fifths, down to
           zero over the rest, `rate` at the top).
    :param milestones: Epochs after which a piecewise rate is multiplied by `gamma`.
    :param gamma: Factor on the rate at a milestone.
    :param rate_warmup: Epochs over which the rate grows linearly to its full size; it never overshoots.
    :param weight_decay: Weight decay, torch's convention (the gradient of half the squared norm).
    :param decay: What decays: "all" parameters, "conv" (kernels of convolutions alone) or "weights" (kernels and
           matrices, no biases and no normalisation).
    :param betas: Adam's two rates of averaging.
    :param clip_gradient: Largest 2-norm of a step's gradient, a longer one being shortened to it; None for any.
    :param warmup_epochs: Of `nb_epochs`, those of plain cross-entropy that precede a loss with a warm-up (PC); each
           stage begins with a fresh optimizer and schedule.
    :param augmentation: Name of the augmentation, or None.
    :param scaling: How inputs in [0, 1] are scaled inside the network, one of `SCALINGS`; None for "channel" on colour
           images and "unit" on all others.
    :param averaging: "ema", "swa" or None; see :class:`.LossTrainer`.
    :param attack: Name of the crafting strategy for adversarial training, or None for clean training.
    :param attack_options: Its options, by name.
    :param adv_ratio: Share of each batch that is replaced by adversarial examples.
    :param eps_warmup: Epochs over which eps grows linearly to its full size.
    """

    name: str
    description: str
    source: str
    defences: tuple[str, ...]
    backbone: str
    optimizer: str
    rate: float
    nb_epochs: int
    batch_size: int
    schedule: str = "piecewise"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    rate_warmup: float = 0.0
    weight_decay: float = 0.0
    decay: str = "all"
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: int = 0
    augmentation: str | None = None
    scaling: str | None = None
    averaging: str | None = None
    attack: str | None = None
    attack_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    adv_ratio: float = 1.0
    eps_warmup: float = 0.0
    # shown by the trainer, and where it is given alone: runs that were begun without it can be resumed
    clip_gradient: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        check_name("schedule", self.schedule, SCHEDULES)
        if self.scaling is not None:
            check_name("scaling", self.scaling, SCALINGS)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """
        The same recipe for another batch size, the rate scaled in proportion (the linear scaling rule).

        :param batch_size: Samples in one step, at least 1.
        :return: The recipe.
        :raises ValueError: For a batch size below 1.
        """
        whole("batch_size", batch_size)
        return replace(self, batch_size=batch_size, rate=self.rate * batch_size / self.batch_size)

    def scaled(self, nb_epochs: int) -> Recipe:
        """
        The same recipe for another number of epochs, milestones and warm-up scaled along.

        :param nb_epochs: Passes over the data, at least 1.
        :return: The recipe; itself for its own number of epochs.
        :raises ValueError: For fewer than one epoch.
        """
        if whole("nb_epochs", nb_epochs) == self.nb_epochs:
            return self
        share = nb_epochs / self.nb_epochs
        return replace(
            self,
            nb_epochs=nb_epochs,
            milestones=tuple(sorted({max(1, int(epoch * share)) for epoch in self.milestones})),
            warmup_epochs=round(self.warmup_epochs * share),
        )

    def make_optimizer(
        self, network: nn.Module, trained: Iterable[torch.Tensor] | None = None
    ) -> torch.optim.Optimizer:
        """
        :param network: The network.
        :param trained: The parameters that are trained, others than the network's (a loss') included; None for all of
               the network's.
        :return: A fresh optimizer over them.
        """
        wanted = {id(each): each for each in (network.parameters() if trained is None else trained)}
        # in the network's order, whatever the order in which they came
        ordered = {**{id(each): each for each in network.parameters() if id(each) in wanted}, **wanted}
        decaying = set(wanted) if self.decay == "all" else {id(each) for each in self._kernels(network)}
        groups: list[dict[str, Any]] = [
            {"params": [each for key, each in ordered.items() if (key in decaying) == chosen], "weight_decay": value}
            for chosen, value in ((True, self.weight_decay), (False, 0.0))
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer in ("sgd", "nesterov"):
            return torch.optim.SGD(groups, lr=self.rate, momentum=0.9, nesterov=self.optimizer == "nesterov")
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.rate, betas=self.betas)

    def _kernels(self, network: nn.Module) -> Iterable[torch.Tensor]:
        kinds = nn.modules.conv._ConvNd if self.decay == "conv" else (nn.modules.conv._ConvNd, nn.Linear)
        # what weight norm and its like make of a kernel has other names, a bias has its own
        return (
            parameter
            for module in network.modules()
            if isinstance(module, kinds)
            for name, parameter in module.named_parameters()
            if "bias" not in name
        )

    def factor(self, epoch: float, nb_epochs: int) -> float:
        """
        Factor on the rate.

        :param epoch: Epochs of the stage finished, as a fraction inside an epoch.
        :param nb_epochs: Epochs of the stage.
        :return: The factor, in [0, 1].
        """
        share = min(1.0, epoch / nb_epochs)
        value = {
            "piecewise": self.gamma ** sum(epoch >= milestone for milestone in self.milestones),
            "linear": 1 - share,
            "cosine": (1 + math.cos(math.pi * share)) / 2,
            "cyclic": min(share / 0.4, (1 - share) / 0.6),
        }[self.schedule]
        return value * min(1.0, epoch / self.rate_warmup) if self.rate_warmup else value

    def make_scheduler(
        self, optimizer: torch.optim.Optimizer, steps: int, nb_epochs: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """
        :param optimizer: The optimizer.
        :param steps: Steps in one epoch.
        :param nb_epochs: Epochs of the stage.
        :return: The schedule, to be stepped once a batch; None for a constant rate.
        """
        if self.schedule == "piecewise" and not self.milestones and not self.rate_warmup:
            return None
        # the rate of a step is that at its end where it grows, so that the first step of a warm-up is no lost one
        ahead = 1 if self.rate_warmup or self.schedule == "cyclic" else 0

        def at_step(step: int) -> float:
            growing = step < steps * max(self.rate_warmup, 0.4 * nb_epochs * (self.schedule == "cyclic"))
            return self.factor((step + (ahead if growing else 0)) / steps, nb_epochs)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, at_step)


_MMC = "Pang et al., ICLR 2020, and its released code"
_PC = "Li et al., AAAI 2021, and its released code"
_RCE = "Pang et al., NeurIPS 2018, and its released code"
_MM = ("sce", "center", "mmlda", "lgm", "mmc")

_DEFAULT = Recipe(
    name="default",
    description="small images in seconds; ours, of no paper",
    source="art_mmc",
    defences=tuple(DEFENCES),
    backbone="cnn",
    optimizer="adam",
    rate=2e-3,
    nb_epochs=40,
    batch_size=64,
    schedule="cosine",
    warmup_epochs=20,
)

_MMC_CIFAR = Recipe(
    name="pang2020-cifar10",
    description="MMC and its baselines on CIFAR-10",
    source=_MMC,
    defences=_MM,
    backbone="mmc-resnet32v2",
    optimizer="sgd",
    rate=0.01,
    nb_epochs=200,
    batch_size=50,
    # the released schedule multiplies the rate in the epochs *after* those of index 100 and 150
    milestones=(101, 151),
    # Keras' L2 1e-4 is the gradient 2e-4 w; it is set on the kernels of the convolutions alone
    weight_decay=2e-4,
    decay="conv",
    augmentation="shift-nearest-flip",
    scaling="pixel-mean",
)

_MMC_FAST = replace(
    _MMC_CIFAR.with_batch_size(512).scaled(60),
    name="pang2020-cifar10-fast",
    description="MMC and its baselines on CIFAR-10 in a few minutes of a GPU; batches, epochs and schedule are ours",
    source=f"{_MMC}; ten times the batch at the rate of the linear scaling rule, scaled down by art_mmc",
    schedule="cosine",
    milestones=(),
    rate_warmup=5.0,
)

_PC_GREY = Recipe(
    name="li2021-mnist",
    description="PC with logit constraint on grey images: 50 epochs of cross-entropy, then 50 of PC",
    source=_PC,
    defences=("sce", "pc"),
    backbone="lenet5",
    optimizer="adam",
    rate=0.01,
    nb_epochs=100,
    batch_size=256,
    # the schedule of the released Tiny ImageNet notebook, from its 150 epochs a stage to these 50; the paper has none,
    # and at a constant rate the accuracy wanders by a point from epoch to epoch
    milestones=(16, 33),
    gamma=0.2,
    warmup_epochs=50,
    scaling="unit",
)

_PC_COLOUR = replace(
    _PC_GREY,
    name="li2021-cifar10",
    # Tables 1, 3, 4 and 5 of the paper; its Table 2 has ResNet-56 on CIFAR-10
    description="PC with logit constraint on colour images: 150 epochs of cross-entropy, then 150 of PC",
    backbone="vgg13",
    nb_epochs=300,
    milestones=(49, 99),
    warmup_epochs=150,
)

_RCE_CIFAR = Recipe(
    name="pang2018-cifar10",
    description="RCE and its baseline on CIFAR-10: 90,000 steps",
    source=_RCE,
    defences=("sce", "rce"),
    backbone="rce-resnet32",
    optimizer="sgd",
    rate=0.1,
    nb_epochs=230,  # 90,000 steps of 128 images; rate / 10 at steps 40,000, 60,000 and 80,000
    batch_size=128,
    milestones=(102, 153, 205),
    weight_decay=2e-4,
    decay="weights",
    augmentation="crop-flip",
    scaling="half",
)

_ALL = (
    _DEFAULT,
    _MMC_CIFAR,
    _MMC_FAST,
    replace(_MMC_CIFAR, name="pang2020-cifar100", description="MMC and its baselines on CIFAR-100"),
    replace(
        _MMC_CIFAR,
        name="pang2020-mnist",
        description="MMC and its baselines on MNIST, flips included, as released",
        nb_epochs=40,
        milestones=(31,),  # the second decay, after epoch index 40, comes too late for the README's 40 epochs
    ),
    Recipe(
        name="pang2019-mnist",
        description="MMC and MMLDA by the optimizer of their earlier releases; LeNet-5 and its 20 epochs are ours",
        source="the released code until September 2019 (Adam 1e-3, batch 50, 180 epochs); scaled down by art_mmc",
        defences=("mmlda", "mmc"),
        backbone="lenet5",
        optimizer="adam",
        rate=1e-3,
        nb_epochs=20,
        batch_size=50,
        milestones=(14,),
        scaling="pixel-mean",
    ),
    _PC_GREY,
    replace(_PC_GREY, name="li2021-fashion-mnist"),
    replace(_PC_GREY, name="li2021-kmnist"),
    _PC_COLOUR,
    replace(_PC_COLOUR, name="li2021-svhn"),
    replace(_PC_COLOUR, name="li2021-cifar100"),
    replace(
        _PC_COLOUR,
        name="li2021-tiny-imagenet",
        description="PC with logit constraint on Tiny ImageNet, with the released schedule and augmentation",
        augmentation="rotate-crop-flip",
    ),
    _RCE_CIFAR,
    replace(
        _RCE_CIFAR,
        name="pang2018-mnist",
        description="RCE and its baseline on MNIST: 20,000 steps",
        nb_epochs=43,
        milestones=(21, 32),
        augmentation=None,
    ),
    Recipe(
        name="song2022-cifar10",
        description="I-SCE and its baseline on CIFAR-10: 20,000 steps; without its standardisation of each image",
        source="Song et al., Mathematics 2022, and its released code",
        defences=("sce", "isce"),
        backbone="isce-resnet32",
        optimizer="sgd",
        rate=0.1,
        nb_epochs=51,
        batch_size=128,
        milestones=(26, 38),
        augmentation="shift-nearest-flip",
        # the release also standardises each image (its mean 0, its deviation 1) inside the network; that is left out
        # here: it is no fixed scaling, and a perturbation would change the scale of the whole image
        scaling="pixel-mean",
    ),
    Recipe(
        name="chen2019-mnist",
        description="GCE and its baseline on MNIST",
        source="Chen et al., ICCV 2019, and its released code",
        defences=("sce", "gce"),
        backbone="lenet5",
        optimizer="adam",
        rate=1e-3,
        nb_epochs=20,
        batch_size=64,
        betas=(0.9, 0.99),
        scaling="unit",
    ),
)

_BOT = "Pang et al., ICLR 2021 (Bag of Tricks for adversarial training), and its released code"

_BAG_OF_TRICKS = Recipe(
    name="pang2021-cifar10-at",
    description="the Bag of Tricks baseline: PGD-10 with batch normalisation in evaluation mode while crafting",
    source=_BOT,
    defences=("sce",),
    backbone="wrn-34-10",
    optimizer="sgd",
    rate=0.1,
    nb_epochs=110,
    batch_size=128,
    milestones=(100, 105),
    weight_decay=5e-4,
    augmentation="reflect-crop-flip",
    # train_cifar.py and normalize_PGDAT in eval_cifar.py subtract CIFAR-10's mean and divide by its deviation
    scaling="channel",
    attack="pgd",
    attack_options=MappingProxyType({"eps": 8 / 255, "steps": 10, "step_size": 2 / 255}),
)

_MMC_AT = replace(
    _MMC_CIFAR,
    name="pang2020-cifar10-at",
    description="AT-10 of the MMC paper, untargeted: all examples adversarial, batch statistics while crafting",
    defences=("sce", "mmc"),
    attack="pgd",
    attack_options=MappingProxyType({"eps": 8 / 255, "steps": 10, "step_size": 2 / 255, "batch_norm": "train"}),
)

_ADVERSARIAL = (
    _MMC_AT,
    replace(
        _MMC_AT,
        name="pang2020-cifar10-at-targeted",
        # the release draws the target from all classes, the true one included; here it is always another one
        description="AT-10 of the MMC paper, targeted at a random other class",
        attack_options=MappingProxyType({**_MMC_AT.attack_options, "targeted": "random"}),
    ),
    replace(
        _PC_GREY,
        name="li2021-mnist-at",
        description="the PC paper's adversarial training on grey images: half of each batch by FGSM, eps 0.1 to 0.3",
        attack="fgsm",
        attack_options=MappingProxyType({"eps": 0.1, "eps_max": 0.3}),
        adv_ratio=0.5,
    ),
    replace(
        _PC_COLOUR,
        name="li2021-cifar10-at",
        description="the PC paper's adversarial training on CIFAR-10: half of each batch by 5-step PGD, eps 0 to 0.1",
        attack="pgd",
        attack_options=MappingProxyType({"eps": 0.1, "eps_min": 0.0, "steps": 5}),
        adv_ratio=0.5,
    ),
    _BAG_OF_TRICKS,
    replace(
        _BAG_OF_TRICKS,
        name="pang2021-cifar10-trades",
        description="TRADES by the Bag of Tricks settings",
        scaling="unit",  # normalize_TRADES in eval_cifar.py does nothing
        attack="trades",
        attack_options=MappingProxyType({"eps": 8 / 255, "steps": 10, "step_size": 2 / 255, "beta": 6.0}),
    ),
    Recipe(
        name="madry2018-mnist-at",
        description="PGD-40 at eps 0.3 on MNIST; LeNet-5 and its 20 epochs are ours",
        source="Madry et al., ICLR 2018 (eps 0.3, 40 steps of 0.01); scaled down by art_mmc",
        defences=("sce", "mmc"),
        backbone="lenet5",
        optimizer="adam",
        rate=1e-3,
        nb_epochs=20,
        batch_size=128,
        milestones=(15,),
        scaling="unit",
        attack="pgd",
        attack_options=MappingProxyType({"eps": 0.3, "steps": 40, "step_size": 0.01}),
    ),
)

#: what a scaled-down twin trains instead of a large network
_SMALLER = {
    "wrn-34-10": "resnet20",
    "mmc-resnet32v2": "mmc-resnet32v1",
    "resnet56": "resnet20",
    "vgg13": "resnet20",
    "rce-resnet32": "resnet20",
    "isce-resnet32": "resnet20",
}


def _twin(recipe: Recipe) -> Recipe:
    """A scaled-down twin: a tenth of the epochs (two at least), a smaller network, and a name that says so."""
    epochs = max(2, round(recipe.nb_epochs / 10))
    backbone = _SMALLER.get(recipe.backbone, recipe.backbone)
    return replace(
        recipe.scaled(epochs),
        name=f"{recipe.name}-small",
        description=f"scaled-down twin of {recipe.name}, not the paper's: {epochs} epochs, {backbone}",
        backbone=backbone,
    )


_PUBLISHED = _ALL + _ADVERSARIAL

#: name -> recipe; every one but the default has a twin with the ending "-small"
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*_PUBLISHED, *(_twin(r) for r in _PUBLISHED if r is not _DEFAULT))
}


def get_recipe(name: str, dataset: str | None = None) -> Recipe:
    """
    :param name: Name of a recipe, or its first part, the paper: "pang2020".
    :param dataset: Name of the data set, to complete the paper's name.
    :return: The recipe.
    :raises ValueError: For an unknown name, or a paper without a recipe for the data set.
    """
    if name in RECIPES:
        return RECIPES[name]
    papers = {known.split("-")[0] for known in RECIPES}
    check_name("recipe", name, [*RECIPES, *sorted(papers - set(RECIPES))])
    full = f"{name}-{dataset}"
    if full not in RECIPES:
        known = ", ".join(recipe for recipe in RECIPES if recipe.startswith(f"{name}-"))
        raise ValueError(f"recipe '{name}' has none for data set '{dataset}'. Known: {known}.")
    return RECIPES[full]
