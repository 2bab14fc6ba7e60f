"""`art-mmc detect` and the study behind it: what it writes, and that a user's mistake is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from art.attacks.evasion import FastGradientMethod

from art_mmc.data import Dataset
from art_mmc.evaluation import AttackError, engine
from art_mmc.reports.detect import (
    auc_table,
    joint_table,
    load_study,
    markdown_report,
    published_tables,
    roc_figure,
    text_table,
    title,
    write_report,
)
from art_mmc.studies.detect import DetectionStudy, detection_eps, run_detection_study, settled
from art_mmc.studies.settings import Detect

QUICK = ["--attack-share", "0.0001", "--nb-test", "9", "--nb-white-box", "3", "--epochs", "2", "--quiet"]
QUICK += ["--device", "cpu"]


@pytest.fixture(scope="module")
def study(trained, digits) -> DetectionStudy:
    """Two classifiers, two detectors, three attacks."""
    dataset = replace(digits, name="mnist")  # a name that has published figures
    seen = []
    settings = Detect(
        detector=["confidence", "kernel-density"],
        attack=["fgsm", "jsma", "cw-wb", "pgd-wb"],
        eps=0.2,
        attack_share=0.002,
        nb_test=30,
        nb_white_box=4,
        fit_per_class=50,
        seed=1,
        quiet=True,
    )
    study = run_detection_study(
        {name: trained[name] for name in ("sce", "rce")},
        dataset,
        settled(settings, dataset),
        on_attack=lambda classifier, attack, records: seen.append((classifier, attack, len(records))),
    )
    rows = [("FGSM", 2), ("JSMA", 2), ("C&W-wb", 1), ("PGD-wb", 2)]
    assert seen == [(name, *row) for name in ("sce", "rce") for row in rows]
    return study


def test_the_records_of_a_study(study, trained, digits):
    assert study.classifiers == ["sce", "rce"]
    assert study.detectors == ["confidence", "kernel-density"]
    assert study.attacks == ["FGSM", "JSMA", "C&W-wb", "PGD-wb"]
    assert len(study.records) == 14
    facts = study.provenance
    assert (facts["n"], facts["n_calibration"], facts["eps"], facts["seed"]) == (30, len(digits.x_test) - 30, 0.2, 1)
    assert facts["n_fit"] == 500
    record = study.get("rce", "kernel-density", "FGSM")
    assert (record.n, record.eps, record.seed) == (30, 0.2, 1)
    assert record.settings["eps"] == 0.2
    assert record.threshold == facts["classifiers"]["rce"]["detectors"]["kernel-density"]["threshold"]
    assert record.calibrated_on.startswith(str(len(digits.x_test) - 30))
    assert record.clean_correct.mean() == facts["classifiers"]["rce"]["clean_accuracy"]["value"]
    assert study.get("rce", "confidence", "C&W-wb") is None
    assert study.get("rce", "kernel-density", "C&W-wb").n == 4
    # an attack that knows the detector is another one for each
    a, b = (study.get("sce", name, "PGD-wb") for name in study.detectors)
    assert (a.adversarial_correct != b.adversarial_correct).any()
    assert len(study.white_box) == 2


def of_sixty(trained, digits, **settings) -> DetectionStudy:
    """One classifier, one detector, one attack."""
    dataset = replace(digits, x_test=digits.x_test[:60], y_test=digits.y_test[:60])
    settings = settled(Detect(detector=["confidence"], attack=["fgsm"], quiet=True, **settings), dataset)
    return run_detection_study({"sce": trained["sce"]}, dataset, settings)


def test_images_that_set_the_threshold_are_not_attacked(trained, digits):
    few = of_sixty(trained, digits, nb_test=40)
    assert few.provenance["n_calibration"] == 0  # 20 are too few for 5 %
    assert "held-out" in few.records[0].calibrated_on


def test_an_attack_that_leaves_its_ball_is_refused_by_the_rule_of_the_evaluation(trained, digits, monkeypatch):
    """By less than a hundred-thousandth, which is more than rounding there."""

    def far(self, x, y=None, **kwargs):
        return np.where(x > 0.5, x - np.float32(0.100009), x + np.float32(0.100009))

    monkeypatch.setattr(FastGradientMethod, "generate", far)
    with pytest.raises(AttackError, match="attack 'FGSM' at eps 0.1 left the ball: L-inf distance 0.10000"):
        of_sixty(trained, digits, nb_test=10, eps=0.1)


def test_a_study_survives_its_files(study, tmp_path):
    files = write_report(study, tmp_path / "new")
    assert [path.name for path in files] == ["report.md", "report.json", "roc.png"]
    again = load_study(files[1])
    assert again.to_dict() == json.loads(files[1].read_text())
    assert files[0].read_text() == markdown_report(again)
    assert "C&W with 0.2 % of the paper's 10,000 steps" in markdown_report(again)
    assert files[2].read_bytes().startswith(b"\x89PNG")
    (tmp_path / "other.json").write_text('{"format": "art_mmc.comparison"}')
    with pytest.raises(ValueError, match="no report of art-mmc detect"):
        load_study(tmp_path / "other.json")


def cells(table: str, first: str) -> list[str]:
    """The cells of the row that begins so, without the first."""
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_tables_say_what_the_records_say(study):
    record = study.get("sce", "kernel-density", "FGSM")
    areas, joint = auc_table(study), joint_table(study)
    columns = ("n", "confidence", "K-density")
    assert cells(areas, "Attack") == [f"{name}: {column}" for name in ("sce", "rce") for column in columns]
    assert cells(areas, "FGSM")[0] == str(record.kept.sum())
    assert cells(areas, "FGSM")[2] == f"{100 * record.auc().value:.1f}"
    assert cells(areas, "C&W-wb")[1] == "-"
    assert cells(joint, "FGSM")[0] == f"{100 * record.adversarial_correct.mean():.1f}"
    assert cells(joint, "FGSM")[2] == f"{100 * record.correct_or_detected.value:.1f}"
    assert cells(joint, "PGD-wb")[0] == "-"
    parts = dict(part.split("\n", 1) for part in markdown_report(study).split("\n## ")[1:])
    (details,) = (part for name, part in parts.items() if name.startswith("With intervals"))
    (white_box,) = (part for name, part in parts.items() if name.startswith("C&W with the density"))
    details, white_box = ([line for line in part.splitlines() if line[:1] == "|"] for part in (details, white_box))
    assert len(details) == 2 + 14
    assert text_table(study).splitlines()[0].split() == auc_table(study).splitlines()[0].replace("|", " ").split()
    white = study.white_box[0]
    assert white_box[2].endswith(f"| {white.seconds:.1f} |")
    assert (white.succeeded.n, white.failed.count) == (4, int((~white.passed).sum()))


def test_no_conclusion_from_an_attack_without_a_ball_that_failed(study):
    """C&W-wb with a handful of steps fails; FGSM has a ball, and need not fool all images."""

    def changed(share: float) -> DetectionStudy:
        correct = np.ones(20, bool)
        records = tuple(
            replace(r, clean_correct=correct, adversarial_correct=np.arange(20) >= round(20 * share),
                    clean_scores=np.zeros(20), adversarial_scores=np.arange(20.0))
            for r in study.records
        )  # fmt: skip
        return replace(study, records=records)

    for share, brackets in ((0.95, False), (0.9, True)):
        found = changed(share)
        record = found.get("sce", "kernel-density", "C&W-wb")
        assert record.fooled.value == pytest.approx(share)
        assert record.conclusive is not brackets
        assert found.get("sce", "kernel-density", "JSMA").conclusive is not brackets
        assert found.get("sce", "kernel-density", "FGSM").conclusive
        assert ("(" in " ".join(cells(auc_table(found), "C&W-wb"))) is brackets
        for text in (text_table(found), markdown_report(found)):
            assert ("fewer than 95% of the images" in text) is brackets
            assert ("C&W-wb on sce (90.0 %)" in text) is brackets


def test_a_detector_beyond_the_six_is_told_by_its_name(study):
    changed = replace(study, records=tuple(replace(each, detector="max-logit") for each in study.records))
    for text in (text_table(changed), markdown_report(changed)):
        assert "max-logit" in text
    assert roc_figure(changed).legends[0].get_texts()[0].get_text() == "max-logit"


def test_published_figures_are_cited_and_marked(study):
    text = published_tables(study)
    assert "https://arxiv.org/abs/1706.00633" in text
    assert "could not be verified" in text
    assert cells(text, "FGSM") == ["79.7*", "66.8*", "98.8*", "98.8*", "98.6*", "99.4*"]
    assert "| rce | .77 | 31.59* |" in text
    other = replace(study, provenance={**study.provenance, "dataset": "digits"})
    assert published_tables(other) == ""
    assert "Published" not in markdown_report(other)


def test_default_radius():
    for channels, eps in ((1, 0.16), (3, 8 / 255)):
        x, y = np.zeros((4, channels, 8, 8), np.float32), np.arange(4) % 2
        assert detection_eps(Dataset("grey, then colour", x, y, x, y)) == eps


@pytest.mark.thorough
def test_detect_trains_attacks_and_writes(run, tiny, monkeypatch):
    """Once interrupted after six batches, which do not run again and are read as they were: also what still stands."""
    line, made = ("detect", "--dataset", tiny, *QUICK, "--attack", "fgsm,cw-wb,pgd-wb"), []
    whole = engine.attack_batch

    def stops(*batch, **settings):
        if len(made) == 6:
            raise KeyboardInterrupt
        made.append(whole(*batch, **settings))
        return made[-1]

    assert run(*line, "--output", "straight")[0] == 0
    monkeypatch.setattr(engine, "attack_batch", stops)
    told = "art-mmc: interrupted; the same command goes on from the last finished batch\n"
    assert run(*line, "--output", "found") == (130, "", told)
    monkeypatch.setattr(engine, "attack_batch", lambda *batch: made.append(whole(*batch)) or made[-1])
    status, out, err = run(*line, "--output", "./found", "--threads", "1")  # which decide nothing
    assert (status, err) == (0, "")
    assert len(made) == 10  # of each network five: PGD-wb is another one for each detector
    one, other = (load_study(f"{folder}/report.json") for folder in ("straight", "found"))
    for ours, theirs in zip(one.records, other.records, strict=True):
        np.testing.assert_array_equal(ours.adversarial_scores, theirs.adversarial_scores)
    assert [list(each.hit) for each in one.white_box] == [list(each.hit) for each in other.white_box]
    assert sorted(path.name for path in Path("found").iterdir()) == ["report.json", "report.md", "roc.png"]
    study = load_study("found/report.json")
    assert study.classifiers == ["sce", "rce"]
    assert study.detectors == ["confidence", "non-me", "kernel-density"]
    assert text_table(study) in out
    assert out.rstrip().endswith("wrote found/report.md, found/report.json, found/roc.png")
    assert Path("found/report.md").read_text() == markdown_report(study)
    source = study.provenance["classifiers"]["sce"]["source"]
    assert (source["recipe"], source["epochs"], source["backbone"]) == ("default", 2, "cnn")
    assert study.provenance["n"] == 9


def test_detect_takes_checkpoints_and_says_what_it_does(run, tiny, trained, tmp_path, capsys):
    trained["mmc"].save_checkpoint(tmp_path / "mine.pt")
    quick = [option for option in QUICK if option not in ("--epochs", "2", "--quiet")]
    status, out, err = run(
        "detect", "--checkpoint", "mine.pt", "--dataset", tiny, *quick, "--detector", "center-distance,mahalanobis",
        "--attack", "bim", "--eps", "51/255", "--output", "found",
    )  # fmt: skip
    assert status == 0
    study = load_study("found/report.json")
    assert study.classifiers == ["mine"]
    assert study.provenance["classifiers"]["mine"]["source"] == {"checkpoint": "mine.pt"}
    assert study.provenance["classifiers"]["mine"]["defence"] == "mmc"
    assert study.provenance["eps"] == 0.2
    assert f"mine, BIM: {100 * study.records[0].adversarial_correct.mean():.1f} % still correct" in out
    assert all(title(name) in out for name in ("center-distance", "mahalanobis"))
