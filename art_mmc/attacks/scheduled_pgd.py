"""
PGD by a schedule: long steps in a large ball along a soft margin at first, short ones along a sharp one at last.
"""

import math

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.attacks.white_box import Ball, Found, ObjectiveAttack, Question
from art_mmc.checks import several
from art_mmc.objectives import Objective

#: share of the steps over which the ball shrinks to eps
_SHRINKING = 0.75

#: after how many steps broken samples leave where looking means waiting for the device
_LOOKS = 10


class ScheduledPGD(ObjectiveAttack):
    """
    Projected gradient descent with a schedule, on the soft margin (:func:`.soft_margin`) unless told otherwise. Step k
    of N, from 0, is along the gradient (its sign in L-inf), with

        radius    eps max(1, r + (1 - r) 4 (k + 1) / 3 N),            r = 1.5, of a second start 3
        length    radius (l_1 + (l_0 - l_1) (1 + cos(pi k / N)) / 2), l_0 = 2, l_1 = 0
        sharpness t_0 + (t_1 - t_0) k / N,                            t_0 = 1, t_1 = 5

    and back into the ball of that radius and the box: it looks for a way out towards all classes, then settles on the
    nearest. Where the network is flat about the image the way is found farther out, and followed back into the ball of
    radius eps, in which alone a point counts. The first start is the image itself, each further one a random point.

    What is returned is the first example that is found; without `early_stop`, or where none is, the point of the
    largest margin on the way, since values under two sharpnesses do not compare.

    | Paper link: https://arxiv.org/abs/2103.01208 (a ball that shrinks to eps)
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        norm: int | float | str = np.inf,
        eps: float = 8 / 255,
        max_iter: int = 40,
        objective: str | Objective = "soft_margin",
        sharpness: tuple[float, float] | None = (1.0, 5.0),
        lengths: tuple[float, float] = (2.0, 0.0),
        radii: tuple[float, ...] = (1.5, 3.0),
        nb_restarts: int = 1,
        targeted: bool = False,
        nb_targets: int = 0,
        early_stop: bool = True,
        batch_size: int = 128,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.ScheduledPGD` instance.

        :param classifier: A trained classifier.
        :param norm: Norm of the ball: np.inf, "inf" or 2.
        :param eps: Radius of the ball, in the unit of the inputs.
        :param max_iter: Number of steps N.
        :param objective: What to maximise: a name in :data:`.OBJECTIVES`, or a function (logits (B, K), classes (B,))
               -> values (B,) that torch can differentiate, larger = better for the attacker. Towards a target it is
               given the target and minimised; "dlr" then stands for "targeted_dlr".
        :param sharpness: First and last t of the soft margin, handed to the objective as `t`; None for an objective
               that takes none.
        :param lengths: First and last length of a step, in units of the ball's radius.
        :param radii: The ball's first radius, in units of eps, at least 1, which is plain PGD's: the starts take them
               in turn.
        :param nb_restarts: Number of starts, for each target.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param nb_targets: How many other classes to aim at in turn, the likeliest first, at most all; what is found on
               the way to one counts whatever class it is taken for. 0 for none in particular.
        :param early_stop: Whether an image is left alone once an example is found; else all steps are gone.
        :param batch_size: Images that are attacked together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def _maximise(self, question: Question, ball: Ball, x: torch.Tensor, start: torch.Tensor, turn: int) -> Found:
        point = start if turn else x
        found, rows = Found(point, self.early_stop), torch.arange(len(x), device=x.device)
        looks = 1 if x.device.type == "cpu" else _LOOKS
        longest, shortest = self.lengths
        first, radius = self.radii[turn % len(self.radii)], 1.0
        for k in range(self.max_iter + 1):
            done = k / self.max_iter
            settings = {}
            if self.sharpness is not None:
                settings["t"] = self.sharpness[0] + (self.sharpness[1] - self.sharpness[0]) * done
            _, gradients, hit, lead = question(point, rows, **settings)
            if radius == 1:
                found.see(rows, point, hit, lead)
            if k == self.max_iter:
                break
            if self.early_stop and k % looks == 0:
                going = ~found.hit[rows]
                rows, point, gradients = rows[going], point[going], gradients[going]
                if not len(rows):
                    break
            radius = max(1.0, first + (1 - first) * (k + 1) / (_SHRINKING * self.max_iter))
            length = radius * (shortest + (longest - shortest) * (1 + math.cos(math.pi * done)) / 2)
            point = ball.project(point + self.eps * length * ball.direction(gradients), x[rows], self.eps * radius)
        return found

    def _check_params(self) -> None:
        super()._check_params()
        self._check(several, "lengths" if self.sharpness is None else "sharpness lengths", length=2)
        self._check(several, "radii", 1)
        if isinstance(self.objective, str) and self.objective != "soft_margin" and self.sharpness is not None:
            raise ValueError(
                f"sharpness: expected None for objective '{self.objective}', which takes none, got {self.sharpness!r}."
            )
