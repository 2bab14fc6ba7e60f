"""
What each verb of the command line can be told: one class a verb, whose fields are its flags, and whose defaults are
those of the functions behind it. Nothing heavy is imported here, so that help and errors of usage come at once.
"""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from art_mmc.checks import UNIT_BOX, check_eps
from art_mmc.studies.flags import NAMES, NUMBERS, bandwidth, flag, inner, number, part, positive, share, unit, whole


def check_typed(eps: Iterable[float] | None, clip_values: Any = UNIT_BOX) -> None:
    """Check radii that --eps was given, in a box; the message has fractions as one types them."""
    try:
        for radius in eps or ():
            check_eps(radius, "--eps", clip_values)
    except ValueError as err:
        raise ValueError(str(err).replace(" / ", "/")) from None


#: what of `art-mmc train` is about the training attack, and about the rest of the recipe
ADVERSARIAL, OPTIMISATION = "adversarial training", "optimisation (where no default is given: the recipe's)"

_data = partial(flag, group="data")
_training = partial(flag, group="training")
_networks = partial(flag, group="networks")
_detectors = partial(flag, group="detectors")
_attacks = partial(flag, group="attacks")
_measurements = partial(flag, group="measurements")
_adversarial = partial(flag, group=ADVERSARIAL)
_optimisation = partial(flag, group=OPTIMISATION)
_choice = partial(flag, group="choice of the weights")
_late = partial(flag, late=True)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images come from."""

    dataset: str | None = _data(
        "digits (default; for a network of the package its own), mnist, fashion-mnist, kmnist, cifar10, cifar100, "
        "svhn, tiny-imagenet, mnist-sample (test images alone), or the path of an .npz file with x_train, y_train, "
        "x_test and y_test",
        "NAME",
    )
    data_dir: str | None = _data("folder of the data sets, in torchvision's layout", "DIR")
    download: bool = _data("let torchvision download what is not in --data-dir", default=False)


@dataclass(frozen=True, kw_only=True)
class Training(Data):
    """How networks are trained."""

    recipe: str = _training(
        "hyper-parameters of a paper, e.g. pang2020; see art-mmc recipes (default: Adam, for small images)",
        "NAME",
        default="default",
    )
    backbone: str | None = _training(
        "network; see art-mmc backbones (default: the recipe's, or cnn for tiny images, lenet5 for grey and "
        "resnet20 for colour ones)",
        "NAME",
    )
    factory: str | None = _training(
        "builds a backbone of your own in the place of --backbone, without its classification layer; called with those "
        "of input_shape and nb_classes that it takes",
        "MODULE:FUNCTION",
    )
    epochs: int | None = _training("epochs; the recipe's schedule is scaled along", "N", whole(1))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute, from what seed."""

    seed: int = _late("seed of all randomness (0)", "N", whole(0, 2**32 - 1), 0)
    device: str | None = _late(
        "where to compute (default: gpu if there is one; cuda = gpu)", choices=("cpu", "gpu", "cuda")
    )
    threads: int | None = _late("CPU threads (default: 1 for tiny images, else torch's choice)", "N", whole(1, 1024))
    quiet: bool = _late("no progress on the terminal, only the result", default=False)

    def __post_init__(self) -> None:
        radii = getattr(self, "eps", None)  # of several verbs, as they were typed
        check_typed(radii if isinstance(radii, list) else None)


@dataclass(frozen=True, kw_only=True)
class Compare(Machine, Training):
    defence: list[str] | None = flag(
        "defences to compare; can be repeated (default: all; see art-mmc defences)", **NAMES
    )
    eps: list[float] | None = _attacks(
        "L-inf radii, inputs being in [0, 1], e.g. 0.1,0.2 or 8/255; can be repeated (default: 0.05,0.1,0.15,0.2 "
        "for tiny, 0.1,0.2,0.3 for grey, 2/255,4/255,8/255,16/255 for colour images)",
        **NUMBERS,
    )
    steps: int = _attacks("steps of PGD (40)", "N", whole(1), 40)
    nb_test: int = _attacks("test images, at most (1000)", "N", whole(1), 1000)
    output: str = _late("folder of the report (default: runs/compare)", "DIR", default="runs/compare")
    resume: bool = _late("go on with an interrupted comparison of the same command", default=False)
    overwrite: bool = _late("begin anew where an unfinished comparison is, which is lost", default=False)


@dataclass(frozen=True, kw_only=True)
class Train(Machine, Training):
    """What is called as a setting of the recipe takes its place; what else is adversarial is the attack's."""

    defence: str = flag("the defence; art-mmc defences lists them", "NAME", needed=True)
    set: list[str] | None = flag(
        "an option of the defence, e.g. scale=100 or label_smoothing=0.2; can be repeated",
        "OPTION=VALUE",
        action="append",
    )
    init: str | None = _training(
        "a trained network to begin with, a file of art-mmc train or one of the package: its backbone, and its head "
        "where the defence has the same (default: weights drawn from --seed)",
        "CHECKPOINT",
    )
    output: str | None = flag("the classifier's file (default: runs/DEFENCE-DATASET.pt)", "FILE")
    resume: bool = flag(
        "go on with an interrupted run of the same command; with more --epochs, extend one that is finished",
        default=False,
    )
    overwrite: bool = flag("begin anew where an unfinished run is, which is lost", default=False)
    config: str | None = flag(
        "a TOML file with these options, e.g. epochs = 20; those of the command line override it", "FILE"
    )

    attack: str | None = _adversarial(
        "craft by PGD, by one step (fgsm), by one long step from a random start (fast), or train by TRADES "
        "(default: the recipe's, or clean images alone)",
        option="--adversarial",
        choices=("pgd", "fgsm", "fast", "trades"),
    )
    eps: float | None = _adversarial(
        "radius of the perturbation, images being in [0, 1], e.g. 0.3 or 8/255 (default: the recipe's, or 8/255; "
        "for fgsm 0.1 to 0.3)",
        "EPS",
        number,
    )
    eps_max: float | None = _adversarial(
        "each image's radius is drawn between --eps and this [fgsm] (default: --eps)", "EPS", number
    )
    eps_warmup: float | None = _adversarial("epochs over which the radius grows", "EPOCHS", positive)
    norm: str | None = _adversarial("norm of the perturbation [pgd] (default: inf)", choices=("inf", "2"))
    steps: int | None = _adversarial(
        "gradient steps [pgd, trades] (default: 10)", "N", whole(1), option="--attack-steps"
    )
    step_size: float | None = _adversarial(
        "length of a gradient step, e.g. 2/255 [pgd, fast, trades] (default: EPS / 4; fast: 1.25 EPS)", "STEP", number
    )
    objective: str | None = _adversarial(
        "what crafting maximises [pgd, fgsm, fast]: loss, the defence's own (default), adaptive, or an objective by "
        "name, e.g. soft_margin",
        "NAME",
    )
    targeted: str | None = _adversarial(
        "craft towards such a wrong class instead of away from the true one [pgd]", choices=("random", "least_likely")
    )
    tolerance: int | None = _adversarial(
        "stop crafting an image N steps after it is first misclassified [pgd] (default: use all steps)", "N", whole(0)
    )
    batch_norm: str | None = _adversarial(
        "batch normalisation while crafting: by running averages or by the batch [pgd] (default: eval)",
        option="--crafting-batch-norm",
        choices=("eval", "train"),
    )
    beta: float | None = _adversarial("weight of the divergence [trades] (default: 6)", "B", positive)
    adv_ratio: float | None = _adversarial("share of each batch that is adversarial (default: 1)", "SHARE", part)

    batch_size: int | None = _optimisation("images in one step, of all processes together", "N", whole(1))
    optimizer: str | None = _optimisation(
        "SGD with momentum 0.9, with Nesterov's, Adam or AdamW; each wants an --lr of its own",
        choices=("sgd", "nesterov", "adam", "adamw"),
    )
    rate: float | None = _optimisation("learning rate", "RATE", positive, option="--lr")
    clip_gradient: float | None = _optimisation(
        "shorten a step's gradient to this 2-norm (default: no)", "NORM", positive
    )
    scale_rate: bool = _optimisation("scale the recipe's rate in proportion to --batch-size", default=False)
    schedule: str | None = _optimisation(
        "how the rate goes down over the epochs", choices=("piecewise", "linear", "cosine", "cyclic")
    )
    rate_warmup: float | None = _optimisation("epochs over which the rate first grows", "EPOCHS", positive)
    weight_decay: float | None = _optimisation("weight decay, e.g. 5e-4", "WD", share)
    decay: str | None = _optimisation(
        "what it applies to: all parameters, kernels of convolutions, or all but biases and normalisation",
        choices=("all", "conv", "weights"),
    )
    augmentation: str | None = _optimisation("flip, crop-flip, reflect-crop-flip, ...", "NAME")
    activation: str | None = _optimisation(
        "of the network: relu, softplus, silu, gelu, ... (default: the backbone's)", "NAME"
    )
    averaging: str | None = _optimisation("average the weights over steps (ema) or epochs", choices=("ema", "swa"))
    precision: str = _optimisation(
        "bfloat16: autocast, on a GPU or a CPU with instructions for it (default: float32)",
        default="float32",
        choices=("float32", "bfloat16"),
    )
    compile: bool = _optimisation("run training steps through torch.compile", default=False)

    validation: float = _choice(
        "share of the training images that is held out, to watch accuracy and robust accuracy on (default: 0.1; 0 "
        "for none)",
        "SHARE",
        share,
        0.1,
    )
    keep: str = _choice(
        "write the weights of the last epoch (default), or of the best on those images",
        default="last",
        choices=("last", "best"),
    )
    patience: int | None = _choice("stop when so many epochs have brought nothing better", "EPOCHS", whole(1))


_AS_TRAINED = "as in art-mmc train (default: digits; for a network of the package that of its training)"
_QUIRKS = "predicted_labels, eps256; can be repeated"


@dataclass(frozen=True, kw_only=True)
class Evaluate(Machine, Data):
    dataset: str | None = _data(_AS_TRAINED, "NAME")
    checkpoint: str = flag(
        "the file of the network, or the name of one of the package; see art-mmc zoo", "CHECKPOINT", option=""
    )
    factory: str | None = flag(
        "builds your network, whose state dict CHECKPOINT holds, or your backbone, for a file that this package "
        "wrote; called with those of input_shape and nb_classes that it takes",
        "MODULE:FUNCTION",
    )
    name: str | None = flag("what to call it in the report (default: the file's name)", "TEXT")
    suite: str = _attacks("suite of attacks (default: standard)", "NAME", default="standard")
    eps: list[float] | None = _attacks(
        "radii in the unit of the inputs, e.g. 0.1,0.2 or 8/255 where they are in [0, 1]; can be repeated (default: "
        "the paper's, or as in art-mmc compare)",
        **NUMBERS,
    )
    norm: str = _attacks("norm of the ball (default: inf)", default="inf", choices=("inf", "2"))
    rounds: int | None = _attacks("rounds of strong, at most, each about as dear as all before it (2)", "N", whole(1))
    converged: float | None = _attacks(
        "share of the images below which a round has found little, and is the last (0.002)", "SHARE", share
    )
    quirk: list[str] | None = _attacks(f"do as a paper's code does: {_QUIRKS}", **NAMES)
    substitute: list[str] | None = _attacks(
        "network on which transfer attacks craft, as CHECKPOINT without a factory; can be repeated (default: a "
        "small one that is trained on the network's answers)",
        "CHECKPOINT",
        action="append",
    )
    nb_test: int | None = _attacks(
        "test images, at most (default: 1000; under quick on a large network as many as its budget has room for)",
        "N",
        whole(1),
    )
    batch_size: int = _attacks("images attacked at once (256)", "N", whole(1), 256)
    curves: int | None = _attacks(
        "images for the curves over eps and steps in the report, which take time (default: 64, or fewer under quick; "
        "0 for none)",
        "N",
        whole(0),
    )
    no_diagnostics: bool = _attacks(
        "leave out the search for masked gradients; then there is no verdict", default=False
    )
    min_n: int = flag(
        "for --fail-under: on fewer images than N the figure says too little, and the status is 1 (100)",
        "N",
        whole(1),
        100,
    )
    fail_under: float | None = flag(
        "exit with status 1 when the worst-case accuracy at the largest eps is below SHARE, e.g. 0.3, or when the "
        "verdict is untrustworthy or broken, for then the figure means nothing",
        "SHARE",
        unit,
    )
    output: str | None = _late("folder of the report (default: runs/evaluate-CHECKPOINT-SUITE)", "DIR")

    def __post_init__(self) -> None:
        if self.norm == "inf":
            check_typed(self.eps, None)
        elif self.eps is None:
            raise ValueError("--norm 2 needs --eps, e.g. --eps 0.5")
        elif not all(0 < radius < math.inf for radius in self.eps):
            raise ValueError(f"--eps: expected positive numbers, got {', '.join(f'{each:g}' for each in self.eps)}")


@dataclass(frozen=True, kw_only=True)
class Report:
    records: list[str] = flag("what a command wrote as report.json", "RECORD.json", option="", nargs="+")
    output: str = flag("folder of the reports", "DIR", needed=True)


@dataclass(frozen=True, kw_only=True)
class Reproduce(Machine, Data):
    dataset: str | None = _data(
        "one of the table's data sets (default: the first), or a file that is called so, e.g. cifar10.npz", "NAME"
    )
    table: str = flag("the table, e.g. pang2020-table1", "TABLE", option="")
    defence: list[str] | None = _networks(
        "rows of the table, e.g. sce,mmc, or defences that it lacks (default: all that it has)", **NAMES
    )
    checkpoint: list[str] | None = _networks(
        "a trained network for a row, a file or one of the package; can be repeated", "NAME=FILE", action="append"
    )
    epoch_share: float = _networks("share of the paper's epochs (1)", "SHARE", positive, 1.0, old="--budget")
    small: bool = _networks("train the recipe's scaled-down twin", default=False)
    eps: list[float] | None = _attacks("some of the paper's radii, e.g. 8/255 (default: all)", **NUMBERS)
    quirk: list[str] | None = _attacks(f"do as the paper's code does: {_QUIRKS}", **NAMES)
    second: str | None = _attacks(
        "a suite whose attacks join the worst case, e.g. strong (default: the suite of the paper alone)",
        "SUITE",
        option="--worst-case",
    )
    attack_share: float | None = _attacks(
        "tables of detectors: share of the paper's iterations of C&W (0.02)", "SHARE", part
    )
    nb_test: int = _attacks("test images, at most (1000)", "N", whole(1), 1000)
    batch_size: int = _attacks("images attacked at once (256)", "N", whole(1), 256)
    output: str | None = _late("folder of the report (default: runs/reproduce-TABLE-DATASET)", "DIR")


@dataclass(frozen=True, kw_only=True)
class Detect(Machine, Training):
    defence: list[str] | None = flag(
        "defences to train; can be repeated (default: sce,rce; see art-mmc defences)", **NAMES
    )
    checkpoint: list[str] | None = flag(
        "a file that art-mmc train wrote, or a network of the package, in the place of training; can be repeated",
        "FILE",
        action="append",
    )
    detector: list[str] | None = _detectors("detectors, see below (default: confidence,non-me,kernel-density)", **NAMES)
    bandwidth: float | str = _detectors(
        "sigma^2 of the kernel density: a number, paper, or cross-validation (default)",
        "S2",
        bandwidth,
        "cross-validation",
    )
    fpr: float = _detectors("false positives that set the thresholds (0.05)", "SHARE", inner, 0.05)
    fit_per_class: int = _detectors("training images of a class to fit on (1000)", "N", whole(2), 1000)
    attack: list[str] | None = _attacks("attacks, see below (default: all of them)", **NAMES)
    eps: float | None = _attacks(
        "L-inf radius, inputs being in [0, 1], e.g. 0.1 or 8/255 (default: 0.16, 8/255 for colour images)",
        "EPS",
        number,
    )
    attack_share: float = _attacks("share of the paper's iterations of C&W (0.02)", "SHARE", part, 0.02, old="--budget")
    nb_test: int | None = _attacks("test images to attack (default: 500, or half)", "N", whole(1))
    nb_white_box: int = _attacks("of them under cw-wb, which is slow (100)", "N", whole(1), 100)
    output: str = _late("folder of the report (default: runs/detect)", "DIR", default="runs/detect")

    batch_size: int = 256  # images attacked at once, no flag

    def __post_init__(self) -> None:
        check_typed(None if self.eps is None else [self.eps])
        if self.checkpoint and (self.defence or self.epochs or self.backbone):
            raise ValueError("--checkpoint takes the place of training: leave out --defence, --epochs and --backbone")


@dataclass(frozen=True, kw_only=True)
class Inspect(Machine, Data):
    dataset: str | None = _data(_AS_TRAINED, "NAME")
    checkpoints: list[str] = flag(
        "a file that art-mmc train wrote, or a network of the package; several are drawn together. The history of the "
        "training is looked for beside it",
        "CHECKPOINT",
        option="",
        nargs="+",
    )
    nb_train: int | None = _data("training images (default: 2000, or 50 a class if that is more)", "N", whole(1))
    nb_test: int = _data("test images, at most (500)", "N", whole(3), 500)
    nb_points: int = _data("of them in feature maps (300)", "N", whole(3), 300)
    eps: list[float] | None = _measurements(
        "L-inf radii of the attacks, inputs being in [0, 1], e.g. 0.1,0.2 or 8/255; can be repeated (default: as in "
        "art-mmc compare)",
        **NUMBERS,
    )
    steps: int = _measurements("steps of MIM and PGD (10)", "N", whole(1), 10)
    neighbours: int = _measurements("neighbours of a feature (10)", "K", whole(1), 10)
    components: int | None = _measurements("components in which they are looked for (default: 5)", "D", whole(1))
    quiet: bool = _late("nothing on the terminal but what was written", default=False)
    output: str = _late("folder of the report (default: runs/inspect)", "DIR", default="runs/inspect")


@dataclass(frozen=True, kw_only=True)
class Bench:
    only: list[str] | None = flag(
        "groups (attacks, predict, fit, training, losses, centers, memory, growth) or single jobs, by the names in "
        "the table",
        **NAMES,
    )
    rounds: int = flag("rounds that count (5)", "N", whole(1), 5)
    device: str | None = flag("where to compute (default: gpu if there is one)", choices=("cpu", "gpu", "cuda"))
    threads: int | None = flag("CPU threads (default: torch's choice)", "N", whole(1, 1024))
    quick: bool = flag("tiny sizes, to try it out: the figures mean nothing", default=False)
    precision: str | None = flag(
        "bfloat16: rows in mixed precision too (default: bfloat16 on a GPU, else float32)",
        choices=("float32", "bfloat16"),
    )
    compile: bool | None = flag(
        "rows with a torch.compile'd network too (default: on a GPU)", action=argparse.BooleanOptionalAction
    )
    output: str | None = flag("write bench.md, bench.json and growth.png there", "DIR")


@dataclass(frozen=True)
class Listing:
    """`art-mmc defences`, `recipes`, `backbones` and `zoo` are told nothing."""
