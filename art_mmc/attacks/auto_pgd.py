"""
APGD: projected gradients whose step follows the progress, on any objective, towards several classes in turn.

| Paper link: https://arxiv.org/abs/2003.01690
"""

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.attacks.white_box import Ball, Found, ObjectiveAttack, Question, per_sample
from art_mmc.objectives import Objective

#: share of a window's steps that must go up, and weight of the last step against the momentum
_RHO, _MOMENTUM = 0.75, 0.75


def checkpoints(max_iter: int) -> list[int]:
    """
    After how many of N steps the progress is looked at, ascending, none above N: `w_j = ceil(p_j N)` from w_1 on, with
    `p_0 = 0`, `p_1 = 0.22` and `p_{j + 1} = p_j + max(p_j - p_{j - 1} - 0.03, 0.06)`.

    | Paper link: https://arxiv.org/abs/2003.01690
    """
    last, next_one, found = 0, 22, []  # hundredths, which add up without rounding
    while next_one <= 100:
        found.append(-(-next_one * max_iter // 100))
        last, next_one = next_one, next_one + max(next_one - last - 3, 6)
    return sorted(set(found))


def auto_pgd(
    question: Question, ball: Ball, x: torch.Tensor, start: torch.Tensor, eps: float, max_iter: int, early_stop: bool
) -> Found:
    """
    Maximise in a ball about inputs (B, ...) of the box, from points of it: steps of 2 eps at first, along the gradient
    (its sign in L-inf) and with a quarter of the last step's momentum. At each checkpoint a step that went up in less
    than three quarters of the steps since the last one, or without a new best since then, is halved, and the search
    goes on from the best point. With `early_stop` a sample is left alone once an example is found.

    | Paper link: https://arxiv.org/abs/2003.01690 (Algorithm 1)
    """
    rows = torch.arange(len(x), device=x.device)
    values, gradients, hit, _ = question(start, rows)
    found = Found(start, early_stop)
    found.see(rows, start, hit, values)
    point, previous = start, start
    best, best_values, best_gradients = start, values, gradients
    step = torch.full_like(values, 2 * eps)
    ups, halved, reference = torch.zeros_like(values), torch.ones_like(hit), values
    due, window_start = set(checkpoints(max_iter)), 0
    leave_at = range(max_iter) if x.device.type == "cpu" else due  # elsewhere looking means waiting
    for number in range(max_iter):
        if early_stop and number in leave_at:
            going = ~found.hit[rows]
            if not going.all():
                rows, point, previous, best = (each[going] for each in (rows, point, previous, best))
                if not len(rows):
                    break
                gradients, best_gradients, step = (each[going] for each in (gradients, best_gradients, step))
                values, best_values, reference = (each[going] for each in (values, best_values, reference))
                ups, halved = ups[going], halved[going]
        clean = x[rows]
        ahead = ball.project(point + per_sample(step, point) * ball.direction(gradients), clean, eps)
        if number:
            ahead = point + _MOMENTUM * (ahead - point) + (1 - _MOMENTUM) * (point - previous)
            ahead = ball.project(ahead, clean, eps)
        previous, point = point, ahead
        before = values
        values, gradients, hit, _ = question(point, rows)
        ups = ups + (values > before)
        better = values > best_values
        best, best_gradients = (
            torch.where(per_sample(better, best), new, old) for new, old in ((point, best), (gradients, best_gradients))
        )
        best_values = torch.where(better, values, best_values)
        found.see(rows, point, hit, values)
        if number + 1 in due:
            stalled = (ups < _RHO * (number + 1 - window_start)) | (~halved & (best_values <= reference))
            step = torch.where(stalled, step / 2, step)
            point, gradients = (
                torch.where(per_sample(stalled, point), new, old)
                for new, old in ((best, point), (best_gradients, gradients))
            )
            values = torch.where(stalled, best_values, values)
            ups, halved, reference, window_start = torch.zeros_like(ups), stalled, best_values, number + 1
    return found


class AutoPGD(ObjectiveAttack):
    """
    APGD: projected gradient steps of 2 eps at first, that are halved where they stop to make progress, with a momentum
    and without a step size to choose (:func:`auto_pgd`). On any objective: `AutoPGD(classifier, objective="dlr")` is
    the paper's APGD-DLR and `"cross_entropy"` its APGD-CE. With `nb_targets` it aims at the classes with the highest
    logits at the image in turn, the true one left out: `AutoPGD(classifier, objective="dlr", nb_targets=9)` is
    APGD-T. An image for which an example is found leaves, and those that are left fill the batches again.

    ART's `AutoProjectedGradientDescent` knows the cross-entropy, the untargeted DLR and the classifier's own loss; it
    gives up a whole batch once one loss is zero, and has no targets of its own.

    What is returned is the first example that is found; without `early_stop` that of the largest objective. Where none
    is found it is the point of the largest objective, or with `nb_targets` of the largest margin.

    | Paper link: https://arxiv.org/abs/2003.01690
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        norm: int | float | str = np.inf,
        eps: float = 8 / 255,
        max_iter: int = 100,
        objective: str | Objective = "margin",
        nb_restarts: int = 1,
        targeted: bool = False,
        nb_targets: int = 0,
        early_stop: bool = True,
        batch_size: int = 128,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create an :class:`.AutoPGD` instance.

        :param classifier: A trained classifier.
        :param norm: Norm of the ball: np.inf, "inf" or 2.
        :param eps: Radius of the ball, in the unit of the inputs.
        :param max_iter: Number of steps.
        :param objective: What to maximise: a name in :data:`.OBJECTIVES`, or a function (logits (B, K), classes (B,))
               -> values (B,) that torch can differentiate, larger = better for the attacker. Towards a target it is
               given the target and minimised; "dlr" then stands for "targeted_dlr".
        :param nb_restarts: Number of random starts, for each target.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param nb_targets: How many other classes to aim at in turn, the likeliest first, at most all; what is found on
               the way to one counts whatever class it is taken for. 0 for none in particular.
        :param early_stop: Whether an image is left alone once an example is found; else all steps are gone, for the
               largest objective.
        :param batch_size: Images that are attacked together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def _maximise(self, question: Question, ball: Ball, x: torch.Tensor, start: torch.Tensor, turn: int) -> Found:
        return auto_pgd(question, ball, x, start, self.eps, self.max_iter, self.early_stop)
