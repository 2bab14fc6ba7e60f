"""
The cases, one row each: attacks, prediction, training, losses, centers and memory of this package beside what it
replaces. Command line, report and tests walk over the table.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from art_mmc.attacks.build import build_attack
from art_mmc.bench import measure
from art_mmc.bench.measure import ART, BY_HAND, OURS, Settings
from art_mmc.bench.subjects import BATCH, SHAPES, TITLES, classifiers, images, network, optimizer, pgd_steps, repeatable
from art_mmc.checks import check_name
from art_mmc.classifiers import create_classifier
from art_mmc.defences import get_defence
from art_mmc.geometry import max_mahalanobis_centers
from art_mmc.heads import CenterTrackingHead
from art_mmc.state import seeded
from art_mmc.studies.setup import ORDER

#: radius and step for grey and for colour images, so small that the attacks leave some: that they agree says something
_RADII = {"lenet5": (0.02, 0.005), "resnet20": (8 / 255, 2 / 255)}

STEPS = 10

#: width of the features that the center loss pulls
_WIDTH = 64


def make_attack(name: str, classifier: Any, backbone: str, batch_size: int, steps: int = STEPS) -> Any:
    """ART's attack at the backbone's radius; C&W and DeepFool take half as many steps, Square twice as many."""
    eps, step = _RADII[backbone]
    own: dict[str, dict[str, Any]] = {
        "cw": {"steps": steps // 2, "step_size": 0.01, "binary_search_steps": 2, "initial_const": 1.0},
        "deepfool": {"steps": steps // 2},
        "square": {"steps": 2 * steps},
    }
    settings = {"eps": eps, "steps": steps, "step_size": step, **own.get(name, {})}
    return build_attack(name, classifier, batch_size=batch_size, **settings)


def _accuracy(classifier: Any, y: np.ndarray) -> measure.Check:
    def score(x_adv: np.ndarray) -> float:
        return 100 * float((classifier.predict(x_adv).argmax(axis=1) == y).mean())

    return measure.Check("robust accuracy, %", score, close=0.2, gross=10.0)


def _generate(name: str, classifier: Any, backbone: str, x: np.ndarray, y: np.ndarray, settings: Settings) -> Any:
    attack = make_attack(name, classifier, backbone, min(len(x), BATCH), settings.size(STEPS, 2))
    return repeatable(lambda: attack.generate(x, y))


def attack_contest(name: str, backbone: str, samples: int, settings: Settings) -> measure.Contest:
    x, y = images(SHAPES[backbone], settings.size(samples, 4))
    who = classifiers(backbone, settings)

    def distance(x_adv: np.ndarray) -> float:
        return float(np.linalg.norm((x_adv - x).reshape(len(x), -1), axis=1).mean())

    near = measure.Check("mean L2 distance", distance, close=0.02, gross=0.5, relative=True)
    return measure.Contest(
        {each: _generate(name, classifier, backbone, x, y, settings) for each, classifier in who.items()},
        note=f"{TITLES[backbone]}, 10 classes, {len(x)} images, batch {min(len(x), BATCH)}",
        check=near if name in ("cw", "deepfool") else _accuracy(who[ART], y),
    )


def by_hand_contest(backbone: str, samples: int, settings: Settings) -> measure.Contest:
    """ART's PGD on our class beside a hand-written loop in the memory format that suits it better here."""
    samples, steps = settings.size(samples, 4), settings.size(STEPS, 2)
    x, y = images(SHAPES[backbone], samples)
    who = classifiers(backbone, settings)

    def loop(layout: torch.memory_format) -> Callable[[], np.ndarray]:
        frozen: Any = network(backbone, settings).to(settings.device).requires_grad_(False)
        frozen = frozen.to(memory_format=layout)

        def run() -> np.ndarray:
            done = []
            for clean, labels in zip(torch.from_numpy(x).split(BATCH), torch.from_numpy(y).split(BATCH), strict=True):
                clean = clean.to(settings.device).contiguous(memory_format=layout)
                steps_of = pgd_steps(frozen, clean, labels.to(settings.device), *_RADII[backbone], steps)
                done.append(steps_of.contiguous())
            return torch.cat(done).cpu().numpy()

        return run

    loops = {"contiguous": loop(torch.contiguous_format), "channels last": loop(torch.channels_last)}
    best = min(loops, key=lambda layout: min(measure.seconds(loops[layout]) for _ in range(3)))
    theirs = who.pop(ART)
    ours = {each: _generate("pgd", classifier, backbone, x, y, settings) for each, classifier in who.items()}
    return measure.Contest(
        {f"{BY_HAND}, {best}": loops[best], **ours},
        note=f"{TITLES[backbone]}, {samples} images, batch {min(samples, BATCH)}; ART's attack ends with a prediction "
        "of the images before and after it, which the loop does without",
        check=_accuracy(theirs, y),
    )


def spsa_contest(samples: int, settings: Settings) -> measure.Contest:
    """Our SPSA on our class beside torchattacks' if that is installed."""
    from art_mmc.attacks import SPSA

    samples, steps, eps = settings.size(samples, 2), settings.size(5, 1), _RADII["lenet5"][0]
    x, y = images(SHAPES["lenet5"], samples)
    who = classifiers("lenet5", settings)
    theirs = who.pop(ART)
    contenders: dict[str, Callable[[], Any]] = {}
    alone = importlib.util.find_spec("torchattacks") is None
    if not alone:
        import torchattacks  # type: ignore[import-not-found, unused-ignore]

        other = torchattacks.SPSA(
            theirs.model, eps=eps, delta=0.01, lr=0.01, nb_iter=steps, nb_sample=128, max_batch_size=64
        )
        contenders["torchattacks"] = lambda: other(torch.from_numpy(x), torch.from_numpy(y)).cpu().numpy()
    options: dict[str, Any] = {"eps": eps, "learning_rate": 0.01, "max_iter": steps, "nb_samples": 128}
    options |= {"random_start": False, "early_stop": False, "seed": 0, "verbose": False}
    for each, classifier in who.items():
        contenders[each] = partial(SPSA(classifier, **options).generate, x, y)
    note = f"{TITLES['lenet5']}, {samples} images, {steps} steps of 128 samples, all steps gone"
    return measure.Contest(
        contenders, note + ("; torchattacks is not installed" if alone else ""), asked_of=() if alone else (OURS,)
    )


def predict_contest(samples: int, settings: Settings) -> measure.Contest:
    x, _ = images(SHAPES["lenet5"], settings.size(samples, 20))

    def largest(logits: np.ndarray) -> float:
        return float(logits.max(axis=1).mean())

    return measure.Contest(
        {who: partial(each.predict, x, batch_size=BATCH) for who, each in classifiers("lenet5", settings).items()},
        note=f"{TITLES['lenet5']}, {len(x)} images, batch {BATCH}",
        check=measure.Check("mean of the largest logit", largest, close=0.001, gross=0.05, relative=True),
    )


def _by_hand(
    backbone: str,
    x: np.ndarray,
    y: np.ndarray,
    settings: Settings,
    craft: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> Callable[[], None]:
    """One epoch in a loop written by hand, in the memory format of our own."""
    net: Any = network(backbone, settings).to(settings.device)
    net = net.to(memory_format=torch.channels_last)
    sgd = optimizer(net)

    def run() -> None:
        x_all, y_all = torch.from_numpy(x).to(settings.device), torch.from_numpy(y).to(settings.device)
        for index in torch.randperm(len(x), device=settings.device).split(min(len(x), BATCH)):
            batch, labels = x_all[index].contiguous(memory_format=torch.channels_last), y_all[index]
            if craft is not None:
                batch = craft(net.eval().requires_grad_(False), batch, labels)
            net.train().requires_grad_(True)
            sgd.zero_grad()
            functional.cross_entropy(net(batch), labels).backward()
            sgd.step()

    return run


def _epoch(runs: dict[str, Callable[[], Any]], backbone: str, x: np.ndarray, more: str) -> measure.Contest:
    note = f"{TITLES[backbone]}, one epoch of {len(x)} images, batch {min(len(x), BATCH)}, {more}"
    return measure.Contest({who: repeatable(run) for who, run in runs.items()}, note)


def fit_contest(samples: int, settings: Settings) -> measure.Contest:
    """`fit` of ART's class, of ours, and a loop by hand, each on a network of its own."""
    x, y = images(SHAPES["lenet5"], settings.size(samples, 20))
    who = classifiers("lenet5", settings.plain)
    runs = {name: partial(each.fit, x, y, batch_size=BATCH, nb_epochs=1) for name, each in who.items()}
    return _epoch({**runs, BY_HAND: _by_hand("lenet5", x, y, settings)}, "lenet5", x, "SGD with momentum")


def _our_trainer(backbone: str, attack: Any, precision: str, x: np.ndarray, y: np.ndarray, settings: Settings) -> Any:
    from art_mmc.trainers import AdversarialLossTrainer

    with seeded(0):
        classifier = create_classifier(
            "sce", backbone, input_shape=SHAPES[backbone], nb_classes=10, device_type=settings.device_type
        )
    classifier._optimizer = optimizer(classifier.model)
    trainer = AdversarialLossTrainer(classifier, attack, precision=precision, seed=0, verbose=False)
    return partial(trainer.fit, x, y, batch_size=min(len(x), BATCH), nb_epochs=1)


def adversarial_training_contest(samples: int, settings: Settings) -> measure.Contest:
    """ART's trainer, this package's in float32 and in bfloat16, and a minimal loop that does the same work."""
    from art.defences.trainer import AdversarialTrainerMadryPGD

    from art_mmc.trainers import PGD

    backbone, steps, (eps, step) = "resnet20", settings.size(7, 1), _RADII["resnet20"]
    x, y = images(SHAPES[backbone], settings.size(samples, 4))
    ball: dict[str, Any] = {"eps": eps, "eps_step": step, "max_iter": steps, "num_random_init": 1}
    stock = classifiers(backbone, settings.plain)[ART]
    madry = AdversarialTrainerMadryPGD(stock, nb_epochs=1, batch_size=min(len(x), BATCH), **ball)
    ours = partial(_our_trainer, backbone, PGD(eps, steps=steps, step_size=step), x=x, y=y, settings=settings)
    runs: dict[str, Any] = {
        f"{ART} AdversarialTrainerMadryPGD": partial(madry.fit, x, np.eye(10, dtype=np.float32)[y], nb_epochs=1),
        OURS: ours("float32"),
        f"{BY_HAND}, channels last": _by_hand(
            backbone, x, y, settings, lambda net, clean, labels: pgd_steps(net, clean, labels, eps, step, steps)
        ),
        f"{OURS}, bfloat16": ours("bfloat16"),
    }
    return _epoch(runs, backbone, x, f"PGD with {steps} steps")


def trades_contest(samples: int, settings: Settings) -> measure.Contest:
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch

    from art_mmc.trainers import TRADES

    backbone, steps, (eps, step) = "lenet5", settings.size(7, 1), (0.1, 0.025)
    x, y = images(SHAPES[backbone], settings.size(samples, 4))
    stock, batch_size = classifiers(backbone, settings.plain)[ART], min(len(x), BATCH)
    inner = build_attack("pgd", stock, eps=eps, step_size=step, steps=steps, batch_size=batch_size)
    theirs = partial(AdversarialTrainerTRADESPyTorch(stock, inner, beta=6.0).fit, x, np.eye(10, dtype=np.float32)[y])
    runs: dict[str, Any] = {
        f"{ART} AdversarialTrainerTRADES": partial(theirs, nb_epochs=1, batch_size=batch_size),
        OURS: _our_trainer(backbone, TRADES(eps, steps=steps, step_size=step), "float32", x, y, settings),
    }
    note = f"{steps} steps; ART's climbs the cross-entropy and predicts the whole set again after each epoch, ours the "
    return _epoch(runs, backbone, x, note + "divergence, as in the paper")


def step_contest(backbone: str, settings: Settings) -> measure.Contest:
    """A training step by each of the nine losses beside one by torch's cross-entropy on the same network."""
    batch = settings.size(BATCH, 4)
    x, y = (torch.from_numpy(each).to(settings.device) for each in images(SHAPES[backbone], batch))

    def step_of(defence: str, **options: Any) -> tuple[str, Callable[[], object]]:
        shape: dict[str, Any] = {"input_shape": SHAPES[backbone], "nb_classes": 10}
        with seeded(0):
            classifier = create_classifier(defence, backbone, **shape, device_type=settings.device_type, **options)
        classifier._optimizer = optimizer(classifier.model)

        def step() -> None:
            with classifier.training():
                classifier.train_batch(x, y)

        net: Any = classifier.model
        added = "" if isinstance(net.projection, nn.Identity) else " behind a linear layer"
        return type(net.head).__name__ + added, step

    steps = {defence: step_of(defence) for defence in ORDER}
    contenders: dict[str, Callable[[], object]] = {}
    references: dict[str, str] = {}
    for head in dict.fromkeys(head for head, _ in steps.values()):
        defences = [defence for defence in ORDER if steps[defence][0] == head]
        reference = f"torch cross-entropy ({head})"
        contenders[reference] = step_of(defences[0], loss=nn.CrossEntropyLoss())[1]
        contenders |= {defence: steps[defence][1] for defence in defences}
        references |= dict.fromkeys((reference, *defences), reference)
    return measure.Contest(
        contenders,
        note=f"{TITLES[backbone]}, batch {batch}, SGD with momentum; on the same network, with the defence's own head",
        asked_of=ORDER,
        repeats=settings.size(2 if backbone == "lenet5" else 1, 1),  # a difference of a few percent of 7 ms
        references=references,
    )


def loss_contest(nb_classes: int, settings: Settings) -> measure.Contest:
    """Each of the nine losses, forward and backward, beside torch's cross-entropy."""
    device = settings.device
    draw = torch.Generator().manual_seed(0)
    values = 3 * torch.randn(BATCH, nb_classes, generator=draw)
    features = torch.randn(BATCH, _WIDTH, generator=draw)
    y = torch.randint(nb_classes, (BATCH,), generator=draw).to(device)

    def contender(loss: Callable[..., torch.Tensor], head: Any = None) -> Callable[[], object]:
        logits: Any = values.to(device, copy=True).requires_grad_(True)
        inputs = [logits]
        if isinstance(head, CenterTrackingHead):  # what it hands over with the logits
            inputs.append(features.to(device, copy=True).requires_grad_(True))
            logits.features, logits.center_head = inputs[1], head.to(device).train()
        return lambda: torch.autograd.grad(loss(logits, y), inputs)

    contenders = {"torch cross-entropy": contender(functional.cross_entropy)}
    for name in ORDER:
        row = get_defence(name)
        with seeded(0):  # as wide as there are classes, so that centers come in closed form
            head, loss = row.build(_WIDTH if row.head is CenterTrackingHead else nb_classes, nb_classes)
        contenders[name] = contender(loss, head)
    return measure.Contest(
        contenders,
        note=f"logits ({BATCH}, {nb_classes}), mean of the batch and its gradient; the center loss' pull on features "
        f"of width {_WIDTH} and its update of the centers included",
        asked_of=ORDER,
        repeats=settings.size(200 if nb_classes < 100 else 50, 1),
    )


def centers_contest(nb_classes: int, dim: int, settings: Settings) -> measure.Contest:
    """Our centers beside the algorithm as the MMLDA paper writes it down."""
    nb_classes, dim = settings.size((nb_classes, dim), (10, 16))

    def smallest_distance(centers: np.ndarray) -> float:
        squares = (centers**2).sum(axis=1)
        distances = squares[:, None] + squares - 2 * centers @ centers.T
        np.fill_diagonal(distances, np.inf)
        return float(np.sqrt(max(distances.min(), 0.0)))

    return measure.Contest(
        {
            "Algorithm 1 of the MMLDA paper, numpy": lambda: algorithm_1(nb_classes, dim),
            OURS: lambda: max_mahalanobis_centers(nb_classes, dim).numpy(),
        },
        note=f"{nb_classes} centers of dimension {dim}",
        check=measure.Check(
            "smallest distance of two centers", smallest_distance, close=1e-4, gross=1e-2, relative=True
        ),
    )


def algorithm_1(nb_classes: int, dim: int) -> np.ndarray:
    """
    Max-Mahalanobis centers row by row: (L, dim), of norm 1, for dim >= L - 1.

    | Paper link: https://arxiv.org/abs/1802.09308 (Algorithm 1)
    """
    centers = np.zeros((nb_classes, dim))
    centers[0, 0] = 1.0
    for i in range(1, nb_classes):
        for j in range(i):
            centers[i, j] = -(1 / (nb_classes - 1) + centers[i] @ centers[j]) / centers[j, j]
        if i < dim:
            centers[i, i] = np.sqrt(abs(1.0 - centers[i] @ centers[i]))
    return centers


def memory_contest(case: str, settings: Settings) -> measure.Contest:
    """The peak memory of the two classes in another case, in a fresh process each time."""
    where = "torch's allocations on the GPU" if settings.device_type != "cpu" else "resident memory of a fresh process"
    return measure.Contest(
        {who: partial(measure.in_fresh_process, case_megabytes, case, who, asdict(settings)) for who in (ART, OURS)},
        note=f"the job {case}; rise of {where} above what network, inputs and a small first run take",
        unit="MB",
    )


def case_megabytes(case: str, contender: str, settings: dict[str, Any]) -> float:
    """The peak memory of one contender; to be called in a fresh process."""
    asked, build = Settings(**{**settings, "trained": False}), find_case(case).build
    # the first run loads code and makes tables that later ones find; it is not what the case needs
    build(replace(asked, quick=True)).contenders[contender]()
    return measure.peak_megabytes(build(asked).contenders[contender], asked.device)


_PGD = "ART ProjectedGradientDescent, 10 steps"
_LOOP = "ART ProjectedGradientDescent, 10 steps, beside a hand-written loop"


def _attack(
    name: str, title: str, backbone: str, samples: int, goal: float | None = None, turns: int = 1
) -> measure.Case:
    return measure.Case(
        f"{name}-{backbone}", "attacks", title, partial(attack_contest, name, backbone, samples), goal, turns
    )


def _memory(name: str, title: str, case: str) -> measure.Case:
    # no more, but that two runs of one and the same contender differ by about 2 %
    return measure.Case(f"memory-{name}", "memory", f"peak memory of {title}", partial(memory_contest, case), 1.02)


#: name -> case
CASES: dict[str, measure.Case] = {
    case.name: case
    for case in (
        _attack("fgsm", "ART FastGradientMethod", "lenet5", 1024),
        _attack("pgd", _PGD, "lenet5", 256, 0.55, turns=4),
        _attack("mim", "ART MomentumIterativeMethod, 10 steps", "lenet5", 256),
        _attack("apgd", "ART AutoProjectedGradientDescent, 10 steps", "lenet5", 128),
        _attack("cw", "ART CarliniL2Method, 2 x 5 steps", "lenet5", 128, 0.25),
        _attack("deepfool", "ART DeepFool, 5 steps", "lenet5", 128, 0.67),
        _attack("square", "ART SquareAttack, 20 queries", "lenet5", 256),
        _attack("fgsm", "ART FastGradientMethod", "resnet20", 128),
        _attack("pgd", _PGD, "resnet20", 128, 0.55, turns=2),
        _attack("cw", "ART CarliniL2Method, 2 x 5 steps", "resnet20", 16, 0.25),
        _attack("deepfool", "ART DeepFool, 5 steps", "resnet20", 32, 0.67),
        measure.Case("pgd-by-hand-lenet5", "attacks", _LOOP, partial(by_hand_contest, "lenet5", 256), 1.05, 6),
        measure.Case("pgd-by-hand-resnet20", "attacks", _LOOP, partial(by_hand_contest, "resnet20", 128), 1.05, 2),
        measure.Case("spsa-lenet5", "attacks", "SPSA beside torchattacks'", partial(spsa_contest, 16)),
        measure.Case("predict-lenet5", "predict", "predict", partial(predict_contest, 10_000), 0.77),
        measure.Case("fit-lenet5", "fit", "fit", partial(fit_contest, 2560), 0.77, turns=4),
        measure.Case(
            "adversarial-training", "training", "adversarial training", partial(adversarial_training_contest, 256), 0.55
        ),
        measure.Case("trades", "training", "TRADES", partial(trades_contest, 512)),
        measure.Case("step-lenet5", "training", "training step", partial(step_contest, "lenet5"), 1.05, 20),
        measure.Case("step-resnet20", "training", "training step", partial(step_contest, "resnet20"), 1.05, 4),
        measure.Case("loss-10", "losses", "loss, forward and backward", partial(loss_contest, 10), turns=2),
        measure.Case("loss-1000", "losses", "loss, forward and backward", partial(loss_contest, 1000), turns=2),
        measure.Case("centers-10", "centers", "Max-Mahalanobis centers", partial(centers_contest, 10, 64)),
        measure.Case("centers-1000", "centers", "Max-Mahalanobis centers", partial(centers_contest, 1000, 1024)),
        _memory("pgd", "PGD", "pgd-resnet20"),
        _memory("cw", "C&W", "cw-lenet5"),
        _memory("predict", "predict", "predict-lenet5"),
        _memory("fit", "fit", "fit-lenet5"),
    )
}


def find_case(name: str) -> measure.Case:
    """The case of a name; ValueError for an unknown one, with the nearest known one."""
    return CASES[check_name("job", name, CASES)]
