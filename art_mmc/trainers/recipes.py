"""
The papers' hyper-parameters, by name: "pang2020-mnist" and so on, `<first author><year>-<data set>`. The values are in
recipes.toml.

A recipe says how to optimise, whatever the defence: the papers train their baselines by the same recipe as their own
loss. Published values carry their source; what is ours says so.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from art_mmc.checks import check_name, fraction, tomllib, whole
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

    def with_batch_size(self, batch_size: int) -> "Recipe":
        """
        The same recipe for another batch size, the rate scaled in proportion (the linear scaling rule).

        :param batch_size: Samples in one step, at least 1.
        :return: The recipe.
        :raises ValueError: For a batch size below 1.
        """
        whole("batch_size", batch_size)
        return replace(self, batch_size=batch_size, rate=self.rate * batch_size / self.batch_size)

    def scaled(self, nb_epochs: int) -> "Recipe":
        """
        The same recipe for another number of epochs; milestones, warm-up and that of the radius are scaled along.

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
            eps_warmup=self.eps_warmup * share,
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
        kinds = nn.modules.conv._ConvNd if self.decay == "conv" else (nn.modules.conv._ConvNd, nn.Linear)
        kernels = (
            each for module in network.modules() if isinstance(module, kinds) for each in module.named_parameters()
        )
        # what weight norm and its like make of a kernel has other names, a bias has its own
        decaying = set(wanted) if self.decay == "all" else {id(each) for name, each in kernels if "bias" not in name}
        groups: list[dict[str, Any]] = [
            {"params": [each for key, each in ordered.items() if (key in decaying) == chosen], "weight_decay": value}
            for chosen, value in ((True, self.weight_decay), (False, 0.0))
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer in ("sgd", "nesterov"):
            return torch.optim.SGD(groups, lr=self.rate, momentum=0.9, nesterov=self.optimizer == "nesterov")
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.rate, betas=self.betas)

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


#: what a scaled-down twin trains instead of a large network
_SMALLER = dict.fromkeys(("wrn-34-10", "resnet56", "vgg13", "rce-resnet32", "isce-resnet32"), "resnet20")
_SMALLER["mmc-resnet32v2"] = "mmc-resnet32v1"


def _twin(recipe: Recipe, **changes: Any) -> Recipe:
    """A tenth of the epochs, two at least, a smaller network, and changes without which so few teach it nothing."""
    epochs = max(2, round(recipe.nb_epochs / 10))
    backbone = _SMALLER.get(recipe.backbone, recipe.backbone)
    return replace(
        recipe.scaled(epochs),
        name=f"{recipe.name}-small",
        description=f"scaled-down twin of {recipe.name}, not the paper's: {epochs} epochs, {backbone}"
        + "".join(f", {name} {value}" for name, value in changes.items()),
        backbone=backbone,
        **changes,
    )


def _value(entry: Any) -> Any:
    """An entry of the file as a recipe has it: 8 / 255 of "8/255", None of ""."""
    if isinstance(entry, dict):
        return MappingProxyType({name: _value(each) for name, each in entry.items()})
    if isinstance(entry, str) and entry[:1].isdigit():
        return fraction(entry)
    return tuple(entry) if isinstance(entry, list) else None if entry == "" else entry


def _read(text: str) -> dict[str, Recipe]:
    """The recipes of recipes.toml, by name, and after them the twins."""
    recipes: dict[str, Recipe] = {}
    small: dict[str, Any] = {}
    for name, table in tomllib.loads(text).items():
        given = {key: _value(entry) for key, entry in table.items() if key not in ("like", "small")}
        small[name] = table.get("small", {})
        if "like" in table:
            recipes[name] = replace(recipes[table["like"]], name=name, **given)
        else:
            recipes[name] = Recipe(name, **{"defences": tuple(DEFENCES), **given})
    twins = [_twin(recipe, **small[name]) for name, recipe in list(recipes.items())[1:]]
    return recipes | {twin.name: twin for twin in twins}


#: name -> recipe; every one but the default, the first, has a twin with the ending "-small"
RECIPES: dict[str, Recipe] = _read(files(__package__).joinpath("recipes.toml").read_text("utf-8"))


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
