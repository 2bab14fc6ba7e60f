"""`art-mmc inspect`: the report that it writes, and that a user's mistake is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from art_mmc import load_classifier
from art_mmc.cli import main
from art_mmc.data import load_dataset
from art_mmc.reports.inspect import inspection_report
from art_mmc.studies.setup import network_names
from art_mmc.theory import compactness_ratio, features_and_logits
from tests.conftest import left_alone

QUICK = ["--nb-train", "400", "--nb-test", "60", "--nb-points", "40", "--steps", "2", "--device", "cpu"]
QUICK += ["--eps", "0.05,0.1,0.2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two networks of `art-mmc train`, briefly trained."""
    path = tmp_path_factory.mktemp("runs")
    for name in ("sce", "mmc"):
        line = f"train --defence {name} --epochs 4 --output {path / name}.pt --quiet --device cpu"
        assert main(line.split()) == 0
    return path


@pytest.mark.thorough
def test_report_on_two_networks(folder, run):
    line = ("inspect", folder / "sce.pt", folder / "mmc.pt", *QUICK, "--output", "out", "--threads", "1")
    with left_alone():
        status, out, err = run(*line)
    assert (status, err) == (0, "")
    files = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    pictures = {"density", "density-loss", "boundary", "gap", "ranks", "convergence", "features-sce", "features-mmc"}
    assert set(files) == {"report.md", "report.json", *(f"{name}.png" for name in pictures)}
    for name in pictures:
        assert files[f"{name}.png"].startswith(b"\x89PNG")
        assert f"({name}.png)" in files["report.md"].decode()
    document = json.loads(files["report.json"])
    facts = document["provenance"]
    assert (document["format"], facts["dataset"], facts["sources"]["sce"]) == ("art_mmc.inspection", "digits", "sce.pt")
    own = inspection_report({**document, "provenance": {**facts, "dataset": "/home/me/own.npz"}})
    assert "networks on own.npz" in own
    assert "/home" not in own
    sce, mmc = document["inspections"]
    assert [sce["defence"], mmc["defence"]] == ["sce", "mmc"]
    data = load_dataset("digits")
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.y_train))[:400])
    for each in (sce, mmc):
        classifier = load_classifier(folder / f"{each['name']}.pt", device_type="cpu")
        z, _ = features_and_logits(classifier, data.x_train[chosen])
        assert each["compactness_ratio"]["train"] == pytest.approx(compactness_ratio(z, data.y_train[chosen]))
        assert [record["epoch"] for record in each["history"]] == [1, 2, 3, 4]
        assert each["ranks"]["eps"] == [0.05, 0.1, 0.2]
        assert each["adversarial_eps"] == 0.1
        assert f"{each['name']}: clean {100 * each['clean_accuracy']['accuracy']:.1f} %" in out
    assert mmc["compactness_ratio"]["train"] < sce["compactness_ratio"]["train"]
    assert [measure["means"] for measure in mmc["robustness_measure"]] == ["head's centers", "class means"]
    report = files["report.md"].decode()
    counts = np.array(mmc["ranks"]["attacks"]["FGSM"]["newly_fooled_by_rank"])[1]
    share = 100 * counts[0] / counts.sum()
    assert f"| mmc | FGSM | 0.1 | {counts.sum()} | {share:.1f} |" in report
    assert "art-mmc compare" in report  # where robustness is measured
    assert str(folder) not in report


def test_one_network_without_history(folder, run, tmp_path):
    shutil.copy(folder / "mmc.pt", tmp_path / "my net.pt")
    status, out, err = run("inspect", "my net.pt", *QUICK, "--quiet")
    assert (status, err) == (0, "")
    assert out.startswith("wrote ")
    assert len(out.splitlines()) == 1
    names = {path.name for path in Path("runs/inspect").iterdir()}
    assert "features-my net.png" in names
    assert "convergence.png" not in names
    report = Path("runs/inspect/report.md").read_text()
    assert "(features-my%20net.png)" in report
    assert "## Convergence" not in report


def test_names_of_networks():
    assert network_names([Path("a/sce.pt"), Path("b/mmc.pt")]) == ["sce", "mmc"]
    assert network_names([Path("a.run/best.pt"), Path("b.run/best.pt"), Path("c.pt")]) == ["a-best", "b-best", "c"]
    with pytest.raises(ValueError, match="both be called 'a-best'"):
        network_names([Path("a.run/best.pt"), Path("x/a/best.pt")])
