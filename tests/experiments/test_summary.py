"""The summary: one answer from whatever a run has measured, and a verdict on each of the article's claims."""

from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from helpers.busy_workers import BusyRun, measured, scaled
from helpers.html_page import unlinked
from helpers.trial_rows import found_rates, trials

from lab.errors import LabError
from lab.experiments import rate_sweep, single_vs_cluster, summary, worker_scaling
from lab.experiments.claims import Verdict, Word
from lab.experiments.worker_scaling import answer as scaling_answer
from lab.figures import title_of
from lab.flags import Flag
from lab.machine import describe
from lab.models.statistics import Interval
from lab.study.estimates import contradictions, table_of
from lab.study.run import Run
from lab.study.runs import damage, open_run
from lab.study.store import Store

SCALED = measured(*[{1: 10.0, 2: 18.0, 4: 17.0}] * 6)
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


def _answer(*measured: str, found: pd.DataFrame | None = None) -> str:
    return unlinked(summary.answer({name: MEASURED[name] for name in measured}, found, cpus=2))


def test_the_answer_is_of_sustained_rates_and_scaling_and_there_is_one() -> None:
    text = _answer(*MEASURED, found=found_rates())
    assert text.startswith(
        "**Answer.** One process sustains **9.00/s to 9.50/s**; 2 workers sustain **17.0/s to"
    )
    assert "**2 workers on 2 CPUs answer 1.80 times" in text
    assert text.count("**Answer.**") == 1


def test_what_is_missing_leaves_the_rest() -> None:
    assert "answer 1.80 times" in _answer(*MEASURED)
    assert "One process sustains" in _answer(found=found_rates())
    assert "one process" in _answer(single_vs_cluster.EXPERIMENT)


def test_a_run_with_nothing_in_it_says_so() -> None:
    assert "has not measured enough to tell" in _answer()
    assert summary.figures(open_run(), {}) == [None] * 3
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
    scaling, sweep, _ = summary.figures(open_run(), {worker_scaling.EXPERIMENT: SCALED})
    assert scaling is not None
    assert sweep is None
    assert "1.80 times" in title_of(scaling)


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
    assert row["loop time, trial / usual in the run"] == "1.04 to 1.04"


def test_sizes_of_a_loop_that_contradict_each_other_are_shown() -> None:
    at = pd.Timestamp("2026-01-01", tz="UTC")
    run = open_run()
    assert "No two sizes" in str(summary.sizes_table(run).iloc[0, 0])
    rows = {"block": 1, "kernel": "python", "iterations": [117649, 823543], "at": at}
    timed = pd.DataFrame(rows).assign(loop_s=[117649 * 168e-9, 823543 * 105e-9])
    Store(run.path).save_table("calibrations", "rate-sweep.b01.00-start", timed)
    (row,) = summary.sizes_table(run).to_dict("records")
    assert row == {
        "kernel": "python",
        "iterations": "117,649 and 823,543",
        "time of an iteration, medians": "168 ns and 105 ns",
        "shorter / longer, furthest from 1": "1.60",
        "more than 15% apart": "1 of 1",
    }


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
        with pytest.raises(LabError, match="no run 'frist': `lab runs` lists them"):
            summary.open_for_reading("frist")
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["first"]

    def test_a_run_without_trials_has_none_of_any_experiment(self) -> None:
        found: dict[str, Any] = summary.trials_of(open_run("empty"))
        assert found == {}


SINGLE: dict[str, Any] = {
    "rate": 50.0,
    "throughput_rps": 10.0,
    "service_mean_s": 0.1,
    "latency_max_s": 25.0,
    "server_cpu_s": 2.0,  # in the 2 s that twenty answers take
}
CLUSTER: dict[str, Any] = {"rate": 50.0, "topology": "cluster", "workers": 8, "service_mean_s": 0.1}


class MeasuredRun(BusyRun):
    """Has the trials that it is given, of a machine with two CPUs."""

    def __init__(self, measured: dict[str, pd.DataFrame], cpus: int = 2) -> None:
        self._measured = measured
        self.manifest = self
        self.machine = describe().model_copy(update={"available_cpus": cpus})

    def trials(self, experiment: str) -> pd.DataFrame:
        return self._measured.get(experiment, trials({}).head(0).assign(scenario="", keepalive=False))

    def newest(self, beginning: str) -> pd.DataFrame | None:
        return None


def judged(number: int, measured: dict[str, pd.DataFrame] | None = None, cpus: int = 2) -> list[Verdict]:
    run = cast(Run, MeasuredRun(measured or {}, cpus))
    found = summary.verdicts(run, summary.trials_of(run))
    return [verdict for verdict in found if verdict.number == number]


def article(*rows: dict[str, Any], blocks: int = 6) -> dict[str, pd.DataFrame]:
    repeated = [row | {"block": block} for block in range(1, blocks + 1) for row in rows]
    named = (row | {"trial_id": f"{place}"} for place, row in enumerate(repeated))
    return {single_vs_cluster.EXPERIMENT: trials(*named)}


def test_every_claim_has_a_verdict_and_nothing_measured_is_nothing_judged() -> None:
    found = summary.verdicts(cast(Run, MeasuredRun({})), {})
    assert sorted({verdict.number for verdict in found}) == list(range(1, 10))
    assert [verdict.number for verdict in found] == sorted(verdict.number for verdict in found)
    assert {(verdict.word, verdict.evidence) for verdict in found} == {(Word.UNTOLD, "")}


@pytest.mark.parametrize(
    ("spent_s", "cpus", "word"),
    [
        (2.0, 2, "holds"),
        (3.8, 2, "does not hold here"),
        (0.8, 2, "cannot be told here"),
        (2.0, 1, "cannot be told here"),
    ],
)
def test_one_process_uses_one_core_if_all_its_threads_use_no_more(
    spent_s: float, cpus: int, word: str
) -> None:
    rows = SINGLE | {"server_cpu_s": spent_s}
    (verdict,) = judged(1, article(rows), cpus)
    assert verdict.word.value == word
    assert verdict.evidence.startswith("offered the work of 5.00 (5.00 to 5.00) cores, of")
    (few,) = judged(1, article(rows, blocks=5))
    assert few.word is Word.UNTOLD
    assert "(range of 5 blocks: " in few.evidence


def test_trials_older_than_the_cpu_time_of_their_server_say_nothing_about_cores() -> None:
    (verdict,) = judged(1, article(SINGLE | {"server_cpu_s": float("nan")}))
    assert (verdict.word, verdict.evidence) == (Word.UNTOLD, "")


def test_a_process_that_is_offered_too_little_says_nothing_about_cores() -> None:
    (verdict,) = judged(1, article(SINGLE | {"rate": 5.0, "throughput_rps": 5.0, "server_cpu_s": 2.0}))
    assert verdict.word is Word.UNTOLD


@pytest.mark.parametrize(
    ("single", "cluster", "word"),
    [
        ({}, {}, "holds"),
        ({}, {"success": 0.9}, "holds in part"),
        ({"service_mean_s": 0.01}, {}, "holds in part"),
        ({"service_mean_s": 0.01, "success": 0.7}, {}, "holds"),
    ],
)
def test_the_plain_server_falls_behind_and_the_cluster_keeps_up(
    single: dict[str, Any], cluster: dict[str, Any], word: str
) -> None:
    (verdict,) = judged(2, article(SINGLE | single, CLUSTER | cluster))
    assert judged(2, article(SINGLE | single, CLUSTER | cluster, blocks=5))[0].word is Word.UNTOLD
    assert verdict.word.value == word
    assert "the slowest after 25.0 s; the cluster" in verdict.evidence


def test_one_server_alone_is_no_comparison() -> None:
    assert judged(2, article(SINGLE))[0].evidence == ""


def test_the_multiple_is_judged_by_what_the_runs_workers_did() -> None:
    (verdict,) = judged(3, {worker_scaling.EXPERIMENT: scaled(*[{1: 10.0, 2: 18.0}] * 6)})
    assert verdict.word is Word.HOLDS


def test_a_verdict_that_flagged_trials_make_is_none() -> None:
    spoilt = {"valid": False, "flags": (Flag("others_cpu", 0.5, 0.1),)}
    (verdict,) = judged(2, article(SINGLE | spoilt, CLUSTER | spoilt))
    assert (verdict.flagged, verdict.trials) == (12, 12)
    assert verdict.word is Word.UNTOLD


def test_what_pages_state_is_gathered_and_kept_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    run = open_run("measured")
    busy = MeasuredRun({worker_scaling.EXPERIMENT: scaled({1: 10.0, 2: 18.0})})
    monkeypatch.setattr(run, "trials", busy.trials)
    monkeypatch.setattr(run, "requests", busy.requests)
    found = summary.estimates(run)
    assert set(found["experiment"]) == {worker_scaling.EXPERIMENT}
    kept = open_run("measured").newest("estimates")
    assert kept is not None
    pd.testing.assert_frame_equal(kept, found)
    monkeypatch.setattr(run, "trials", MeasuredRun({}).trials)
    summary.estimates(run)
    kept = run.newest("estimates")
    assert kept is not None
    assert kept.empty, "they follow what was measured"
    run.seal()
    monkeypatch.setattr(run, "trials", busy.trials)
    assert len(summary.estimates(run)) == len(found)
    assert damage() == [], "a complete run stays as it is"


def test_an_interval_of_mostly_flagged_trials_promises_nothing() -> None:
    blocks = 6 * [{1: 10.0, 2: 18.0}]
    for flagged, kinds in ((5, {Interval.MEDIAN}), (7, {Interval.FLAGGED})):
        rows = measured(*blocks).assign(valid=[number >= flagged for number in range(12)])
        run = open_run(f"flagged-{flagged}")
        found = summary.estimates(run, {worker_scaling.EXPERIMENT: rows})
        assert set(found["interval"]) == {kind.value for kind in kinds}, flagged


def test_estimates_are_shown_with_their_units_and_what_would_have_been_seen() -> None:
    rows = scaling_answer.estimates(measured(*(6 * [{1: 10.0, 2: 18.0}])), cpus=2)
    stated = table_of([*rows[:2], rows[4]])
    table = summary.estimate_table(stated)
    ends = ["10.0/s (10.0/s to 10.0/s)", "18.0/s (18.0/s to 18.0/s)", "1.80 (1.80 to 1.80)"]
    assert table["value"].tolist() == ends
    assert [value.key for value in table["value"]] == stated["key"].tolist()
    assert table["from"].map(str).tolist() == ["6 trials", "6 trials", "12 trials"]
    assert all(name.partition(".")[2] in table["from"].iloc[0].text for name in stated["sources"].iloc[0])
    assert table["smallest difference seen"].tolist() == ["", "", "0 %"]
    assert table["n"].tolist() == [6, 6, 6]
    assert summary.consistency(stated) == "Of the run's 3 estimates, none is stated with two values."
    twice = pd.concat([stated, stated.assign(experiment="summary", value=[10.0, 18.0, 1.9])])
    assert "more than one value, and not to be believed:** speed-up over one worker (" in summary.consistency(
        twice
    )
    assert summary.estimate_table(stated.head(0)).empty


def test_one_quantity_has_one_value_on_all_pages() -> None:
    """All experiments on one machine, each with other numbers: no two of them state the same thing."""
    rows = [
        *scaling_answer.estimates(SCALED, cpus=2),
        *rate_sweep.estimates(SWEPT),
        *single_vs_cluster.estimates(ARTICLE),
    ]
    stated = table_of(rows)
    assert contradictions(stated).empty
    assert not stated.duplicated(["experiment", "quantity", "factors", "unit"]).any(), (
        "a name is of one number"
    )
