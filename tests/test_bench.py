"""The bench: fair turns, true ratios, true peaks, and work that nobody reads left undone."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet

from art_mmc.bench import GROUPS, Settings, select, summary_table, write_bench
from art_mmc.bench.cases import CASES, case_megabytes, find_case
from art_mmc.bench.growth import CURVES, SUBJECTS, measure_curve, slope, worst_step
from art_mmc.bench.measure import (
    Case,
    Check,
    Contest,
    alternate,
    in_fresh_process,
    peak_megabytes,
    run_case,
    seconds,
)
from art_mmc.bench.report import (
    bench_markdown,
    bench_text,
    conditions,
    curves_text,
    format_figure,
    growth_figure,
    read_rows,
)
from art_mmc.cli import main
from art_mmc.reports import read_document
from art_mmc.studies.setup import ORDER
from tests.conftest import left_alone
from tests.handmade import MACHINE

QUICK = Settings(quick=True)


# ------------------------------------------------------------------------------------------------------------- timing


def _case(unit="s", **contenders) -> Case:
    return Case("made-up", "attacks", "a job", lambda settings: Contest(contenders, "made up", unit=unit))


def test_contenders_take_turns_and_the_first_round_does_not_count(monkeypatch):
    # two contenders, three rounds, the second one backwards: a 9, b 20; b 4, a 2; a 4, b 8
    clock = iter([0, 9, 9, 29, 29, 33, 33, 35, 35, 39, 39, 47])
    monkeypatch.setattr("art_mmc.bench.measure.timer", lambda: float(next(clock)))
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    first, second = run_case(_case(**contenders), Settings(), rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert (first.median, first.ratio, first.reference, first.unit) == (3.0, 1.0, "a", "s")
    assert (second.median, second.least, second.most, second.ratio) == (6.0, 4.0, 8.0, 2.0)


def test_ratio_is_the_median_of_each_round_s_own():
    """A machine that is three times slower in one round moves no ratio, though it moves the medians."""
    times = {"a": iter([1.0, 9.0, 2.0]), "b": iter([2.0, 18.0, 4.0])}
    _, second = run_case(_case("MB", **{name: lambda name=name: next(times[name]) for name in "ab"}), QUICK, 3)
    assert (second.median, second.ratio) == (4.0, 2.0)


def test_repeats_share_the_time(monkeypatch):
    clock = iter([0.0, 6.0])
    monkeypatch.setattr("art_mmc.bench.measure.timer", lambda: next(clock))
    calls = []
    assert seconds(lambda: calls.append(1), repeats=3) == 2.0
    assert len(calls) == 3


def test_no_memory_at_all_is_no_division_by_zero():
    case = _case("MB", a=lambda: 0.0, b=lambda: 0.0, c=lambda: 5.0)
    assert [row.ratio for row in run_case(case, QUICK, rounds=1)] == [1.0, 1.0, 2.0]


def test_no_rounds():
    with pytest.raises(ValueError, match="rounds"):
        alternate({"a": lambda: 0.0}, rounds=0)


# --------------------------------------------------------------------------------------------------------------- jobs


def _job(name: str) -> ParameterSet:
    """Jobs on two networks run on the small one; the larger takes the same lines half a minute longer."""
    twin = name.endswith("resnet20") and name.replace("resnet20", "lenet5") in CASES
    return pytest.param(name, marks=[pytest.mark.slow] if twin else [])


@pytest.mark.parametrize("name", [_job(name) for name, case in CASES.items() if case.group != "memory"])
def test_every_job_builds_and_runs(name):
    with left_alone():
        rows = run_case(CASES[name], QUICK, rounds=1)
    assert rows[0].ratio == 1.0
    assert all(row.median > 0 and row.note for row in rows)
    asked = [row for row in rows if row.asked]
    assert len(asked) == (0 if CASES[name].goal is None else 9 if name.startswith("step") else 1)
    assert all(row.met is (row.ratio <= CASES[name].goal) for row in asked)


def test_rows_for_a_gpu_are_there_to_be_asked_for():
    settings = Settings(quick=True, bfloat16=True, compile=True)
    wanted = ["ART", "art_mmc", "art_mmc, bfloat16", "art_mmc, compiled", "art_mmc, bfloat16, compiled"]
    assert list(CASES["pgd-resnet20"].build(settings).contenders) == wanted
    rows = run_case(CASES["fgsm-lenet5"], Settings(quick=True, bfloat16=True), rounds=1)
    assert [row.contender for row in rows] == wanted[:3]


def _scores(first: float, second: float) -> Case:
    def build(settings: Settings) -> Contest:
        check = Check("points", lambda result: result, close=0.2, gross=10.0)
        return Contest({"ART": lambda: first, "art_mmc": lambda: second}, "made up", check=check)

    return Case("made-up", "attacks", "nothing", build)


def test_results_are_compared():
    rows = run_case(_scores(50.0, 50.1), QUICK, rounds=1)
    assert rows[1].check == {"name": "points", "value": 50.1, "reference": 50.0, "agrees": True}
    assert run_case(_scores(50.0, 53.0), QUICK, rounds=1)[1].check["agrees"] is False
    with pytest.raises(RuntimeError, match="made-up: points of art_mmc is 20, of ART 50"):
        run_case(_scores(50.0, 20.0), QUICK, rounds=1)


def test_each_loss_is_measured_by_cross_entropy_on_its_own_head():
    rows = {row.contender: row for row in run_case(CASES["step-lenet5"], QUICK, rounds=1)}
    assert rows["pc"].reference == rows["sce"].reference == "torch cross-entropy (LinearHead)"
    assert rows["center"].reference == "torch cross-entropy (CenterTrackingHead)"
    for each in rows.values():
        assert each.ratio == each.median / rows[each.reference].median
    assert {name for name, each in rows.items() if each.reference != name} == set(ORDER)


def test_choosing():
    assert select() == [*CASES, *CURVES]
    assert select(["fit", "lid-samples", "pgd-lenet5"]) == ["pgd-lenet5", "fit-lenet5", "lid-samples"]
    assert select(["growth"]) == CURVES
    assert {case.group for case in CASES.values()} | {"growth"} == set(GROUPS)
    with pytest.raises(ValueError, match="'atacks'.*Did you mean 'attacks'"):
        select(["atacks"])
    with pytest.raises(ValueError, match="job"):
        find_case("pgd-lenet")


# ------------------------------------------------------------------------------------------------------------- memory


def test_a_planted_allocation_is_seen():
    assert 199 < peak_megabytes(lambda: np.ones(25 * 2**20)) < 220
    assert 199 < peak_megabytes(lambda: torch.ones(25 * 2**20, dtype=torch.float64).sum().item()) < 220
    assert peak_megabytes(lambda: None) < 5


@pytest.mark.processes
def test_memory_in_a_process_of_its_own(monkeypatch):
    request = ("predict-lenet5", "art_mmc", asdict(QUICK))
    assert 0 <= in_fresh_process(case_megabytes, *request) < 200
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="'predict-lenet5'.*in a process of its own failed"):
        in_fresh_process(case_megabytes, *request)


def test_memory_jobs_compare_the_two_classes(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "art_mmc.bench.measure.in_fresh_process",
        lambda function, *request: asked.append(request) or 100.0 - 40 * (len(asked) % 2),
    )
    rows = run_case(CASES["memory-fit"], QUICK, rounds=9)
    assert [request[:2] for request in asked[:2]] == [("fit-lenet5", "ART"), ("fit-lenet5", "art_mmc")]
    assert len(asked) == 6  # three rounds are enough
    assert rows[0].unit == "MB"
    assert rows[1].met is not None


# ------------------------------------------------------------------------------------------------------------- growth


def test_slopes_of_power_laws():
    sizes = (1_000, 3_000, 10_000, 50_000)
    assert slope(sizes, [3e-4 * n for n in sizes]) == pytest.approx(1.0)
    assert slope(sizes, [n**2 for n in sizes]) == pytest.approx(2.0)
    assert slope(sizes, [7.0] * 4) == pytest.approx(0.0)


def test_a_step_shows():
    assert worst_step((1, 10, 100), (1.0, 10.0, 100.0)) == pytest.approx(1.0)
    assert worst_step((1, 10, 100), (1.0, 5.0, 150.0)) == pytest.approx(3.0)  # 0.5 a unit, then 1.5
    assert worst_step((1, 10, 100), (1.0, 5.0, 20.0)) < 1
    assert math.isnan(worst_step((1,), (1.0,)))


@pytest.mark.thorough
@pytest.mark.parametrize("name", [f"{each}-{('samples', 'classes')[i % 2]}" for i, each in enumerate(SUBJECTS)])
def test_every_subject_is_measured(name):
    points = measure_curve(name, asdict(QUICK))
    assert [point["size"] for point in points] == ([40, 80, 160] if name.endswith("samples") else [5, 20])
    assert all(point["seconds"] > 0 and point["megabytes"] >= 0 for point in points)


# ------------------------------------------------------------------------------------------------------------- report


def _curve(name: str = "predict-samples", exponent: float = 1.0) -> dict:
    sizes = (1_000, 10_000)
    subject, _, axis = name.rpartition("-")
    points = [{"size": n, "seconds": 1e-4 * n**exponent, "megabytes": 0.01 * n} for n in sizes]
    found = {"slope_seconds": exponent, "slope_megabytes": 1.0, "worst_step": 1.0}
    return {"name": name, "title": SUBJECTS[subject], "axis": axis, "points": points, **found}


def _bench(**more) -> dict:
    rows = run_case(CASES["centers-10"], QUICK, rounds=1) + run_case(_scores(50.0, 50.0), QUICK, rounds=1)
    return {
        "format": "art_mmc.bench",
        "version": 1,
        **MACHINE,
        "rounds": 1,
        "settings": asdict(QUICK),
        "rows": [asdict(row) for row in rows],
        "growth": [_curve(), _curve("lid-classes", 0.1)],
        **more,
    }


def test_units():
    seconds = {12.345: "12.3 s", 0.0123: "12.3 ms", 0.9996: "1000 ms", 4.56e-5: "45.6 µs", 1e-8: "0.01 µs"}
    assert {value: format_figure(value, "s") for value in seconds} == seconds
    assert format_figure(1234.5, "MB") == "1,234 MB"


def test_files_come_back_as_they_were(tmp_path):
    bench = _bench()
    files = write_bench(bench, tmp_path / "new")
    assert sorted(path.name for path in files) == ["bench.json", "bench.md", "growth.png"]
    again = read_document(tmp_path / "new" / "bench.json")
    assert again == json.loads(json.dumps(bench))
    assert [asdict(row) for rows in read_rows(again).values() for row in rows] == bench["rows"]
    assert (tmp_path / "new" / "growth.png").read_bytes().startswith(b"\x89PNG")
    write_bench({**bench, "growth": []}, tmp_path / "none")
    assert not (tmp_path / "none" / "growth.png").exists()


def test_report():
    bench = _bench()
    text = bench_markdown(bench)
    assert "| Job | Contender | Median | Least | Most | Ratio | Goal | Met |" in text
    assert "Points: 50, 50; they agree." in text
    assert "## growth" in text
    assert "| predict | samples | 1.00 | 1.00 | 1.00 | 1.00 s at 10,000 | 100 MB |" in text
    assert "Abacus 1" in conditions(bench)
    assert "predict" in curves_text(bench["growth"])
    panels = growth_figure(bench["growth"]).axes
    labels = ("seconds", "peak memory, MB")
    assert [(panel.get_xlabel(), panel.get_ylabel()) for panel in panels] == [
        (axis, label) for axis in ("samples", "classes") for label in labels
    ]
    assert len(growth_figure([_curve()]).axes) == 2


def test_the_farthest_from_the_bar_speaks_for_a_job():
    row = run_case(CASES["centers-10"], QUICK, rounds=1)[0]
    rows = [
        replace(
            row, contender=name, ratio=ratio, reference=reference, asked=bar, met=None if bar is None else ratio <= 3
        )
        for name, ratio, reference, bar in (
            ("first", 1.0, "first", None),
            ("sce", 1.5, "first", "<= 3.00"),
            ("second", 1.0, "second", None),
            ("pc", 4.0, "second", "<= 3.00"),
        )
    ]
    table = summary_table(_bench(rows=[asdict(each) for each in rows]))
    assert len(table.splitlines()) == 3
    assert "| second | pc, the slowest of 2 |" in table
    assert table.endswith("| 4.00 | <= 3.00 | no |")
    line = bench_text(rows).splitlines()[-1]
    assert line.split()[:2] == ["centers-10", "pc"]
    assert line.split()[-3:] == ["<=", "3.00", "no"]


def test_command(tmp_path, capsys):
    argv = ["bench", "--quick", "--rounds", "1", "--device", "cpu", "--threads", "1", "--output", str(tmp_path)]
    assert main([*argv, "--only", "centers,predict", "--only", "fgsm-lenet5"]) == 0
    out = capsys.readouterr().out
    assert "predict-lenet5" in out
    assert "<= 0.77" in out
    assert f"wrote {tmp_path / 'bench.json'}" in out
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["versions"]["torch"] == torch.__version__
    assert document["threads"] == 1
    assert {row["name"] for row in document["rows"]} == {"centers-10", "centers-1000", "predict-lenet5", "fgsm-lenet5"}
    assert main(["bench", "--only", "fitt", "--device", "cpu"]) == 2
    assert "Did you mean 'fit'" in capsys.readouterr().err
