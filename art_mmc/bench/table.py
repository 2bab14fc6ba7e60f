"""
The table of jobs; command line, report and tests walk over it.
"""

from __future__ import annotations

from functools import partial

from art_mmc.bench import attacks, losses, memory, training
from art_mmc.bench.contest import Asked, Job, at_most, faster
from art_mmc.checks import unknown_name

#: no more; two runs of one and the same contender differ by about so much
_NO_MORE = Asked(1.02, "<= 1.00, to 2 %")


def _attack(name: str, title: str, backbone: str, samples: int, asked: Asked | None = None, turns: int = 1) -> Job:
    build = partial(attacks.attack_contest, name, backbone, samples)
    return Job(f"{name}-{backbone}", "attacks", title, build, asked, turns)


def _by_hand(backbone: str, samples: int, turns: int) -> Job:
    title = "ART ProjectedGradientDescent, 10 steps, beside a hand-written loop"
    build = partial(attacks.by_hand_contest, backbone, samples)
    return Job(f"pgd-by-hand-{backbone}", "attacks", title, build, at_most(1.05), turns)


_ROWS = (
    _attack("fgsm", "ART FastGradientMethod", "lenet5", 1024),
    _attack("pgd", "ART ProjectedGradientDescent, 10 steps", "lenet5", 256, faster(2.0), turns=4),
    _attack("mim", "ART MomentumIterativeMethod, 10 steps", "lenet5", 256),
    _attack("apgd", "ART AutoProjectedGradientDescent, 10 steps", "lenet5", 128),
    _attack("cw", "ART CarliniL2Method, 2 x 5 steps", "lenet5", 128, faster(4.0)),
    _attack("deepfool", "ART DeepFool, 5 steps", "lenet5", 128, faster(1.5)),
    _attack("square", "ART SquareAttack, 20 queries", "lenet5", 256),
    _attack("fgsm", "ART FastGradientMethod", "resnet20", 128),
    _attack("pgd", "ART ProjectedGradientDescent, 10 steps", "resnet20", 128, faster(2.0), turns=2),
    _attack("cw", "ART CarliniL2Method, 2 x 5 steps", "resnet20", 16, faster(4.0)),
    _attack("deepfool", "ART DeepFool, 5 steps", "resnet20", 32, faster(1.5)),
    _by_hand("lenet5", 256, turns=6),
    _by_hand("resnet20", 128, turns=2),
    Job("spsa-lenet5", "attacks", "SPSA beside torchattacks'", partial(attacks.spsa_contest, 16)),
    Job("predict-lenet5", "predict", "predict", partial(training.predict_contest, 10_000), faster(1.3)),
    Job("fit-lenet5", "fit", "fit", partial(training.fit_contest, 2560), faster(1.3), turns=4),
    Job("adversarial-training", "training", "adversarial training", training.adversarial_training_contest),
    Job("trades", "training", "TRADES", training.trades_contest),
    Job("step-lenet5", "training", "training step", partial(training.step_contest, "lenet5"), at_most(1.03), turns=20),
    Job(
        "step-resnet20", "training", "training step", partial(training.step_contest, "resnet20"), at_most(1.03), turns=4
    ),
    Job("loss-10", "losses", "loss, forward and backward", partial(losses.loss_contest, 10), at_most(3.0), turns=2),
    Job("loss-1000", "losses", "loss, forward and backward", partial(losses.loss_contest, 1000), at_most(3.0), turns=2),
    Job("centers-10", "centers", "Max-Mahalanobis centers", partial(losses.centers_contest, 10, 64)),
    Job("centers-1000", "centers", "Max-Mahalanobis centers", partial(losses.centers_contest, 1000, 1024)),
    Job("memory-pgd", "memory", "peak memory of PGD", partial(memory.memory_contest, "pgd-resnet20"), _NO_MORE),
    Job("memory-cw", "memory", "peak memory of C&W", partial(memory.memory_contest, "cw-lenet5"), _NO_MORE),
    Job(
        "memory-predict", "memory", "peak memory of predict", partial(memory.memory_contest, "predict-lenet5"), _NO_MORE
    ),
    Job("memory-fit", "memory", "peak memory of fit", partial(memory.memory_contest, "fit-lenet5"), _NO_MORE),
    Job(
        "largest-batch",
        "memory",
        "largest batch of PGD that fits",
        memory.largest_batch_contest,
        Asked(1.0, ">= 1.00", more_is_better=True),
        cuda_only=True,
    ),
)

#: name -> job
JOBS: dict[str, Job] = {job.name: job for job in _ROWS}

#: names of the groups, in order; the curves of growth are a group of their own
GROUPS = (*dict.fromkeys(job.group for job in _ROWS), "growth")


def find_job(name: str) -> Job:
    """
    :param name: Name of a job.
    :return: The job.
    :raises ValueError: For an unknown name, with the nearest known one.
    """
    if name not in JOBS:
        raise unknown_name("job", name, JOBS)
    return JOBS[name]
