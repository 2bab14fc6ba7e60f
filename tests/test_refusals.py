"""What a user gives wrongly is refused where it enters, by name: one table for the doors of the package in Python."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from art.data_generators import NumpyDataGenerator
from art.defences.postprocessor import HighConfidence, ReverseSigmoid, Rounded
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc import DEFENCES, LossDefendedClassifier, MMCClassifier, accelerate, create_classifier, load_classifier
from art_mmc.attacks.build import build_attack
from art_mmc.classifiers import CLASSIFIERS
from art_mmc.data import load_dataset, split_validation
from art_mmc.evaluation import (
    AttackError,
    AttackPlan,
    RobustnessEvaluation,
    distilled_substitute,
    evaluate_robustness,
    get_suite,
    transfer_matrix,
)
from art_mmc.evaluation.engine import Target
from art_mmc.losses import MMCLoss
from art_mmc.models import create_backbone, wrap_backbone
from art_mmc.trainers import (
    FGSM,
    PGD,
    TRADES,
    AdversarialLossTrainer,
    FastFGSM,
    LossTrainer,
    MMCTrainer,
    PCTrainer,
    create_trainer,
    make_crafting,
)
from art_mmc.trainers.augmentation import RandomShift
from tests.cases import SOFT_ROWS
from tests.conftest import NAMES, assert_same, traces
from tests.planted import plain

FOLDER = str(Path(__file__).parent)
X, Y = np.random.default_rng(0).uniform(size=(20, 1, 8, 8)).astype(np.float32), np.arange(20) % 10
EYE = np.eye(10, dtype=np.float32)[Y]
HARD_ROWS = [name for name in NAMES if name not in SOFT_ROWS]
NAN = math.nan
PLAN = AttackPlan("first", "fgsm", "margin", 0.001)
TRANSFER = replace(PLAN, transfer=True)


def net(width: int = 32, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), *after)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(10)

    def forward(self, x):
        return self.net(x), x


#: what is no array to ART either
PLAINLY_NONE = (str, dict, float, type(None))


class Foreign:
    """A tensor of another framework has a shape and a type of its own."""

    dtype, shape, ndim = "tf.float32", (20, 1, 8, 8), 4

    def __len__(self):
        return 20


class Curved(Pair):
    """Ends in an activation that is no layer."""

    def forward(self, x):
        return torch.relu(self.net(x))


def lifted(network: nn.Module) -> nn.Module:
    """Its outputs for zeros are positive, as after an activation."""
    network[1].bias.data.abs_()
    return network


class Ended(nn.Module):
    """A last layer that is a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


def make(name: str = "mmc", backbone: nn.Module | None = None, **settings):
    settings = {"input_shape": (1, 8, 8), "nb_classes": 10, "device_type": "cpu", **settings}
    return create_classifier(name, net(32, nn.ReLU()) if backbone is None else backbone, **settings)


def base(network: nn.Module | None = None, loss=None, **settings):
    network, loss = net(10) if network is None else network, loss or nn.CrossEntropyLoss()
    return LossDefendedClassifier(network, loss, (1, 8, 8), 10, device_type="cpu", **settings)


def trainer(**settings):
    return LossTrainer(make(), verbose=False, **{"seed": 0, **settings})


def adversarial(box, attack, **settings):
    return AdversarialLossTrainer(make(clip_values=box), attack, **settings)


def evaluation(**settings):
    return RobustnessEvaluation(**{"suite": "quick", "eps": 0.1, "verbose": False, **settings})


def mean_loss(logits, y):
    return nn.functional.cross_entropy(logits, y)


def in_stages(classifier):
    """A scheduler that is made, for a training in two stages."""
    scheduler = torch.optim.lr_scheduler.StepLR(classifier.optimizer, 1)
    PCTrainer(classifier, verbose=False).fit(X, Y, scheduler=scheduler)


PLATEAU, ATTACKS = torch.optim.lr_scheduler.ReduceLROnPlateau, {"FGSM": lambda each: FastGradientMethod(each, eps=0.1)}
TABLES = plain(nn.Linear(8, 3), input_shape=(8,), nb_classes=3)
ART_OF_FIVE = PyTorchClassifier(net(5), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")


def doors(call, *rows):
    """One call with arguments by name, for each of which there is a message."""
    return [(lambda given=given: call(**given), message) for given, message in rows]


#: the call, and how its message begins
REFUSED = [
    *doors(
        make,
        ({"mean": NAN}, "mean: expected finite numbers, got nan"),
        ({"mean": (0.1, 0.2)}, "mean: expected one number, 1, one a channel, or an array of the inputs' shape"),
        ({"mean": "grey"}, "mean: expected a number, or one a channel, got 'grey'"),
        ({"std": (1.0, 1.0)}, "std: expected one number"),
        ({"std": math.inf}, "std: expected positive numbers, got inf"),
        ({"embedding_dim": 0}, "embedding_dim: expected a whole number of at least 1, got 0"),
        ({"scale": 10**400}, "scale: expected a positive number, got 1000"),
        ({"nb_classes": "10"}, "nb_classes: expected a whole number of at least 1, got '10'"),
        ({"input_shape": 64}, "input_shape: expected positive whole numbers"),
        ({"clip_values": 1}, "clip_values: expected two numbers or arrays, such as (0, 1), got 1"),
        ({"clip_values": (0, NAN)}, "clip_values: expected finite bounds, the first below the second"),
        ({"clip_values": (1, 0)}, "clip_values: expected finite bounds, the first below the second"),
        ({"device_type": "tpu"}, "device_type: expected 'cpu' or 'gpu', got 'tpu'"),
        ({"optimizer": torch.optim.Adam}, "optimizer: expected one that is made"),
        ({"optimizer": torch.optim.SGD(net().parameters(), 0.1)}, "optimizer: none of its parameters are the"),
        ({"loss": 3}, "loss: expected a torch.nn.Module or a function"),
        ({"backbone": net(10)}, "model: the last layer of the backbone is linear with 10 outputs"),
        ({"backbone": lifted(net(10))}, "model: the last layer of the backbone is linear with 10 outputs"),
        ({"backbone": net(1000)}, "model: the last layer of the backbone is linear with 1000 outputs"),
        ({"backbone": net(5), "name": "sce"}, "model: the last layer of the backbone is linear with 5 outputs"),
        ({"backbone": net(32, nn.ReLU()).half()}, "model: the backbone is in float16, in which training diverges"),
        ({"backbone": Pair()}, "wrap_backbone: expected one tensor of features (B, d), the module returned a"),
        ({"backbone": nn.Conv2d(3, 4, 3)}, "wrap_backbone: the module refused inputs of shape (2, 1, 8, 8)"),
        ({"backbone": "lenet"}, "unknown backbone 'lenet'. Did you mean 'lenet5'?"),
        ({"backbone": 3}, "model: expected a torch.nn.Module, got int"),
        ({"name": "mcm"}, "unknown defence 'mcm'. Did you mean 'mmc'? Known: sce, mmc, mmlda"),
        ({"centers": np.eye(10, 32)}, "centers: expected one of 'max_mahalanobis', 'random', got array([[1., 0.,"),
        ({"objective": np.zeros(3)}, "unknown objective 'array([0., 0., 0.])'"),
        ({"scal": 3.0}, "unknown option of defence 'mmc': 'scal'. Did you mean 'scale'?"),
        ({"use_amp": True}, "use_amp=True needs NVIDIA apex"),
        ({"arithmetic": "fats"}, "unknown arithmetic 'fats'. Did you mean 'fast'"),
        ({"compile": 3}, "compile: expected True, False or the name of a backend"),
        ({"loss": MMCLoss()}, "the loss has temperature 1.0, the head 10.0"),
    ),
    *(
        (lambda cls=cls, given=given: cls(**{"input_shape": (1, 8, 8), "nb_classes": 10, **given}), message)
        for cls, given, message in [
            (LossDefendedClassifier, {"model": net(10), "loss": None, "scale": 3.0}, "scale: not to be given here, o"),
            (MMCClassifier, {"model": make().model, "mean": 0.5, "scale": 3.0}, "mean, scale: not to be given here, "),
            (MMCClassifier, {"model": net(32), "nb_classes": None}, "input_shape and nb_classes are needed, e.g."),
            (MMCClassifier, {"model": make("sce").model}, "the network's head is a LinearHead, defence 'mmc' needs a"),
            (CLASSIFIERS["rce"], {"model": make("sce").model}, "the network's head is a LinearHead, defence 'rce'"),
            (MMCClassifier, {"model": make().model, "nb_classes": 4}, "nb_classes=4, but the network's head has 10"),
        ]
    ),
    *(
        (lambda call=call, s=s: call((np.zeros(s), np.ones(s))), f"clip_values: bounds of shape {s} do not fit inputs")
        for s in ((3,), (2, 1, 1), (8, 3, 1, 1), (192,))
        for call in (
            lambda box: make(input_shape=(3, 8, 8), backbone="cnn", clip_values=box),
            lambda box: make(input_shape=(3, 8, 8), backbone="cnn").set_params(clip_values=box),
            lambda box: accelerate(plain(nn.Linear(8, 10), input_shape=(3, 8, 8), clip_values=box)),
        )
    ),
    *(
        (lambda c=c, call=call, x=x: call(c, x), "x: expected an array or a torch tensor")
        for c in (make(), base())
        for x in (Foreign(), "text", None, 0.5, {"x": X}, X.astype(str), X + 1j)
        for call in (
            lambda c, x: c.loss_gradient(x, Y),
            lambda c, x: c.compute_loss(x, Y),
            lambda c, x: c.class_gradient(x),
            lambda c, x: c.get_activations(x, 0),
            # ART makes an array of anything else for these
            *([lambda c, x: c.predict(x), lambda c, x: c.fit(x, Y)] if isinstance(x, PLAINLY_NONE) else []),
        )
    ),
    *((lambda n=n: make(n).fit(X, EYE / 2 + 0.05), DEFENCES[n].loss.__name__ + " is") for n in HARD_ROWS),
    *(
        (lambda network=network, call=call: call(base(network())), message)
        for network, message in [
            (lambda: net(5), "model: expected logits (20, 10) of 20 inputs, nb_classes being 10, the network returned"),
            (lambda: net(12), "model: expected logits (20, 10) of 20 inputs, nb_classes being 10, the network"),
            (lambda: nn.Conv2d(1, 10, 8), "model: expected logits (20, 10) of 20 inputs, nb_classes being 10, the n"),
            (lambda: net(10, Ended(lambda z: z.argmax(1))), "model: expected logits, the network returned torch.int6"),
        ]
        for call in (
            lambda c: c.predict(X),
            lambda c: c.loss_gradient(X, Y),
            lambda c: c.fit(X, Y),
            lambda c: LossTrainer(c, verbose=False).fit(X, Y),
            lambda c: AdversarialLossTrainer(c, PGD(0.1, steps=1), verbose=False).fit(X, Y),
        )
    ),
    *(
        (lambda call=call: call(base(net(10, Ended(torch.detach)))), "model: the loss has no gradient: a detach()")
        for call in (lambda c: c.fit(X, Y), lambda c: LossTrainer(c, verbose=False).fit(X, Y))
    ),
    (lambda: evaluation().evaluate(ART_OF_FIVE, X, Y), "model: expected logits (1, 10) of 1 inputs"),
    (lambda: LossTrainer(base(nn.Flatten())), "classifier: it has no optimizer: there are no parameters to train"),
    *(
        (lambda call=call, given=given: call(given), message)
        for call in (
            lambda given: trainer(folder=given),
            lambda given: evaluation(folder=given),
            lambda given: make().save_checkpoint(given),
            lambda given: load_classifier(given),
            lambda given: load_dataset(given),
            lambda given: load_dataset("mnist", data_dir=given),
        )
        for given, message in [
            (3, re.compile(r"\w+: expected a path, a str or a pathlib.Path, got 3")),
            (b"runs", re.compile(r"\w+: expected a path, a str or a pathlib.Path, got b'runs'")),
            ("", re.compile(r"\w+: expected a path, got ''")),
        ]
    ),
    (lambda: make("mmc", "cnn").save_checkpoint(FOLDER), f"{FOLDER} is a folder, where a file"),
    (lambda: create_trainer(None, recipe="pang2021-cifar10-at"), "classifier: expected a LossDefendedClassifier,"),
    (lambda: make().fit(X, Y, scheduler=lambda optimizer: None), "scheduler: expected a function that returns somethi"),
    (lambda: trainer().fit(X, Y, scheduler=lambda optimizer: 3), "scheduler: expected a function that returns somethi"),
    (lambda: trainer().fit(X, Y, sample_weight="a"), "sample_weight: expected numbers, got 'a'"),
    *(
        (lambda change=change: trainer(augmentation=lambda x, _: change(x)).fit(X, Y), "augmentation: expected imag")
        for change in (lambda x: None, lambda x: x[:1], lambda x: x[..., 1:])
    ),
    (lambda: make().fit(X, None), "y: expected labels (N,) or (N, 10), got None"),
    (lambda: make().predict(X.astype(object)), "x: expected an array or a torch tensor of inputs (N, ...), got an"),
    (lambda: make().get_activations(X, 0, batch_size=0), "batch_size: expected a whole number of at least 1, got 0"),
    (lambda: base(Pair()).predict(X), "model: expected one tensor of logits (B, K), the network returned a tuple"),
    (lambda: base(net(10).half()).predict(X), "model: inputs are torch.float32, and the network, whose parameters"),
    (lambda: base(net(10).double()).loss_gradient(X, Y), "model: inputs are torch.float32"),
    (lambda: make().fit(X, Y, batch_size=0), "batch_size: expected a whole number of at least 1, got 0"),
    (lambda: make().fit(X, Y, nb_epochs=-1), "nb_epochs: expected a whole number of at least 0, got -1"),
    (lambda: make().fit_generator(NumpyDataGenerator(X, Y + 1, 20)), "y has labels from 1 to 10, expected 0 to 9"),
    (lambda: make().predict(255 * X), "x ranges from 0"),
    (lambda: make().loss_gradient(255 * X, Y), "x ranges from 0"),
    (lambda: make().fit(X, 0 * EYE), "y: expected one-hot rows or probabilities"),
    (lambda: make("sce").fit(X, EYE + 1), "y: expected one-hot rows or probabilities"),
    (lambda: make().compute_loss(X, EYE - 0.1), "y: expected one-hot rows or probabilities"),
    (lambda: make().loss_gradient(X, make().predict(X)), "y: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, 5 * EYE), "y: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, Y, (X, 0 * EYE)), "validation labels: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, Y, X), "validation_data: expected a pair (inputs, labels)"),
    (lambda: trainer().fit(X, Y, (X * NAN, Y)), "validation inputs has NaN"),
    (lambda: trainer().fit(X, Y, batch_size=10**20), "batch_size: expected a whole number below 2**63, got 1000"),
    *doors(
        trainer,
        ({"averaging": "ema", "averaging_decay": NAN}, "averaging_decay: expected a number in [0, 1], got nan"),
        ({"averaging": "mean"}, "averaging: expected one of"),
        ({"precision": "float16"}, "precision: expected one of"),
        ({"keep": "first"}, "keep: expected one of"),
        ({"augmentation": "flop"}, "unknown augmentation 'flop'. Did you mean 'flip'"),
        *(({"clip_gradient": value}, "clip_gradient: expected a positive number") for value in (0, -1.0, NAN)),
        ({"averaging_start": -1}, "averaging_start: expected a whole number of at least 0, got -1"),
        ({"patience": 0}, "patience: expected a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": 2**32}, "seed: expected a whole number below 2**32"),
        ({"recipe": "default"}, "recipe: expected a Recipe, such as get_recipe('default'), got 'default'"),
        ({"augmentation": 3}, "augmentation: expected a name or a function, got 3"),
    ),
    *doors(
        lambda **given: trainer().fit(**{"x": X, "y": Y, **given}),
        ({"nb_epochs": 0}, "nb_epochs: expected a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"scheduler": 0.1}, "scheduler: expected something with a step"),
        ({"epochs": 3}, "fit() got unknown arguments: epochs"),
        ({"validation_data": (X[:2], np.array([0, 10]))}, "validation labels has labels from 0 to 10"),
        ({"x": X * 255}, "x ranges from 0"),
        ({"y": Y[:-1]}, "y has 19 labels for 20 samples"),
    ),
    (lambda: LossTrainer(plain(net(10))), "classifier: expected a LossDefendedClassifier, got PyTorchClassifier"),
    (lambda: MMCTrainer(make("sce")), "MMCTrainer trains defence 'mmc', got a SoftmaxClassifier"),
    (lambda: PCTrainer(make("pc"), warmup_epochs=-1), "warmup_epochs: expected a whole number of at least 0"),
    *(
        (lambda box=box, attack=attack, given=given: adversarial(box, attack, **given), message)
        for box, attack, given, message in [
            ((0, 1), "pgd", {"validation_attack": "pgd"}, "validation_attack: expected a strategy"),
            ((0, 1), PGD(8), {}, "eps: expected a number in (0, 1], inputs being in [0, 1], got 8; did you mean 8 /"),
            ((0, 1), PGD(0.1), {"validation_attack": PGD(8)}, "eps: expected a number in (0, 1], inputs being in"),
            ((0, 1), FastFGSM(2.0), {}, "eps: expected a number in (0, 1], inputs being in [0, 1], got 2; did you"),
            ((0, 255), PGD(256), {}, "eps: expected a number in (0, 255], inputs being in [0, 255], got 256"),
            ((0, 255), "pgd", {}, "eps: the default 0.0313725 is for inputs in [0, 1], and the classifier's"),
            ((-1, 1), "trades", {}, "eps: the default 0.0313725"),
            ((0, 1), "pgd", {"adv_ratio": 0.0}, "adv_ratio: expected"),
            ((0, 1), "pgd", {"eps_warmup": -1.0}, "eps_warmup: expected"),
        ]
    ),
    *doors(
        lambda **given: PGD(**{"eps": 0.1, **given}),
        ({"eps": 0}, "eps: expected a positive number"),
        ({"eps": "8/255"}, "eps: expected a number such as 0.1 or 8 / 255, got '8/255'"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"step_size": 0.0}, "step_size: expected a positive number"),
        ({"norm": 1}, "norm: expected 2 or infinity, got 1"),
        ({"targeted": "next"}, "targeted: expected one of"),
        ({"batch_norm": "test"}, "batch_norm: expected one of"),
        ({"eps_min": 0.2}, "eps_min"),
        ({"objective": "margn"}, "unknown objective 'margn'. Did you mean 'margin'?"),
        ({"tolerance": -1}, "tolerance: expected a whole number of at least 0, got -1"),
        ({"tolerance_epochs": ("5",)}, "tolerance: expected a whole number of at least 0, got '5'"),
        ({"eps": True}, "eps: expected a number such as 0.1 or 8 / 255, got True"),
    ),
    (lambda: FGSM(0.1, objective="margn"), "unknown objective 'margn'. Did you mean 'margin'?"),
    (lambda: FGSM(0.3, 0.1), "eps_max=0.1 is below eps=0.3"),
    (lambda: FGSM(25.5), "eps_max=0.3 (the default, for inputs in [0, 1]) is below eps=25.5: give it in the same"),
    (lambda: TRADES(0.1, beta=-1), "beta: expected"),
    (lambda: TRADES(0.1, start=-1), "start: expected"),
    (lambda: make().set_params(device_type="tpu"), "device_type: expected 'cpu' or 'gpu', got 'tpu'"),
    (lambda: make_crafting("pdg"), "unknown training attack 'pdg'. Did you mean 'pgd'"),
    (lambda: make_crafting("pgd", step=3), "unknown option of training attack 'pgd': 'step'. Did you mean 'steps'"),
    (lambda: evaluate_robustness(make(), X, Y, "much"), "eps: expected a number such as 0.1 or 8 / 255, got 'much'"),
    (lambda: evaluation(seed=1.5), "seed: expected a whole number of at least 0, got 1.5"),
    (lambda: evaluation(suite=3), "suite: expected the name of one, or AttackPlans, got 3"),
    (lambda: evaluation(substitutes=[3]), "substitutes: expected ART PyTorchClassifiers, got int"),
    (lambda: evaluation().evaluate(make(), X, 0 * EYE), "y: expected one-hot rows or probabilities"),
    *doors(
        RobustnessEvaluation,
        ({"suite": []}, "suite: expected at least one plan with a ball"),
        ({"suite": [AttackPlan("DeepFool", "deepfool")]}, "suite: expected at least one plan with a ball"),
        ({"suite": [PLAN, AttackPlan("L2", "fgsm", "margin", 1.0, 2)]}, "suite: expected at least one plan with"),
        ({"suite": [PLAN], "eps": 0.1}, "eps and quirks: plans of your own have their radii"),
        ({"suite": [PLAN], "quirks": ["eps256"]}, "eps and quirks: plans of your own have their radii, and no"),
        ({"suite": "quick"}, "suite 'quick' is no paper's protocol: eps is needed"),
        ({"suite": "quik", "eps": 0.1}, "unknown suite 'quik'. Did you mean 'quick'"),
        ({"suite": "quick", "eps": 0.1, "norm": 1}, "norm: expected 2 or infinity"),
        ({"suite": "quick", "eps": 0.1, "batch_size": 0}, "batch_size: expected"),
        ({"suite": "quick", "eps": -1.0, "norm": 2}, "eps: expected positive numbers"),
    ),
    *(
        (lambda x=x: evaluation().evaluate(*x[:3], **dict(x[3:])), message)
        for x, message in [
            (("net", X, Y), "classifier: expected an ART PyTorchClassifier, got str"),
            ((make(), X, Y, ("epsilon", 1)), "evaluate() got unknown arguments: epsilon"),
            ((make(), 16 * X, Y), "x ranges from 0.00304003 to 15.992, beyond the classifier's clip_values"),
        ]
    ),
    (lambda: evaluation(suite=[TRANSFER], eps=None, substitutes=[]).evaluate(make(), X, Y), "attack 'first' at eps 0"),
    (
        lambda: evaluation(eps=256).evaluate(make(clip_values=(0, 255)), 255 * X, Y),
        "eps: expected a number in (0, 255]",
    ),
    *doors(
        lambda **given: AttackPlan(**{"name": "A", "method": "pgd", "eps": 0.1, **given}),
        ({"method": "pgdd"}, "unknown attack method 'pgdd'. Did you mean 'pgd'"),
        ({"objective": "margn"}, "unknown objective 'margn'. Did you mean 'margin'"),
        ({"targets": "every"}, "unknown targets 'every'"),
        ({"labels": "mine"}, "unknown labels 'mine'"),
        ({"norm": 1}, "norm: expected 2 or infinity, got 1"),
        ({"eps": 0.0}, "attack 'A' needs an eps above 0, got 0.0"),
        ({"eps": math.inf}, "attack 'A' needs an eps above 0"),
        *(({each: 0}, "attack 'A': steps, step sizes, restarts and") for each in ("steps", "restarts", "samples")),
        ({"step_size": ()}, "attack 'A': steps, step sizes, restarts and samples are at least 1"),
        ({"method": "jsma", "eps": 0.0}, "attack 'A': jsma always aims at a class"),
        ({"method": "square", "targets": "all"}, "attack 'A': square aims at no class"),
        ({"method": "deepfool", "targets": "random"}, "attack 'A': deepfool aims at no class"),
        ({"method": "square", "transfer": True}, "attack 'A': square takes no gradients and needs no substitute"),
        ({"method": "spsa", "objective": "loss"}, "attack 'A': SPSA climbs a function of the logits"),
    ),
    *doors(
        lambda **given: evaluate_robustness(**{"classifier": make(), "x": X, "y": Y, "eps": 0.1, **given}),
        ({"classifier": "mmc"}, "classifier: expected a LossDefendedClassifier, got str"),
        ({"eps": 8}, "eps: expected a number in (0, 1], inputs being in [0, 1], got 8; did you mean 8 / 255?"),
        ({"eps": [0.1, 0]}, "eps: expected a number"),
        ({"eps": []}, "eps: expected at least one radius"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"x": X[:, 0]}, "x has shape (20, 8, 8), expected (N, 1, 8, 8)"),
        ({"x": X * NAN}, "x has NaN"),
        ({"y": Y + 1}, "y has labels from 1 to 10"),
        ({"y": Y[:1]}, "y has 1 labels for 20 samples"),
    ),
    (lambda: split_validation(X, Y, 0.5, seed=-1), "seed: expected a whole number of at least 0, got -1"),
    (lambda: get_suite("strongest"), "unknown suite 'strongest'. Did you mean 'strong'"),
    (lambda: build_attack("pgdd", make()), "unknown attack method 'pgdd'. Did you mean 'pgd'"),
    (lambda: get_suite("pang2020").build([0.1], quirks=["eps255"]), "unknown quirk 'eps255'. Did you mean"),
    (lambda: evaluation(suite="li2021", quirks=["eps256"]), "suite 'li2021-table1' has no quirk 'eps256'"),
    (lambda: evaluation(suite="strong", converged=1.0), "converged: expected a number in [0, 1)"),
    (lambda: evaluation(suite="strong", rounds=0), "rounds: expected a whole number of at least 1"),
    *(
        (lambda given=given: transfer_matrix(*given), message)
        for given, message in [
            (({}, X, Y, ATTACKS), "at least one classifier and one attack are needed"),
            (({"it": make()}, X, Y, {}), "at least one classifier and one attack are needed"),
            (({"it": make()}, X[:, :, :4], Y, ATTACKS), "x (for 'it') has shape"),
            (({"it": make()}, X, Y[:19], ATTACKS), "y has 19 labels for 20 samples"),
        ]
    ),
    (lambda: distilled_substitute(Target(TABLES, X[:, 0, 0]), X[:, 0, 0], 0.1), "a substitute can be trained for im"),
    (lambda: trainer(keep="best").fit(X, Y), "patience and keep='best' need validation_data, split off the training"),
    (lambda: trainer().fit(X, Y, resume=True), "resume=True needs the folder"),
    (lambda: trainer().fit_generator([(X, Y)]), "generator: expected an ART DataGenerator with get_batch(), got list"),
    (lambda: PCTrainer(make("pc"), warmup_epochs=3).fit(X, Y, nb_epochs=3), "warmup_epochs=3 leaves nothing of nb_ep"),
    (lambda: in_stages(make("pc")), "scheduler: two stages need two schedulers"),
    (lambda: RandomShift(2, "wrap"), "fill: expected 'nearest', 'zero' or 'reflect', got 'wrap'"),
    *(
        (lambda fit=fit, given=given: fit(X, Y, **given), message)
        for given, message in [
            ({"sample_weight": [1.0, 2.0]}, "sample_weight: expected one number for each of 20 samples, got shape"),
            ({"sample_weight": -np.ones(20)}, "sample_weight: expected finite numbers"),
            ({"sample_weight": NAN * np.ones(20)}, "sample_weight: expected finite numbers"),
            ({"scheduler": PLATEAU, "scheduler_interval": "batch"}, "scheduler_interval: a ReduceLROnPlateau looks at"),
            ({"scheduler": PLATEAU, "scheduler_interval": "bacth"}, "unknown scheduler_interval 'bacth'. Did you mean"),
        ]
        for fit in (make().fit, trainer().fit)
    ),
    (lambda: base(loss=mean_loss).fit(X, Y, sample_weight=np.ones(20)), "sample_weight: "),
    *(
        (lambda name=name, options=options: create_backbone(name, **{"input_shape": (1, 8, 8), **options}), message)
        for name, options, message in [
            ("resnet-20", {}, "unknown backbone 'resnet-20'. Did you mean 'resnet20'"),
            ("resnet20", {"activtion": "relu"}, "unknown option of backbone 'resnet20' 'activtion'. Did you mean 'ac"),
            ("resnet20", {"blocks": 4}, "unknown option of backbone 'resnet20' 'blocks'"),  # fixed by the name
            ("cnn", {"activation": "soft_plus"}, "unknown activation 'soft_plus'. Did you mean 'softplus'"),
            ("rce-resnet32", {"beta": 2.0}, "beta"),
            ("rce-resnet32", {"activation": "relu", "beta": 2.0}, "beta"),
            ("cnn", {"activation": "softplus", "beta": 0}, "beta: expected a positive number, got 0"),
            ("mmc-resnet32v1", {"out_features": 0}, "out_features: expected a whole number of at least 1, got 0"),
            *(
                ("cnn", {"input_shape": shape}, "input_shape: expected (C, H, W)")
                for shape in ((28, 28), (4, 3, 28, 28), (3, 32.0, 32), (0, 8, 8), 3)
            ),
        ]
    ),
    (lambda: wrap_backbone(lambda x: x, (3, 4, 4)), "wrap_backbone: expected a torch.nn.Module, got function"),
    (lambda: wrap_backbone(nn.Flatten(), (3, 0)), "input_shape: expected positive whole numbers"),
    (lambda: wrap_backbone(nn.Flatten(), (3, 4, 4), out_features=10), "wrap_backbone: the module gives 48 features"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=lambda each: each if isinstance(each, str) else "")
def test_what_is_wrong_is_refused_by_name(call, message):
    pattern = message.pattern if isinstance(message, re.Pattern) else re.escape(message)
    with pytest.raises((ValueError, TypeError, AttackError, IsADirectoryError), match=f"^{pattern}"):
        call()


@pytest.mark.parametrize("call", [lambda c: c.predict(X), lambda c: c.loss_gradient(X, Y)])
def test_what_a_network_raises_itself_is_not_changed(call):
    """From Python 3.11 on it has a note that names its place."""
    with pytest.raises(ZeroDivisionError, match="^division by zero") as caught:
        call(base(net(10, Ended(lambda z: 1 / 0))))
    assert all("raised by the network given as model (test_refusals.py" in note for note in caught.value.__notes__)


def without_optimizer(classifier):
    classifier.set_params(optimizer=None)
    return classifier


NAN_AT_1 = np.where(np.arange(20).reshape(-1, 1, 1, 1) == 1, np.float32(NAN), X)
#: what a classifier of "mmc" refuses
OF_A_CLASSIFIER = [
    (lambda c: setattr(c, "objective", "margn"), "unknown objective 'margn'. Did you mean"),
    (lambda c: c.set_params(objective="own"), "unknown objective 'own'"),
    (lambda c: c.set_params(model=copy.deepcopy(c.model), objectiv=1), "unknown parameter 'objectiv'"),
    *(
        (lambda c, model=model: c.set_params(model=model), message)
        for model, message in [
            (net(32), "expected a whole network with its head, a DefendedNet, got Sequential"),
            (make("sce").model, "head is a LinearHead, defence 'mmc' needs a FixedCentersHead"),
            (make(scale=5.0).model, "temperature 10.0, the head 2.5"),
            (make(nb_classes=4).model, "nb_classes=10, but the network's head has 4 classes"),
        ]
    ),
    (lambda c: c.set_params(clip_values=(1.0, 0.0)), "clip_values"),
    (lambda c: c.set_params(loss=MMCLoss()), "the loss would not undo the head's temperature"),
    (lambda c: c.set_params(use_amp=True), "use_amp=True needs NVIDIA apex"),
    (lambda c: c.compute_loss(X, Y, "avg"), "unknown reduction 'avg'"),
    (lambda c: c.load("absent"), "absent"),
    (lambda c: without_optimizer(c).fit(X, Y), "optimizer is needed"),
    (lambda c: without_optimizer(c).clone_for_refitting(), "optimizer is needed"),
    (lambda c: c.fit(X, Y, scheduler="cosine"), "expected something with a step(), got str"),
    (lambda c: c.fit(X * 255, Y), "far outside the clip_values (0, 1): scale the inputs (x / 255.0?)"),
    (lambda c: c.fit(NAN_AT_1, Y), "infinite values in 1 of 20 samples (first: 1)"),
    (lambda c: c.with_probabilities().with_probabilities(), "ends in a softmax already"),
    *(
        (lambda c, t=t: c.with_probabilities(t), "temperature: expected a positive number")
        for t in (0, -1.0, math.inf, NAN, "1")
    ),
    *(
        (lambda c, k=k: c.class_gradient(X[:7], label=k), "is out of range: expected 0 to 9")
        for k in (10, -1, 1.5, "1", [0, 1], np.array(3), np.full((7, 1), 3), np.full(7, 10), [0, 1, 2, 3, 4, 5, -1])
    ),
    *(
        (lambda c, layer=layer: c.get_activations(X, layer), message)
        for layer, message in [
            ("embeding", "unknown layer 'embeding'. Did you mean 'embedding'?"),
            (5, "layer 5 is out of range: the network has 5 layers"),
            (-6, "layer -6 is out of range"),
            (None, "Layer must be of type str or int"),
            (1.0, "Layer must be of type str or int"),
            ("backbone.module.drop.x", "unknown layer"),
        ]
    ),
    *(
        (lambda c, call=call, x=x: call(c, x, np.zeros(max(len(x), 1), int)), message)
        for x, message in [
            (X[0], "x has shape (1, 8, 8), expected (N, 1, 8, 8); for a single sample pass x[None]"),
            (np.full((3, 1, 8, 8), 200, np.uint8), "x holds integers up to 200: inputs are floats, in the papers in"),
        ]
        for call in (
            lambda c, x, y: c.predict(x),
            lambda c, x, y: c.fit(x, y, nb_epochs=1),
            lambda c, x, y: c.loss_gradient(x, y),
            lambda c, x, y: c.compute_loss(x, y),
            lambda c, x, y: c.class_gradient(x),
            lambda c, x, y: c.get_activations(x, 0),
        )
    ),
    *(
        (lambda c, call=call, y=y: call(c, X[:3], y), message)
        for y, message in [
            (np.array([0, 4, 10]), "y has labels from 0 to 10, expected 0 to 9 (nb_classes=10)"),
            (np.array([1, 2]), "y has 2 labels for 3 samples"),
            (np.zeros((3, 7)), "y has shape (3, 7), expected (N,) indices or (N, 10) one-hot labels"),
        ]
        for call in (
            lambda c, x, y: c.fit(x, y, nb_epochs=1),
            lambda c, x, y: c.loss_gradient(x, y),
            lambda c, x, y: c.compute_loss(x, y),
        )
    ),
]


@pytest.mark.parametrize(("call", "message"), OF_A_CLASSIFIER, ids=lambda value: value if type(value) is str else "")
def test_what_a_classifier_refuses_changes_nothing(call, message):
    classifier = make()
    classifier.fit(X, Y, nb_epochs=1)
    for i, module in enumerate(classifier.model.modules()):
        module.training = i % 2 == 0

    def state():
        return {**traces(classifier._model), "objective": classifier.objective, "attributes": sorted(vars(classifier))}

    before = state()
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=re.escape(message)):
        call(classifier)
    assert_same(before, state())


def test_what_looks_like_it_and_is_right_passes():
    """Features of either sign that the user says so of, two of them, a part of the parameters, smoothed labels."""
    signed = wrap_backbone(net(10), (1, 8, 8), linear_output=True)
    assert make(backbone=signed).predict(X).shape == make(backbone=Curved()).predict(X).shape == (20, 10)
    two = net(2)
    assert make(backbone=two, optimizer=torch.optim.SGD(two[1:].parameters(), 0.1)).predict(X + 2).shape == (20, 10)
    make("sce").fit(X, 0.9 * EYE + 0.01, nb_epochs=1)
    make().fit(X, EYE.astype(np.float16), nb_epochs=0)


@pytest.mark.parametrize("defence", [HighConfidence(0.2), ReverseSigmoid(), Rounded(2)])
def test_postprocessing_for_probabilities_is_warned_of_and_works_on_the_view_that_gives_them(defence, caplog):
    classifier = make("sce", postprocessing_defences=defence)
    assert ("made for probabilities" in caplog.text) == (not isinstance(defence, Rounded))
    shares = torch.softmax(torch.from_numpy(make("sce", classifier.model).predict(X)), dim=1).numpy()
    found = classifier.with_probabilities().predict(X)
    np.testing.assert_allclose(found, defence(shares), atol=1e-6)
