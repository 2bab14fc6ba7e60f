"""`art-mmc evaluate` and `report`: what they write, exit statuses, whose networks they take."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc import create_classifier, load_dataset
from art_mmc.classifiers.loading import build_network, load_any
from art_mmc.data import Dataset
from art_mmc.evaluation import (
    BROKEN,
    FIRST_LOOK,
    HOLDS,
    NOT_CONVERGED,
    UNTRUSTWORTHY,
    AttackPlan,
    RobustnessEvaluation,
    Verdict,
    budget,
    robustness,
)
from art_mmc.evaluation.curves import curve_radii, measure_curves
from art_mmc.evaluation.records import Curves
from art_mmc.evaluation.suites import CONVERGED, ROUNDS
from art_mmc.reports import load_robustness, robustness_report, write_robustness
from art_mmc.studies import evaluate as assessment_module
from art_mmc.studies.setup import clear_states
from tests import planted
from tests.conftest import left_alone, timeless
from tests.handmade import FACTORY, NETS, PICTURES, RECORD, pictured
from tests.planted import plain

pytestmark = pytest.mark.usefixtures("short_control")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MMC classifier whose cross-entropy is masked, and a user's network in three kinds of files."""
    folder = tmp_path_factory.mktemp("networks")
    data = load_dataset("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mmc = create_classifier("mmc", "cnn", input_shape=(1, 8, 8), nb_classes=10, temperature=0.5, device_type="cpu")
        mmc.fit(data.x_train[:768], data.y_train[:768], nb_epochs=15, batch_size=64)
        mmc.save_checkpoint(folder / "mmc.pt")
        (folder / "usersnets.py").write_text(FACTORY)
        network = NETS["plain"]()
        adam = torch.optim.Adam(network.parameters(), 1e-2)
        plain(network, optimizer=adam).fit(data.x_train, data.y_train, nb_epochs=3, batch_size=64)
    weights = network.state_dict()
    torch.save(weights, folder / "net.pth")
    torch.save({"epoch": 7, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, folder / "n.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.from_numpy(data.x_train[:2])).save(str(folder / "net.ts"))
    return folder


@pytest.fixture(autouse=True)
def _networks(place: Path, tmp_path: Path) -> None:
    """The networks are in the folder in which commands run."""
    for file in place.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)


QUICK = ["--suite", "quick", "--nb-test", "24", "--eps", "0.1", "--device", "cpu", "--quiet", "--curves"]


# ------------------------------------------------------------------------------------------------------------- evaluate


@pytest.mark.thorough
def test_evaluate_writes_the_report_that_it_prints(run, monkeypatch):
    monkeypatch.setattr(assessment_module, "measure_curves", partial(measure_curves, steps=(1, 3), steps_over_eps=3))
    line = "evaluate mmc.pt --suite quick --nb-test 30 --eps 0.1 --eps 0.2 --seed 3 --device cpu --quiet --curves 6"
    with left_alone():
        status, out, err = run(*line.split(), "--output", "here")
    assert (status, err) == (0, "")
    names = sorted(path.name for path in Path("here").iterdir())
    assert names == sorted(["attacks.csv", "examples.npz", "report.json", "report.md", *PICTURES])  # and no state
    record = load_robustness("here/report.json")
    assert record.eps == (0.1, 0.2)
    assert record.clean.n == 30
    assert record.verdict is not None
    assert f"verdict: {record.verdict.status}" in out
    # the three numbers of a masked network: cross-entropy, margin, worst case
    line = next(line for line in out.splitlines() if line.startswith("0.2 "))
    _, clean, own, cross_entropy, margin, worst, *_ = line.split()
    assert float(cross_entropy) > float(margin) + 20
    assert float(worst) <= min(float(own), float(margin), float(cross_entropy))
    assert float(worst) == pytest.approx(100 * record.worst_case(0.2).accuracy, abs=0.05)
    assert float(clean) == pytest.approx(100 * record.clean.accuracy, abs=0.05)
    assert Path("here/report.md").read_text() == robustness_report(record, names)
    assert (record.curves.n, record.curves.at) == (6, 0.2)
    facts = record.provenance
    assert (facts["name"], facts["checkpoint"], facts["kind"]) == ("mmc", "mmc.pt", "art_mmc checkpoint")
    assert (facts["dataset"], facts["n"], facts["n_test"], facts["suite"]) == ("digits", 30, 400, "quick")
    assert (facts["defence"], facts["backbone"], facts["seed"], facts["threads"]) == ("mmc", "cnn", 3, 1)
    with np.load("here/examples.npz") as kept:
        np.testing.assert_array_equal(kept["x"], digits().x_test[kept["index"]])
        np.testing.assert_array_equal(kept["y"], digits().y_test[kept["index"]])
        assert np.abs(kept["x_adv"] - kept["x"]).max() <= 0.2 + 1e-6
        fallen = record.clean.standing & ~record.worst_case(0.2).standing
        assert (kept["predictions"][fallen] != kept["y"][fallen]).all()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("file", "options", "kind"),
    [
        ("net.ts", (), "TorchScript"),
        ("n.pth", ("--factory", "usersnets:sized"), "state dict, network by usersnets:sized"),
    ],
)
def test_networks_of_the_user_s_own(run, file, options, kind):
    line = ("evaluate", file, *options, *QUICK, 0, "--output", "here", "--name", "my net", "--fail-under", 0.99)
    status, out, err = run(*line)
    assert (status, err) == (1, "")
    assert "--fail-under 0.99: failed, the worst case at eps 0.1 is 0." in out
    assert "and 24 images say too little, at least 100 are needed (--min-n)" in out
    record = load_robustness("here/report.json")
    assert (record.provenance["kind"], record.provenance["name"]) == (kind, "my net")
    assert record.clean.accuracy > 0.8
    assert record.worst_case(0.1).accuracy < record.clean.accuracy
    own, cross_entropy = (record.get(name, 0.1) for name in ("PGD own loss", "PGD cross-entropy"))
    assert (own.standing != cross_entropy.standing).sum() <= 1  # they are trained on it; the starts are others


#: what is typed -> what the evaluation is asked for
ASKED = {
    "net.ts --norm 2 --eps 0.5,2 --eps 1": {"norm": 2, "eps": [0.5, 1, 2]},
    "mmc.pt": {"eps": [0.05, 0.1, 0.15, 0.2], "suite": "standard", "nb_test": 1000, "substitutes": None},
    "mmc.pt --suite li2021": {"eps": [0.1, 0.2, 0.3], "suite": "li2021-table1"},
    "mmc.pt --suite pang2020 --quirk eps256 --nb-test 7": {
        **{"eps": [8 / 255, 16 / 255], "suite": "pang2020-table1", "quirks": ("eps256",), "nb_test": 7}
    },
    "mmc.pt --suite strong --rounds 3 --converged 0.01": {"rounds": 3, "converged": 0.01},
    "mmc.pt --suite strong": {"rounds": ROUNDS, "converged": CONVERGED},
    "mmc.pt --substitute net.ts --substitute mmc.pt": {"crafted on": ["net.ts", "mmc.pt"]},
}


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What each evaluation is asked for, which is not made."""
    seen = []

    def assess(classifier, data, evaluation, **settings):
        assert len(evaluation.substitutes or ()) == len(settings["about"]["substitutes"] or ())
        more = {"suite": evaluation.suite.name, "crafted on": settings["about"]["substitutes"]}
        seen.append({**vars(evaluation), **settings, **more})
        return RECORD

    monkeypatch.setattr(assessment_module, "assess", assess)
    return seen


@pytest.mark.parametrize("line", ASKED)
def test_options_reach_the_evaluation(run, asked, line):
    assert run("evaluate", *line.split(), "--quiet")[0] == 0
    (found,) = asked
    assert {name: found[name] for name in ASKED[line]} == ASKED[line]
    assert Path(f"runs/evaluate-{line.split('.')[0]}-{found['suite']}/report.md").is_file()


def test_a_first_look_keeps_to_a_budget(run, monkeypatch, asked):
    """A network of 2 x 64 x 30,000 + 2 x 30,000 x 10 operations, as torch counts those of two matrices."""
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 30_000), torch.nn.Linear(30_000, 10))
    cost = budget.operations(plain(wide), digits().x_test)
    assert cost == 2 * 64 * 30_000 + 2 * 30_000 * 10
    assert budget.affordable(cost, 1000, 1000, 20) == 1000
    assert budget.affordable(100 * cost, 1000, 1000, 20) == 22  # 1e13 / 4.44e11
    assert budget.affordable(10**9, 10_000, 64, 4) == 4
    assert budget.affordable(0, 1000, 64, 4) == 64
    monkeypatch.setattr(budget, "operations", lambda *args: 10**8)
    for options in ((), ("--nb-test", 500, "--curves", 50)):
        line = ("evaluate", "mmc.pt", "--suite", "quick", "--eps", "0.1", "--quiet", "--no-diagnostics", *options)
        assert run(*line)[0] == 0
    assert [(each["nb_test"], each["curves"]) for each in asked] == [(100, 33), (500, 50)]
    assert not asked[0]["diagnostics"]


@pytest.mark.parametrize(
    ("verdict", "least", "status", "said"),
    [
        (HOLDS, 0.05, 0, "passed"),
        (FIRST_LOOK, 0.05, 0, "passed"),
        (NOT_CONVERGED, 0.05, 1, "failed, the verdict is not converged"),
        (HOLDS, 0.1, 0, "passed"),  # the worst case is 1 of 10
        (HOLDS, 0.11, 1, "failed, the worst case at eps 0.2 is 0.100"),
        (UNTRUSTWORTHY, 0.05, 1, "failed, the verdict is untrustworthy"),
        (BROKEN, 0.3, 1, "failed, the worst case at eps 0.2 is 0.100 and the verdict is broken"),
        (BROKEN, None, 0, ""),
    ],
)
def test_fail_under(run, monkeypatch, verdict, least, status, said):
    record = replace(RECORD, verdict=Verdict(verdict, ("A reason.",)))
    monkeypatch.setattr(assessment_module, "assess", lambda *args, **kwargs: record)
    options = () if least is None else ("--fail-under", least, "--min-n", 10)
    found, out, err = run("evaluate", "mmc.pt", "--output", "here", "--quiet", *options)
    assert (found, err) == (status, "")
    assert Path("here/report.json").is_file()  # the report is there either way
    assert said in out
    assert ("--fail-under" in out) == (least is not None)


# --------------------------------------------------------------------------------------------------------------- state


def test_state_of_another_evaluation_is_a_line(run, monkeypatch):
    """Ctrl-C once the state folder is there."""

    def interrupted(self, target, x, y, plans, pristine):
        robustness.StateFolder(self.folder, self._fingerprint(target, x, y, plans))
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness.RobustnessEvaluation, "_run", interrupted)
    line = ("evaluate", "mmc.pt", *QUICK, 0, "--output", "here")
    status, _, err = run(*line)
    assert (status, err) == (130, "art-mmc: interrupted; the same command goes on from the last finished batch\n")
    status, _, err = run(*line, "--seed", 1)
    assert status == 2
    assert err.startswith("art-mmc: error: here/state holds another evaluation")
    assert err.count("\n") == 1


def test_diagnostics_and_curves_go_on_where_they_were(tmp_path, monkeypatch):
    """Stopped before the fifth file of each, and again at the next; nothing that is kept runs again."""
    classifier, x, y = linear(1.0)
    x, y = x[2:4], y[2:4]
    folder, plan = tmp_path / "state", AttackPlan("PGD", "pgd", "margin", 0.1, steps=3, step_size=0.05)

    def found(place: Path | None) -> dict:
        evaluation = RobustnessEvaluation([plan], folder=place, verbose=False)
        record = evaluation.evaluate(classifier, x, y)
        keep = None if evaluation.state is None else evaluation.state.count
        curves = measure_curves(classifier, x, y, 0.1, steps=(1,), steps_over_eps=1, keep=keep)
        return timeless(replace(record, curves=curves).to_dict())

    write = robustness.write_atomically
    for stop in ("diagnostic-*", "curve-*"):

        def stops(files, stop=stop):
            if len(list(folder.glob(stop))) == 4:
                raise KeyboardInterrupt
            return write(files)

        monkeypatch.setattr(robustness, "write_atomically", stops)
        with pytest.raises(KeyboardInterrupt):
            found(folder)
    monkeypatch.setattr(robustness, "write_atomically", write)
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert found(folder) == found(None)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    clear_states((folder,))
    assert not folder.exists()


def test_clear_states_removes_only_what_an_evaluation_wrote(tmp_path):
    for name in ("000-0000.npz", "evaluation.json", "thesis.tex", "data.npz"):
        (tmp_path / "state" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "state" / name).write_text("")
    clear_states((tmp_path / "state", tmp_path / "none"))
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["data.npz", "thesis.tex"]


# --------------------------------------------------------------------------------------------------------------- errors


def test_an_attack_that_crashes_is_a_line_with_its_name(run, monkeypatch):
    def generate(self, x, y=None, **kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr("art.attacks.evasion.FastGradientMethod.generate", generate)
    status, out, err = run("evaluate", "mmc.pt", *QUICK, 0)
    assert (status, out) == (2, "")
    assert "attack 'FGSM'" in err
    assert "planted" in err
    assert not list(Path("runs").rglob("report.*"))  # it never counts as robustness


def test_report_makes_the_files_again(run):
    write_robustness(replace(pictured(), curves=None, inputs=None), "first")
    status, out, err = run("report", "first/report.json", "--output", "second")
    assert (status, err) == (0, "")
    assert "verdict: broken" in out
    for path in Path("first").iterdir():
        if path.suffix != ".npz":
            assert path.read_bytes() == (Path("second") / path.name).read_bytes(), path.name
    status, out, _ = run("report", "first/report.json", "second/report.json", "--output", "both")
    assert status == 0
    assert Path("both/report.md").read_text().count("| my net |") == 4


# ----------------------------------------------------------------------------------------------- below the command line


def digits() -> Dataset:
    return load_dataset("digits")


def test_load_any_leaves_the_network_in_evaluation_mode(place, monkeypatch):
    monkeypatch.chdir(place)
    for file, factory in (("mmc.pt", None), ("net.ts", None), ("net.pth", "usersnets:plain")):
        classifier, _ = load_any(file, digits().x_test, 10, factory)
        assert isinstance(classifier, PyTorchClassifier)
        assert not classifier.model.training
        assert classifier.clip_values is not None
        assert (classifier.predict(digits().x_test[:50]).argmax(axis=1) == digits().y_test[:50]).mean() > 0.8


def test_a_checkpoint_with_a_backbone_of_the_user_s(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    own = create_classifier("pc", NETS["backbone"](), input_shape=(1, 8, 8), nb_classes=10, device_type="cpu")
    own.save_checkpoint(tmp_path / "own.pt")
    with pytest.raises(ValueError, match="for a backbone of your own give --factory module:function"):
        load_any(tmp_path / "own.pt", digits().x_test, 10)
    again, kind = load_any(tmp_path / "own.pt", digits().x_test, 10, "usersnets:backbone")
    assert (again.defence, kind) == ("pc", "art_mmc checkpoint, backbone by usersnets:backbone")
    np.testing.assert_array_equal(again.predict(digits().x_test[:5]), own.predict(digits().x_test[:5]))


def test_a_factory_gets_what_it_asks_for(monkeypatch):
    seen = []

    def build(nb_classes, width=3):
        seen.append((nb_classes, width))
        return torch.nn.Flatten()

    monkeypatch.setitem(sys.modules, "nets", SimpleNamespace(build=build))
    before = list(sys.path)
    assert isinstance(build_network("nets:build", (1, 8, 8), 10), torch.nn.Flatten)
    assert seen == [(10, 3)]
    assert sys.path == before


# --------------------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize(
    ("eps", "norm", "radii"),
    [
        (0.2, np.inf, (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)),
        (0.8, np.inf, (0.2, 0.4, 0.6, 0.8)),  # in [0, 1] no ball is larger than 1
        (0.8, 2, (0.2, 0.4, 0.6, 0.8, 1.2, 1.6)),
    ],
)
def test_radii_of_curves(eps, norm, radii):
    assert curve_radii(eps, norm) == pytest.approx(radii)


def linear(scale: float) -> tuple[PyTorchClassifier, np.ndarray, np.ndarray]:
    """Two classes, logits +-scale * (sum of (x - 1/2)): the distance to the boundary in L-inf is |mean(x) - 1/2|."""
    weight = scale * np.array([[-1.0], [1.0]]) * np.ones(16)
    classifier = planted.linear(weight, -weight.sum(axis=1) / 2, input_shape=(1, 4, 4))
    offsets = np.array([-0.25, -0.15, -0.05, 0.05, 0.15, 0.25], np.float32)
    return classifier, np.tile(0.5 + offsets[:, None, None, None], (1, 1, 4, 4)), (offsets > 0).astype(np.int64)


def test_curves_of_a_linear_model_are_known():
    """Samples at distances 0.25, 0.15 and 0.05: PGD on any objective fells exactly those nearer than eps."""
    classifier, x, y = linear(1.0)
    curves = measure_curves(classifier, x, y, [0.1, 0.2], steps=(1, 20), steps_over_eps=20)
    assert curves.objectives == ("loss", "cross_entropy", "soft_margin")
    assert curves.eps == pytest.approx((0.05, 0.1, 0.15, 0.2, 0.3, 0.4))
    assert (curves.n, curves.clean, curves.at) == (6, 6, 0.2)
    for objective in curves.objectives:
        counts = dict(zip(np.round(curves.eps, 6), curves.over_eps[objective], strict=True))
        assert [counts[eps] for eps in (0.1, 0.2, 0.3, 0.4)] == [4, 2, 0, 0]
        assert curves.over_steps[objective] == (2, 2)
        assert curves.zero[objective] == (0,) * 7


def test_zero_gradients_are_counted_where_the_softmax_saturates():
    """At scale 20 the logits of the far samples are 2 * 20 * 16 * 0.25 = 160 apart, the near ones' 32."""
    classifier, x, y = linear(20.0)
    curves = measure_curves(classifier, x, y, 0.02, samples=6, steps=(1,), steps_over_eps=1)
    assert curves.zero["cross_entropy"][0] == 2
    assert curves.zero["soft_margin"] == (0,) * 7


def test_curves_round_trip_and_repeat():
    classifier, x, y = linear(1.0)
    options = {"steps": (1, 3), "steps_over_eps": 3, "samples": 4}
    first = measure_curves(classifier, x, np.eye(2)[y], 0.2, 2, **options)
    assert Curves.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    again = measure_curves(classifier, x, y, 0.2, 2, **options)
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)
    assert first.n == 4
    with pytest.raises(ValueError, match="samples and steps"):
        measure_curves(classifier, x, y, 0.2, samples=0)
