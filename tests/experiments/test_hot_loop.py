"""What a loop costs: medians, shares and rates known by hand."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.html_page import unlinked

from lab.errors import UsageError
from lab.experiments import hot_loop as study
from lab.hotloop import REFERENCE_SUM, TOLERANCE
from lab.study.runs import open_run

PARAMETERS: dict[str, Any] = {"run": "", "kernels": ["python"], "iterations": 1000, "repeats": 3, "rate": 50}


@pytest.fixture
def loops() -> pd.DataFrame:
    """Kernel `numpy` takes 1, 2, 3, 4, 10 ms, all of it on the CPU; `python` ten times that, half."""
    return pd.DataFrame(
        [
            {"kernel": kernel, "repeat": n, "wall_s": slower * n / 1000, "cpu_s": share * slower * n / 1000}
            for kernel, slower, share in (("numpy", 1, 1.0), ("python", 10, 0.5))
            for n in (1, 2, 3, 4, 10)
        ]
    )


def test_costs_by_hand_the_slowest_first(loops: pd.DataFrame) -> None:
    python, numpy = study.costs(loops).to_dict("records")
    assert (python["kernel"], numpy["kernel"]) == ("python", "numpy")
    assert python["median_s"] == pytest.approx(0.030)
    assert python["p95_s"] == pytest.approx(0.088)  # numpy's linear method: 40 + .8 x (100 - 40) ms
    assert python["loops_rps"] == pytest.approx(1 / 0.030)
    assert (python["cpu_share"], numpy["cpu_share"]) == pytest.approx((0.5, 1))


def test_the_cores_that_a_rate_keeps_busy_are_rate_times_loop_time(loops: pd.DataFrame) -> None:
    costs = study.costs(loops)
    table = study.cost_table(costs, rate_rps=50)
    assert table["cores busy at 50.0/s"].tolist() == ["1.50", "0.150"]
    answer = unlinked(study.answer(costs, rate_rps=50))
    assert "one of kernel `python` took 30.0 ms of a core in the median" in answer
    assert "1.50 cores" in answer
    assert "10.0 times" in answer


def test_what_is_stated_is_of_one_sitting_and_so_without_an_interval(loops: pd.DataFrame) -> None:
    python, numpy, faster = study.estimates(loops.assign(iterations=1000))
    assert (python.factors, numpy.factors) == (
        "iterations=1000, kernel=python",
        "iterations=1000, kernel=numpy",
    )
    assert (python.value, python.low, python.high) == pytest.approx((0.030, 0.010, 0.100))
    assert faster.quantity == "times as fast as kernel python"
    assert faster.value == pytest.approx(10)
    assert {(row.n, row.interval.covers, row.smallest_told) for row in (python, numpy, faster)} == {
        (1, False, None)
    }
    assert study.estimates(loops)[0].factors == "kernel=python", "a run may be older than that column"


@pytest.mark.parametrize("iterations", [{}, {"iterations": 1000}], ids=["an older run", "a run"])
def test_numbers_of_the_answer_lead_to_the_estimates(loops: pd.DataFrame, iterations: dict[str, int]) -> None:
    loops = loops.assign(**iterations)
    python, _, faster = study.estimates(loops)
    linked = re.findall("#estimate-([0-9a-f]{10})", study.answer(study.costs(loops), rate_rps=50))
    assert linked == [python.key, faster.key]


def test_one_kernel_is_compared_with_no_other(loops: pd.DataFrame) -> None:
    costs = study.costs(loops[loops["kernel"] == "python"])
    assert "times as fast" not in study.answer(costs, rate_rps=50)


def test_the_kernels_agree_within_their_tolerance() -> None:
    table = study.agreement(list(TOLERANCE))
    assert table["kernel"].tolist() == list(TOLERANCE)
    for _, row in table.iterrows():
        assert float(row["sum"]) == pytest.approx(REFERENCE_SUM, rel=float(row["tolerance"]))
        assert float(row["relative difference"]) <= float(row["tolerance"])


def test_loops_are_timed_once_per_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    run = open_run("once")
    first = study.measure(run, ["python", "numpy"], iterations=1000, repeats=3)
    assert first["kernel"].tolist() == ["python"] * 3 + ["numpy"] * 3
    assert first["repeat"].tolist() == [1, 2, 3] * 2
    assert (first["wall_s"] > 0).all()
    pd.testing.assert_frame_equal(study.measure(run, ["python", "numpy"], iterations=1000, repeats=3), first)
    assert len(study.measure(run, ["python"], iterations=1000, repeats=2)) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kernels": []}, "kernels"),
        ({"kernels": ["python", "pithon"]}, r"kernels\[1\]"),
        ({"repeats": 0}, "repeats"),
        ({"rate": -5}, "rate"),
        ({"iterations": 1.5}, "iterations"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)
