"""
APGD, scheduled PGD, FAB and AutoAttack: against closed forms on linear networks, against the algorithms written out,
and, where its package is installed, against the authors' code.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from art.attacks.evasion import SquareAttack
from art.estimators.classification import PyTorchClassifier

from art_mmc import load_dataset, load_pretrained
from art_mmc.attacks import AutoAttackStandard, AutoPGD, FastAdaptiveBoundary, ScheduledPGD
from art_mmc.attacks.auto_attack import Square, remembering
from art_mmc.attacks.auto_pgd import checkpoints
from art_mmc.attacks.build import build_attack
from art_mmc.attacks.fast_adaptive_boundary import project_onto_plane
from art_mmc.attacks.white_box import Ball
from art_mmc.evaluation.engine import beyond_ball, beyond_box
from art_mmc.objectives import OBJECTIVES, margin, soft_margin
from tests import planted
from tests.conftest import norms
from tests.planted import digits, plain, taught, undefended

NORMS = [math.inf, 2]
BOXES = {"box": (0.0, 1.0), "no box": None}


def linear(nb_classes: int, box: tuple[float, float] | None = (0.0, 1.0), seed: int = 0) -> PyTorchClassifier:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((nb_classes, 64))
    weight[:, ::7] = 0  # values that nothing depends on
    return planted.linear(weight, rng.standard_normal(nb_classes), clip_values=box)


def images(n: int = 12, seed: int = 1) -> np.ndarray:
    """Half of the values near a wall of [0, 1], a quarter of them on it."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (n, 1, 8, 8))
    edge = rng.uniform(size=x.shape)
    x = np.where(edge < 0.25, x.round(), np.where(edge < 0.5, 0.02 + 0.96 * x.round(), x))
    return x.astype(np.float32)


def furthest(x: np.ndarray, w: np.ndarray, reach: np.ndarray, norm: float, box) -> tuple[np.ndarray, np.ndarray]:
    """How far w x rises, (N,), and how far x goes: reach in L-inf, or in L2 along reach * w, until the box stops it."""
    low, high = (-np.inf, np.inf) if box is None else box
    way = np.clip(x + reach[:, None] * (np.sign(w) if norm == math.inf else w), low, high) - x
    return (way * w).sum(axis=1), np.linalg.norm(way, norm, axis=1)


def solved(x: np.ndarray, w: np.ndarray, norm: float, box, enough) -> tuple[np.ndarray, np.ndarray]:
    """By bisection, the first reach with enough(rise, distance); infinity where there is none."""
    small, large = np.zeros(len(x)), np.full(len(x), 1e6)
    for _ in range(100):
        middle = (small + large) / 2
        done = enough(*furthest(x, w, middle, norm, box))
        small, large = np.where(done, small, middle), np.where(done, middle, large)
    rise, way = furthest(x, w, large, norm, box)
    return rise, np.where(enough(rise * (1 + 1e-9), way), way, np.inf)


def nearest_by_hand(
    classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray, norm: float, others=None
) -> np.ndarray:
    """Distances (N,) to the nearest example of a linear network, of all other classes or of those given."""
    weight, bias = (each.detach().numpy().astype(np.float64) for each in classifier.model.parameters())
    flat, box = x.reshape(len(x), -1).astype(np.float64), classifier.clip_values
    best = np.full(len(x), np.inf)
    for k in range(len(weight)):
        w = weight[k] - weight[y]
        gap = -((flat * w).sum(axis=1) + bias[k] - bias[y])
        _, way = solved(flat, w, norm, box, lambda rise, _, gap=gap: rise >= gap)
        counts = y != k if others is None else others == k
        best = np.where(counts & (way < best), way, best)
    return best


# ------------------------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize(
    ("nb_classes", "nb_targets", "box", "norm"),
    [
        *((2, 9, box, norm) for box in BOXES for norm in NORMS),
        *((5, 0, "box", norm) for norm in NORMS),
        (5, 0, "no box", 2),
        (5, 9, "box", math.inf),
        (12, 9, "box", 2),
    ],
)
def test_fab_finds_the_distance_of_a_linear_network(nb_classes, nb_targets, box, norm):
    classifier = linear(nb_classes, BOXES[box])
    x = images()
    y = classifier.predict(x).argmax(axis=1)
    x_adv = FastAdaptiveBoundary(classifier, norm, nb_targets=nb_targets, verbose=False).generate(x, y)
    assert (classifier.predict(x_adv).argmax(axis=1) != y).all()
    want, got = nearest_by_hand(classifier, x, y, norm), norms(x_adv - x.astype(np.float64), norm)
    assert (got >= want * (1 - 1e-4)).all()
    near = got <= want * 1.01
    # which class is nearest is judged without the box, where all are tried in each step
    assert near.mean() >= 0.9 if nb_targets == 0 and classifier.clip_values is not None else near.all()
    assert not beyond_box(x_adv, classifier.clip_values).any()


@pytest.mark.parametrize(("norm", "early_stop"), [(math.inf, False), (2, True)])
def test_fab_with_eps_counts_what_lies_in_the_ball_and_keeps_the_other_images(norm, early_stop):
    classifier = linear(5)
    x = images(24)
    y = classifier.predict(x).argmax(axis=1)
    want = nearest_by_hand(classifier, x, y, norm)
    eps = float(np.median(want))
    x_adv = FastAdaptiveBoundary(classifier, norm, eps, early_stop=early_stop, verbose=False).generate(x, y)
    with pytest.raises(ValueError, match="early_stop"):
        FastAdaptiveBoundary(classifier, norm, early_stop=True)
    fooled = classifier.predict(x_adv).argmax(axis=1) != y
    clear = np.abs(want / eps - 1) > 0.02  # FAB is right to within 1 %
    np.testing.assert_array_equal(fooled[clear], want[clear] < eps)
    assert 6 < fooled.sum() < 18
    np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])
    assert not beyond_ball(x_adv, x, eps, norm).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", BOXES)
def test_the_way_to_a_plane_in_the_box(norm, box):
    """By bisection in float64; a third of the planes lies beyond the box, and some values have no weight."""
    rng = np.random.default_rng(3)
    x, normal = images(30).reshape(30, -1), rng.standard_normal((30, 64)) * rng.integers(0, 2, (30, 64))
    low, high = (-np.inf, np.inf) if BOXES[box] is None else BOXES[box]
    farthest, _ = furthest(x.astype(float), -normal, np.full(30, 1e6), norm, (0, 1))
    offset = farthest * np.tile([0.1, 0.8, 1.5], 10)
    _, want = solved(x.astype(float), -normal, norm, BOXES[box], lambda rise, _: rise >= offset)
    for sign in (1, -1):
        ball = Ball(norm, torch.tensor(low).float(), torch.tensor(high).float())
        way = project_onto_plane(
            ball, torch.tensor(x), torch.tensor(sign * normal).float(), torch.tensor(sign * offset).float()
        ).numpy()
        left = (way * normal).sum(axis=1) + offset
        assert not beyond_box(x + way, BOXES[box]).any()
        meets = np.isfinite(want)
        assert meets.sum() == (20 if box == "box" else 30)
        np.testing.assert_allclose(left[meets], 0, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(way, norm, axis=1)[meets], want[meets], rtol=1e-4)
        np.testing.assert_allclose(left[~meets], (offset - farthest)[~meets], rtol=1e-4)  # as near as the box lets it


@pytest.mark.parametrize(("nb_classes", "norm"), [(2, math.inf), (3, 2), (4, math.inf), (5, 2)])
def test_autoattack_leaves_exactly_what_no_example_lies_near(nb_classes, norm):
    """Of few classes too, for which there are fewer targets, and two or three no DLR to aim at."""
    classifier = linear(nb_classes)
    x = images(20)
    y = classifier.predict(x).argmax(axis=1)
    want = nearest_by_hand(classifier, x, y, norm)
    eps = float(np.sort(want)[9:11].mean())  # ten of twenty
    attack = AutoAttackStandard(classifier, norm, eps, seed=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("art_mmc.attacks.auto_attack._QUERIES", 20)
        x_adv = attack.generate(x, y)
    np.testing.assert_array_equal(classifier.predict(x_adv).argmax(axis=1) != y, want < eps)
    assert list(attack.robust_accuracy) == ["clean", "APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert attack.robust_accuracy["clean"] == 1
    assert attack.robust_accuracy["Square"] == 0.5
    assert not beyond_ball(x_adv, x, eps, norm).any()
    assert not beyond_box(x_adv, classifier.clip_values).any()


# --------------------------------------------------------------------------------------------- APGD's algorithm


def test_checkpoints_by_hand():
    # 22, then 19, 16, 13, 10, 7 and from then on 6 hundredths more
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [5, 9, 12, 14, 16, 18, 19, 20]  # 4.4, 8.2, 11.4, 14, 16, 17.4, 18.6, 19.8, rounded up
    assert checkpoints(1) == [1]


def written_out(network, x, y, start, eps, norm, steps, objective):
    """Algorithm 1 of the paper for one image, in float64, with its condition on every window; the largest value."""
    network = copy.deepcopy(network).double()
    x, start = torch.tensor(x).double(), torch.tensor(start).double()

    def value_and_gradient(z):
        z = z.clone().requires_grad_(True)
        value = objective(network(z[None]), torch.tensor([y]))[0]
        return value.item(), torch.autograd.grad(value, z)[0]

    def project(z):
        d = z - x
        d = d.clamp(-eps, eps) if norm == math.inf else d * min(1, eps / d.norm().item())
        return (x + d).clamp(0, 1)

    at, eta = [project(start)], 2 * eps
    value, gradient = value_and_gradient(at[0])
    f, g, f_best, best, rose, last, halved = [value], [gradient], [value], 0, [], 0, True
    for k in range(steps):
        step = g[k].sign() if norm == math.inf else g[k] / g[k].norm()
        new = project(at[k] + eta * step)
        if k:
            new = project(at[k] + 0.75 * (new - at[k]) + 0.25 * (at[k] - at[k - 1]))
        value, gradient = value_and_gradient(new)
        rose.append(value > f[k])
        for path, each in ((at, new), (f, value), (g, gradient), (f_best, max(f_best[-1], value))):
            path.append(each)
        best = k + 1 if value > f_best[k] else best
        if k + 1 in checkpoints(steps):
            halved = sum(rose[last:]) < 0.75 * (k + 1 - last) or (not halved and f_best[-1] == f_best[last])
            last = k + 1
            if halved:
                eta /= 2
                at[-1], f[-1], g[-1] = at[best], f[best], g[best]
    return f_best[-1]


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_against_its_algorithm_written_out(norm):
    classifier, (_, _, x, y) = undefended(), digits()
    x, y, eps = x[:6], y[:6], 0.1 if norm == math.inf else 0.3
    attack = AutoPGD(classifier, norm, eps, 30, "dlr", early_stop=False, seed=3, verbose=False)
    x_adv = attack.generate(x, y)
    got = OBJECTIVES["dlr"](torch.tensor(classifier.predict(x_adv)), torch.tensor(y))
    starts = [each + eps * attack._noise(each.shape, [3, i, 0, 0]) for i, each in enumerate(x)]
    how = (eps, norm, 30, OBJECTIVES["dlr"])
    want = [written_out(classifier.model, *each, *how) for each in zip(x, y, starts, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-3)


def schedule_written_out(network, x, y, start, first, eps, norm, steps, sharpness, lengths):
    """
    Scheduled PGD for one image, in float64, along the soft margin's gradient in closed form; the largest margin in the
    ball of radius eps, after a ball that is `first` times as large and shrinks over three quarters of the steps.
    """
    network = copy.deepcopy(network).double()
    x, z, margins, radius = torch.tensor(x).double(), torch.tensor(start).double().clamp(0, 1), [], eps
    for k in range(steps + 1):
        z = z.clone().requires_grad_(True)
        a = network(z[None])[0]
        row = a.detach().numpy()
        margins += [np.delete(row, y).max() - row[y]] if radius == eps else []
        t = sharpness[0] + (sharpness[1] - sharpness[0]) * k / steps
        weights = np.exp(t * (row - row.max()) / row.std())
        weights[y] = 0
        weights /= weights.sum()
        weights[y] = -1
        (gradient,) = torch.autograd.grad((a * torch.tensor(weights)).sum(), z)
        radius = eps * max(1, first - (first - 1) * (k + 1) / steps * 4 / 3)
        length = radius * (lengths[1] + (lengths[0] - lengths[1]) * (1 + np.cos(np.pi * k / steps)) / 2)
        d = z.detach() + length * (gradient.sign() if norm == math.inf else gradient / gradient.norm()) - x
        d = d.clamp(-radius, radius) if norm == math.inf else d * min(1, radius / d.norm().item())
        z = (x + d).clamp(0, 1)
    return max(margins)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "settings", [{}, {"sharpness": (2.0, 8.0), "lengths": (1.0, 0.1), "radii": (1, 2.5), "max_iter": 7}], ids=str
)
def test_scheduled_pgd_against_its_algorithm_written_out(norm, settings):
    """The first start is the image, the second one a point of the ball; the better of the two is kept."""
    classifier, (_, _, x, y) = undefended(), digits()
    x, y, eps = x[:6], y[:6], 0.1 if norm == math.inf else 0.3
    attack = ScheduledPGD(classifier, norm, eps, early_stop=False, nb_restarts=2, seed=3, verbose=False, **settings)
    got = margin(torch.tensor(classifier.predict(attack.generate(x, y))), torch.tensor(y))
    how = (eps, norm, attack.max_iter, attack.sharpness, attack.lengths)
    want = [
        max(
            schedule_written_out(classifier.model, each, k, each, attack.radii[0], *how),
            schedule_written_out(classifier.model, each, k, each + eps * noise, attack.radii[1], *how),
        )
        for each, k, noise in zip(x, y, (attack._noise(x[0].shape, [3, i, 1, 0]) for i in range(6)), strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_a_larger_ball_first_finds_the_way_around_what_is_flat():
    """Features trained by MMC hardly move about an image: within the ball nothing tells where another class is."""
    classifier, data = load_pretrained("mmc-mnist"), load_dataset("mnist-sample")
    x, y = data.x_test[:30], data.y_test[:30]
    left = []
    for radii in ((1.0,), (3.0,)):
        x_adv = ScheduledPGD(classifier, eps=0.1, radii=radii, verbose=False).generate(x, y)
        assert np.abs(x_adv - x).max() <= 0.1 * (1 + 1e-6)
        left.append(int((classifier.predict(x_adv).argmax(axis=1) == y).sum()))
    assert left[1] <= left[0] - 6


@pytest.mark.parametrize(("kind", "norm"), [("sce", math.inf), ("mmc", 2), ("rce", math.inf), ("art", 2)])
def test_each_attack_leaves_what_the_authors_leaves(kind, norm):
    """Towards four targets: by itself, and all together, within one image of a hundred."""
    reference = pytest.importorskip("pyautoattack")
    classifier = plain(taught("pc", 5).model) if kind == "art" else taught(kind, 5)
    _, _, x, y = digits()
    eps = 0.1 if norm == math.inf else 0.5
    settings = {"norm": norm, "eps": eps, "seed": 0, "verbose": False, "early_stop": True}
    ours = {
        "apgd-ce": AutoPGD(classifier, objective="cross_entropy", **settings),
        "apgd-t": AutoPGD(classifier, objective="dlr", nb_targets=4, **settings),
        "fab-t": FastAdaptiveBoundary(classifier, nb_targets=4, **settings),
    }
    left = {}
    for name, attack in ours.items():
        theirs = reference.AutoAttack(
            classifier.model, norm="Linf" if norm == math.inf else "L2", eps=eps, version="standard", seed=0
        )
        theirs.attacks_to_run, theirs.verbose = [name], False
        theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = 4
        examples, _ = theirs.run_standard_evaluation(torch.tensor(x), torch.tensor(y), batch_size=100)
        each = (attack.generate(x, y), examples.numpy())
        left[name] = [classifier.predict(found).argmax(axis=1) == y for found in each]
        assert abs(left[name][0].sum() - left[name][1].sum()) <= 1, name
    worst = [np.all([each[i] for each in left.values()], axis=0).sum() for i in (0, 1)]
    assert abs(worst[0] - worst[1]) <= 1
    assert 0 < worst[0] < 95  # neither all nor nothing


# --------------------------------------------------------------------------------------------- any classifier


@pytest.fixture
def short(monkeypatch):
    """AutoAttack's own steps and queries, which a user can't change, made few."""
    monkeypatch.setattr("art_mmc.attacks.auto_attack._STEPS", 8)
    monkeypatch.setattr("art_mmc.attacks.auto_attack._QUERIES", 20)


def quick(cls, classifier, **settings):
    few = {} if cls is AutoAttackStandard else {"max_iter": 8}
    return cls(classifier, **{"eps": 0.1, "seed": 0, "verbose": False, **few, **settings})


def some(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    _, _, x, y = digits()
    return x[:n], y[:n]


def test_broken_images_leave_and_the_rest_is_packed_again():
    classifier, (x, y) = undefended().with_objective("margin"), some(50)
    asked = []
    forward = classifier.forward
    classifier.forward = lambda inputs: asked.append(len(inputs)) or forward(inputs)
    attack = AutoPGD(
        classifier, eps=0.13, max_iter=10, objective="dlr", nb_targets=9, batch_size=20, seed=0, verbose=False
    )
    x_adv = attack.generate(x, y)
    left = int((undefended().predict(x_adv).argmax(axis=1) == y).sum())
    assert 0 < left < 20
    assert asked[:3] == [20, 20, 10]  # once each as they are
    assert max(asked[-11:]) == left  # the last target, with the values at its end: one batch, of those that are left
    assert sum(asked) < 50 * 10 * 9 / 3


# ------------------------------------------------------------------------------------------------- AutoAttack


def test_each_attack_gets_what_is_still_robust(short, monkeypatch):
    classifier, (x, y) = undefended(), some(40)
    got = []
    for cls in (AutoPGD, FastAdaptiveBoundary, SquareAttack):
        genuine = cls.generate

        def spy(self, x, y, genuine=genuine):
            got.append((type(self).__name__, getattr(self, "nb_targets", 0), len(x)))
            return genuine(self, x, y)

        monkeypatch.setattr(cls, "generate", spy)
    attack = quick(AutoAttackStandard, classifier, eps=0.06)
    x_adv = attack.generate(x, y)
    shares = list(attack.robust_accuracy.values())
    assert [each[:2] for each in got] == [("AutoPGD", 0), ("AutoPGD", 9), ("FastAdaptiveBoundary", 9), ("Square", 0)]
    np.testing.assert_allclose([each[2] / 40 for each in got], shares[:4])
    assert shares[0] > shares[-1] == (classifier.predict(x_adv).argmax(axis=1) == y).mean()


@pytest.mark.parametrize(
    ("name", "where"), [("APGD-CE", AutoPGD), ("FAB-T", FastAdaptiveBoundary), ("Square", SquareAttack)]
)
def test_a_crash_is_named_and_raised(name, where, short, monkeypatch):
    def crash(*args, **kwargs):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(where, "generate", crash)
    with pytest.raises(RuntimeError, match=f"AutoAttackStandard: {name} failed: ZeroDivisionError: by zero"):
        quick(AutoAttackStandard, undefended(), eps=0.01).generate(*some(4))


def test_probabilities_are_warned_of(short, caplog):
    quick(AutoAttackStandard, undefended().with_probabilities()).generate(*some(4))
    assert "look like probabilities" in caplog.text


def test_square_asks_for_each_point_once_and_keeps_the_schedule(short):
    classifier, (x, _) = undefended(), some(5)
    asked = []
    predict = remembering(lambda z: asked.append(z.copy()) or classifier.predict(z))
    for _ in range(3):
        np.testing.assert_array_equal(predict(x), classifier.predict(x))
    np.testing.assert_array_equal(predict(x[::-1] + 0.5), classifier.predict(x[::-1] + 0.5))
    assert [len(each) for each in asked] == [5, 5]
    square = Square(classifier, stretched=False, max_iter=5000, verbose=False)
    shares = [square._get_percentage_of_elements(i) for i in (0, 10, 11, 50, 51, 200, 201, 4000, 4001)]
    largest = 49 / 64  # of 8 x 8 values, in a square of 7
    assert shares == [largest, largest, 0.4, 0.4, 0.2, 0.2, 0.1, 0.8 / 64, 0.8 / 128]
    ours, theirs = (kind(classifier, max_iter=300, p_init=0.5, verbose=False) for kind in (Square, SquareAttack))
    every = [[each._get_percentage_of_elements(i) for i in range(300)] for each in (ours, theirs)]
    assert every[0] == every[1]


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 9)])
@pytest.mark.parametrize("norm", NORMS)
def test_small_and_oblong_images(shape, norm, short):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, math.prod(shape)))
    classifier = planted.linear(weight, np.array([50.0, 0.0, 0.0]), input_shape=shape)
    attack = quick(AutoAttackStandard, classifier, norm=norm)
    x = rng.uniform(size=(3, *shape)).astype(np.float32)
    attack.generate(x, np.zeros(3))
    assert attack.robust_accuracy["Square"] == 1


# ------------------------------------------------------------------------------------------------- arguments


def test_sharpness_is_for_an_objective_that_takes_it():
    classifier, (x, y) = undefended(), some()
    by_name, by_function, sharper = (
        quick(ScheduledPGD, classifier, objective=each).generate(x, y)
        for each in ("soft_margin", soft_margin, lambda logits, labels, t: soft_margin(logits, labels, 3 * t))
    )
    np.testing.assert_array_equal(by_name, by_function)
    assert not np.array_equal(by_name, sharper)
    with pytest.raises(ValueError, match="sharpness: expected None for objective 'dlr', which takes none"):
        quick(ScheduledPGD, classifier, objective="dlr")


def test_by_its_name_it_maximises_the_objective_of_its_classifier():
    classifier, (x, y) = undefended(), some()
    settings = {"eps": 0.1, "steps": 8}
    for objective, options in {"soft_margin": {}, "margin": {"objective": "margin", "sharpness": None}}.items():
        built = build_attack("scheduled-pgd", classifier.with_objective(objective), **settings)
        np.testing.assert_array_equal(built.generate(x, y), quick(ScheduledPGD, classifier, **options).generate(x, y))
