"""
Evaluation and detection in two processes against one process: the same, bit for bit. The tests look at what the two
left behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from art_mmc import create_classifier, load_classifier, load_dataset
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.cli import main
from art_mmc.distributed import in_main_process, main_process_first, process_group, share_out, world
from art_mmc.evaluation import AttackPlan, RobustnessEvaluation, engine
from art_mmc.evaluation.curves import measure_curves
from art_mmc.studies.detect import run_detection_study, settled
from art_mmc.studies.settings import Detect
from tests.conftest import timeless
from tests.training import forked

pytestmark = pytest.mark.usefixtures("short_control")

EPS, N, BATCH = 0.1, 70, 16  # five batches of what is classified correctly, the last one a small one

PLANS = (
    AttackPlan("PGD", "pgd", "adaptive", EPS, steps=4, step_size=EPS / 2, restarts=2),
    AttackPlan("targeted", "pgd", "margin", EPS, steps=3, step_size=EPS / 2, targets="random"),
    AttackPlan("predicted", "fgsm", "cross_entropy", EPS, step_size=EPS, labels="predicted"),
    AttackPlan("transfer", "mim", "adaptive", EPS, steps=3, step_size=EPS / 2, transfer=True),
    AttackPlan("Square", "square", None, EPS, steps=20, independent=False),
    AttackPlan("DeepFool", "deepfool", steps=5, samples=40),
)

DETECTION = {
    "detector": ["confidence", "kernel-density"],
    "attack": ["fgsm", "jsma", "cw", "cw-wb", "pgd-wb"],
    "attack_share": 0.001,
    "nb_test": 40,
    "nb_white_box": 20,
    "fit_per_class": 30,
    "batch_size": BATCH,
    "quiet": True,
}

COMMAND = ("--suite", "quick", "--nb-test", "20", "--batch-size", "8", "--curves", "0", "--eps", "0.1")
COMMAND += ("--device", "cpu", "--quiet", "--no-diagnostics")


class Noisy(nn.Module):
    """A network that draws random numbers: which ones must not depend on what else ran in its process."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        z = x.flatten(1)
        return self.fc(z + 0.3 * torch.randn_like(z))


def noisy_classifier():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LossDefendedClassifier(Noisy(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0))


def evaluate(classifier, n=N, plans=PLANS, **settings):
    data = load_dataset("digits")
    evaluation = RobustnessEvaluation(list(plans), batch_size=BATCH, seed=3, verbose=False, **settings)
    return evaluation.evaluate(classifier, data.x_test[:n], data.y_test[:n])


def content(record):
    """Everything in a record of robustness that two runs must share."""
    arrays = [record.predictions, record.examples]
    for each in (record.clean, *record.attacks):
        arrays += [each.standing, each.attacked, each.distances]
    counts = [(each.gradients, each.queries) for each in record.attacks]
    return {"plain": timeless(record.to_dict()), "arrays": arrays, "counts": counts}


def assert_same(ours, theirs):
    assert ours["plain"] == theirs["plain"]
    assert ours["counts"] == theirs["counts"]
    for one, other in zip(ours["arrays"], theirs["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)


def curves(classifier):
    data = load_dataset("digits")
    options = {"samples": 12, "steps": (1, 3), "steps_over_eps": 2, "batch_size": BATCH}
    return measure_curves(classifier, data.x_test, data.y_test, EPS, **options).to_dict()


def study(classifier, on_attack):
    dataset = load_dataset("digits")
    wanted = settled(Detect(**DETECTION), dataset)
    return run_detection_study({"mmc": classifier}, dataset, wanted, on_attack=on_attack).to_dict()


@contextlib.contextmanager
def before_batches(happens):
    """Something happens before each batch, which gets the images and the plan's name; a list with one entry a batch."""
    attack_batch, ran = engine.attack_batch, []

    def planted(target, x, y, plan, *args, **kwargs):
        ran.append(plan.name)
        happens(x, plan.name)
        return attack_batch(target, x, y, plan, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "attack_batch", planted)
        yield ran


def in_batch(plan, first, happens):
    """Something happens, in whichever process has it, before a plan runs on the batch of a test image, or on any."""
    image = None if first is None else load_dataset("digits").x_test[first]

    def there(x, name):
        if name == plan and (image is None or (x == image).all(axis=(1, 2, 3)).any()):
            happens()

    return before_batches(there)


def counted():
    """How many batches run."""
    return before_batches(lambda x, name: None)


def crash():
    raise engine.AttackError("attack 'planted' failed")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


#: an image in the fourth batch, whichever of the images before it are classified correctly
LATE = 60


# ------------------------------------------------------------------------------------------ what the processes do


class Unportable(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def error_of(function, *errors):
    try:
        function()
    except errors as err:
        return type(err).__name__, str(err)
    return None


def fail_at(number, error, ran):
    """Of ten jobs one that fails, and another one in the other process."""

    def job(this):
        ran.append(this)
        if this in (number, 4):
            raise error if this == number else ValueError("a later one")
        return this

    return lambda: list(share_out([lambda this=this: job(this) for this in range(10)]))


def shared_jobs(here):
    """What :func:`share_out` and its kin promise."""

    def job(number):
        return number, here.rank, list(share_out([lambda: "inner", lambda: world().rank])), in_main_process(lambda: 7)

    ran = []
    results = {
        "shared": list(share_out([lambda number=number: job(number) for number in range(9)])),
        "one": list(share_out([lambda: "only"])),
        "none": list(share_out([])),
        "error": error_of(fail_at(3, OSError("planted"), ran), OSError, ValueError),
        "ran": ran,
        "unportable": error_of(fail_at(3, Unportable("this", "that"), []), Unportable, RuntimeError),
        "main": in_main_process(lambda: here.rank),
        "main fails": error_of(lambda: in_main_process(lambda: [][here.rank]), IndexError),
    }
    order = []
    main_process_first(lambda: (time.sleep(0.1), order.append(time.monotonic())))
    results["first"] = order[0]
    return results


def command(*args):
    """Status, output and errors of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, args)))
    return status, out.getvalue(), err.getvalue()


def work(out: Path):
    """Everything that the tests look at, in one start of the processes."""
    torch.set_num_threads(1)
    file = out / "net.pt"
    with process_group("cpu") as here:
        classifier = load_classifier(file)
        torch.rand(here.rank), np.random.rand(here.rank)  # no draw may depend on the global states
        results = {"jobs": shared_jobs(here)}
        with counted() as ran:
            results["record"] = content(evaluate(classifier))
        results["batches"] = len(ran)
        results["few"] = content(evaluate(classifier, n=5, plans=PLANS[:1], diagnostics=False))
        results["noisy"] = content(evaluate(noisy_classifier(), n=40, plans=PLANS[:1], diagnostics=False))
        results["curves"] = curves(classifier)
        reported = []
        results["study"] = study(classifier, on_attack=lambda *args: reported.append(args[1]))
        results["reported"] = reported

        with in_batch("targeted", LATE, crash):
            results["crash"] = error_of(lambda: evaluate(classifier), engine.AttackError)
        with in_batch("targeted", LATE, interrupt):
            folder = out / "two"
            results["interrupt"] = error_of(lambda: evaluate(classifier, folder=folder), KeyboardInterrupt)
        with counted() as ran:
            results["taken up"] = content(evaluate(classifier, folder=out / "one", diagnostics=False))
        results["taken up batches"] = len(ran)
        mine = classifier if here.is_main else noisy_classifier()
        results["other"] = error_of(lambda: evaluate(mine), ValueError)

        results["command"] = command("evaluate", file, *COMMAND, "--fail-under", "1", "--output", out / "report")
        torch.save(results, out / f"rank{here.rank}.pt")
        with in_batch("PGD adaptive", None, crash):
            return main(["evaluate", str(file), *COMMAND, "--output", str(out / "crashed")])


# ------------------------------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def classifier(out):
    """A trained network, read from the file from which the two processes have theirs."""
    data = load_dataset("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = create_classifier("mmc", "cnn", input_shape=(1, 8, 8), nb_classes=10)
        made.fit(data.x_train[:768], data.y_train[:768], nb_epochs=10, batch_size=64)
    made.save_checkpoint(out / "net.pt")
    return load_classifier(out / "net.pt")


@pytest.fixture(scope="module")
def whole(classifier):
    return content(evaluate(classifier))


@pytest.fixture(scope="module")
def ended(out, classifier):
    """How the processes ended: the last thing that they do is a command whose attack crashes."""
    with in_batch("targeted", LATE, crash), pytest.raises(engine.AttackError):
        evaluate(classifier, folder=out / "one", diagnostics=False)  # for two processes to go on with
    kept = len(list((out / "one").glob("*.npz")))
    return forked(lambda: work(out), out / "said"), kept


@pytest.fixture(scope="module")
def ranks(ended, out):
    files = [out / f"rank{rank}.pt" for rank in (0, 1)]
    assert all(file.is_file() for file in files), ended[0]
    return [torch.load(file, weights_only=False) for file in files]


def test_the_record_is_that_of_one_process(ranks, whole):
    """Standing, examples, gradients, queries, diagnostics and verdict; and both had a part in it."""
    for rank in ranks:
        assert_same(rank["record"], whole)
    assert all(rank["batches"] for rank in ranks)
    assert len(whole["plain"]["diagnostics"]) > 10


def test_few_batches_and_random_numbers_of_the_network(ranks, classifier):
    """Fewer batches than processes; a network that draws numbers."""
    for name, who, n in (("few", classifier, 5), ("noisy", noisy_classifier(), 40)):
        expected = content(evaluate(who, n=n, plans=PLANS[:1], diagnostics=False))
        for rank in ranks:
            assert_same(rank[name], expected)


def test_the_curves_are_those_of_one_process(ranks, classifier):
    expected = timeless(curves(classifier))
    for rank in ranks:
        assert timeless(rank["curves"]) == expected


def test_the_detection_study_is_that_of_one_process(ranks, classifier):
    reported = []
    expected = timeless(study(classifier, on_attack=lambda *args: reported.append(args[1])))
    assert len(expected["records"]) == 2 * 3 + 1 + 2
    assert reported == ["FGSM", "JSMA", "C&W", "C&W-wb", "PGD-wb"]
    for rank in ranks:
        assert timeless(rank["study"]) == expected
        assert rank["reported"] == reported


def test_an_attack_that_crashes_is_the_same_error_in_all(ranks):
    for rank in ranks:
        assert rank["crash"] == ("AttackError", "attack 'planted' failed")


def test_a_command_whose_attack_crashes_stops_all(ended, ranks, out):
    assert [each.status for each in ended[0]] == [2, 2]
    assert sum(each.err.count("art-mmc: error: attack 'planted' failed") for each in ended[0]) == 1
    assert not (out / "crashed" / "report.json").exists()


def test_a_killed_run_of_two_processes_goes_on_in_one(ranks, whole, classifier, out, tmp_path):
    """Ctrl-C came to one of them."""
    for rank in ranks:
        assert rank["interrupt"][0] == "KeyboardInterrupt"
    shutil.copytree(out / "two", tmp_path / "two")
    kept = len(list((tmp_path / "two").glob("*.npz")))
    assert 5 < kept < 10  # the first plan's, and those of the second one that were done by then
    assert [path.name for path in (tmp_path / "two").glob("*.json")] == ["evaluation.json"]
    with counted() as ran:
        record = evaluate(classifier, folder=tmp_path / "two", diagnostics=False)
    all_of_them = len(list((tmp_path / "two").glob("*.npz")))
    assert len(ran) == all_of_them - kept
    undiagnosed = {"diagnostics": None, "verdict": None}
    ours, theirs = ({**each, "plain": {**each["plain"], **undiagnosed}} for each in (content(record), whole))
    assert_same(ours, theirs)


def test_a_killed_run_of_one_process_goes_on_in_two(ended, ranks, classifier, out):
    expected = content(evaluate(classifier, diagnostics=False))
    files = list((out / "one").glob("*.npz"))
    for rank in ranks:
        assert_same(rank["taken up"], expected)
    assert 5 <= ended[1] < len(files)
    assert sum(rank["taken up batches"] for rank in ranks) == len(files) - ended[1]


def test_processes_that_evaluate_something_else_are_refused(ranks):
    for rank in ranks:
        name, text = rank["other"]
        assert name == "ValueError"
        assert text.startswith("processes 0 and 1 are not about to evaluate the same: classifier: was")


def test_one_process_prints_and_writes(ranks, out, classifier, tmp_path):
    """And all end with the same status, here that of --fail-under."""
    first, second = (rank["command"] for rank in ranks)
    assert (first[0], second[0]) == (1, 1)
    assert second[1:] == ("", "")
    assert first[1].count("--fail-under 1: failed") == first[1].count("wrote ") == 1
    assert not (out / "report" / "state").exists()
    line = ("evaluate", out / "net.pt", *COMMAND, "--fail-under", "1", "--output", tmp_path / "report")
    assert command(*line)[0] == 1
    assert {path.name for path in (out / "report").iterdir()} == {path.name for path in (tmp_path / "report").iterdir()}
    documents = [json.loads((folder / "report" / "report.json").read_text()) for folder in (out, tmp_path)]
    assert [each["provenance"]["processes"] for each in documents] == [2, 1]
    assert timeless(documents[0]) == timeless(documents[1])


def test_jobs_are_shared_out(ranks):
    jobs = [rank["jobs"] for rank in ranks]
    for each in jobs:
        # inside of a job there is nobody to share with
        assert each["shared"] == [(number, number % 2, ["inner", number % 2], 7) for number in range(9)]
        assert each["one"] == ["only"]
        assert each["none"] == []
        assert each["error"] == ("OSError", "planted")
        assert each["main"] == 0
        assert each["main fails"] == ("IndexError", "list index out of range")
    unportable = {("Unportable", "this and that"), ("RuntimeError", "Unportable: this and that")}
    assert {each["unportable"] for each in jobs} == unportable
    assert [each["ran"] for each in jobs] == [[0, 2, 4], [1, 3]]  # after a failure none is begun
    assert jobs[0]["first"] < jobs[1]["first"]


def test_jobs_in_one_process_are_done_when_they_are_asked_for():
    done = []
    results = share_out([lambda: done.append(1), lambda: done.append(2)])
    assert done == []
    next(results)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        list(share_out([lambda: 1 / 0]))
    assert in_main_process(lambda: "here") == main_process_first(lambda: "here") == "here"
