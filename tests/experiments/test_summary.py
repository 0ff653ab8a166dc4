"""The summary: one answer from whatever a run has measured, and a word on what it has not."""

from pathlib import Path
from typing import Any

import pytest
from helpers.trial_rows import trials

from lab.errors import LabError
from lab.experiments import rate_sweep, single_vs_cluster, summary, worker_scaling
from lab.machine import describe
from lab.study.run import open_run

SCALED = trials(
    {"workers": 1, "throughput_rps": 10.0},
    {"workers": 2, "throughput_rps": 18.0},
    {"workers": 4, "throughput_rps": 17.0, "service_p50_s": 0.4},
    topology="cluster",
)
SWEPT = trials(
    {"rate": 5.0, "load": 0.5},
    {"rate": 12.0, "load": 1.2, "latency_p99_s": 3.0},
    {"topology": "cluster", "workers": 2, "rate": 10.0, "load": 0.5},
)
ARTICLE = trials({}, {"topology": "cluster", "workers": 2})
MEASURED = {
    worker_scaling.EXPERIMENT: SCALED,
    rate_sweep.EXPERIMENT: SWEPT,
    single_vs_cluster.EXPERIMENT: ARTICLE,
}


def _answer(*measured: str) -> str:
    return summary.answer({name: MEASURED[name] for name in measured}, cpus=2, slo_loops=3)


def test_the_answer_is_of_scaling_and_the_sweep_and_there_is_one() -> None:
    text = _answer(*MEASURED)
    assert text.startswith("**Answer.** One worker answers 10.0/s")
    assert "1.80 times" in text
    assert "one process **up to 5.00/s**" in text
    assert text.count("**Answer.**") == 1
    assert text == _answer(worker_scaling.EXPERIMENT, rate_sweep.EXPERIMENT)


@pytest.mark.parametrize("missing", MEASURED)
def test_what_is_missing_leaves_the_rest(missing: str) -> None:
    left = [name for name in MEASURED if name != missing]
    text = _answer(*left)
    assert all(_answer(name).removeprefix("**Answer.** ") in text for name in left)


def test_a_run_with_nothing_in_it_says_so() -> None:
    assert "has measured nothing" in _answer()
    assert summary.scaling_figure({}, cpus=2) is None
    assert summary.sweep_figure({}, slo_loops=3) is None
    assert summary.health_table({}).empty
    assert "not measured" in str(summary.workers_table({}, [10], 1, cpus=2).iloc[0, 0])


def test_the_service_time_is_of_busy_cpus_but_not_of_shared_ones() -> None:
    rows = trials(
        {"workers": 1, "service_p50_s": 0.1},
        {"workers": 2, "service_p50_s": 0.2},
        {"workers": 2, "service_p50_s": 0.3},
        {"workers": 4, "service_p50_s": 0.9},
    )
    assert summary.busy_service_s(rows, cpus=2) == pytest.approx(0.25)
    assert summary.busy_service_s(rows, cpus=3) == pytest.approx(0.25)
    assert summary.busy_service_s(rows, cpus=1) == pytest.approx(0.1)


def test_workers_by_queueing_theory() -> None:
    """8 erlangs with a p99 of the wait within one service time need 10 workers on one central queue."""
    table = summary.workers_table({worker_scaling.EXPERIMENT: SCALED}, [5.0, 80.0], wait_loops=1, cpus=2)
    assert table["offered rate"].tolist() == ["5.00/s", "80.0/s"]
    assert table["workers kept busy on average"].tolist() == ["0.500", "8.00"]
    assert table["workers needed"].iloc[1] == 10
    assert table["on these 2 CPUs"].tolist()[1] == "needs more CPUs"
    assert ((table["workers needed"] <= 2) == (table["on these 2 CPUs"] == "fits")).all()


def test_figures_are_drawn_from_what_was_measured() -> None:
    scaling = summary.scaling_figure(MEASURED, cpus=2)
    sweep = summary.sweep_figure(MEASURED, slo_loops=3)
    assert scaling is not None
    assert sweep is not None
    assert "1.80 times" in scaling.get_suptitle()


def test_the_health_table_counts_flags_and_finds_the_worst() -> None:
    rows = trials(
        {"steal": 0.01, "send_lag_p99_s": 0.0002, "loop_drift": 0.98, "loop_ratio": 1.04},
        {"steal": 0.03, "send_lag_p99_s": 0.0001, "loop_drift": 1.05, "valid": False, "block": 2},
    )
    (row,) = summary.health_table({"rate-sweep": rows}).to_dict("records")
    assert (row["experiment"], row["blocks"], row["trials"], row["flagged"]) == ("rate-sweep", 2, 2, 1)
    assert row["worst send lag, p99"] == "200 µs"
    assert row["most CPU time stolen"] == "3 %"
    assert row["loop time, end / start of a block"] == "0.98 to 1.05"
    assert row["loop time, trial / its other blocks"] == "1.04 to 1.04"


def test_the_machine_table_names_the_cpus_that_count() -> None:
    machine = describe().model_copy(
        update={"cpu_model": "Abacus 3000", "available_cpus": 7, "quota_cpus": None}
    )
    values = dict(summary.machine_table(machine).to_numpy().tolist())
    assert "Abacus 3000" in values["CPU"]
    assert values["CPUs that count"] == "7"
    assert values["quota"] == "none"


class TestRuns:
    """Which run is read."""

    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))

    def test_the_newest_by_default_and_any_by_its_id(self) -> None:
        open_run("first")
        open_run("second")
        assert summary.open_for_reading("").run_id == "second"
        assert summary.open_for_reading("first").run_id == "first"

    def test_reading_makes_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(LabError, match="nothing has been measured yet"):
            summary.open_for_reading("")
        open_run("first")
        with pytest.raises(LabError, match="no run 'frist'"):
            summary.open_for_reading("frist")
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["first"]

    def test_a_run_without_trials_has_none_of_any_experiment(self) -> None:
        found: dict[str, Any] = summary.trials_of(open_run("empty"))
        assert found == {}
