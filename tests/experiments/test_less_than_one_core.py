"""Less than one core: what counts as no difference, what tells nothing, and what is said without a quota."""

from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.busy_workers import BusyRun
from helpers.drawn_labels import hidden
from helpers.html_page import unlinked
from helpers.study_fakes import fake_attack
from helpers.trial_rows import trials

from lab.errors import UsageError
from lab.experiments.claims import Word
from lab.experiments.less_than_one_core import answer as words
from lab.experiments.less_than_one_core import trials as study
from lab.figures import title_of
from lab.flags import Flag
from lab.models.statistics import Estimate, Interval
from lab.quota import QuotaError
from lab.study.run import Run
from lab.study.runs import open_run

PARAMETERS: dict[str, Any] = {
    "run": "",
    "quotas": [0.5, 1, 0],
    "workers": [2, 1],
    "load": 0.7,
    "overload": 1.3,
    "duration_s": 0.5,
    "dispatch": "round-robin",
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "blocks": 2,
    "seed": 1,
}


def measured(
    gains: list[float] | None = None,
    delays: list[float] | None = None,
    quota: float = 0.5,
    *,
    throttled: int = 9,
    offered: float = 1.3,
    **changes: Any,
) -> pd.DataFrame:
    """Make blocks in which two workers have `gains` times the throughput and `delays` times the latency."""
    gains = gains or [1.0] * 6
    rows = []
    for block, (gain, delay) in enumerate(zip(gains, delays or [1.0] * len(gains), strict=True), start=1):
        for workers, more, longer in ((1, 1.0, 1.0), (2, gain, delay)):
            server = {"block": block, "workers": workers, "topology": "cluster" if workers > 1 else "single"}
            full = {"load": 1.3, "rate": 10 * offered * quota, "throughput_rps": 10 * quota * more}
            calm = {"load": 0.7, "rate": 7 * quota, "latency_p50_s": 0.1 * longer, "latency_p90_s": 0.2}
            rows += [
                server | full | {"cpu_periods_throttled": throttled},
                server | calm | {"cpu_periods_throttled": 2},
            ]
    common = {"quota_cpus": quota, "cpu_periods": 10, "cpu_throttled_s": 0.4, "service_cpu_mean_s": 0.1}
    return trials(*rows, **common | changes)


def free(found: pd.DataFrame) -> pd.DataFrame:
    """Return trials as if they had had no quota."""
    return found.assign(quota_cpus=float("nan"), cpu_periods=float("nan"), cpu_periods_throttled=float("nan"))


@pytest.mark.parametrize(
    ("gains", "delays", "word"),
    [
        ([1.0, 0.95, 1.1, 1.05, 0.9, 1.19], [1.0] * 6, Word.HOLDS),
        ([2.0] * 6, [1.0] * 6, Word.IN_PART),
        ([2.0] * 6, [0.5] * 6, Word.NOT_HERE),
        ([0.5] * 6, [1.0] * 6, Word.IN_PART),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.3], [1.0] * 6, Word.UNTOLD),
        ([1.0] * 6, [1.0, 1.0, 1.0, 1.0, 1.0, 0.7], Word.UNTOLD),
        ([1.0] * 5, [1.0] * 5, Word.UNTOLD),
    ],
)
def test_no_difference_is_an_interval_within_a_fifth(
    gains: list[float], delays: list[float], word: Word
) -> None:
    assert words.verdict(measured(gains, delays)).word is word


def test_fewer_than_six_blocks_are_a_range_in_the_evidence_and_in_the_table() -> None:
    found = measured([1.0, 1.1, 1.2])
    assert "work done 1.10 times (range of 3 blocks: 1.00 to 1.20)" in words.verdict(found).evidence
    assert words.table(found)["over one process"].iloc[1] == "1.10 times (range of 3 blocks: 1.00 to 1.20)"


@pytest.mark.parametrize(
    ("low", "high", "alike"),
    [
        (0.84, 1.19, True),
        (0.82, 1.1, None),
        (0.9, 1.21, None),
        (0.5, 2.0, None),
        (1.21, 1.5, False),
        (0.5, 0.8, False),
    ],
)
def test_a_difference_is_an_interval_beyond_a_fifth(low: float, high: float, alike: bool | None) -> None:
    assert words.is_alike(Estimate(1.0, low, high, 6, Interval.MEDIAN)) is alike
    assert words.is_alike(Estimate(1.0, low, high, 5, Interval.RANGE)) is None


@pytest.mark.parametrize(
    "spoilt",
    [{"throttled": 3}, {"offered": 1.0}],
    ids=["the quota hardly stopped it", "it was not overloaded"],
)
def test_a_server_that_the_quota_did_not_limit_tells_nothing_of_throughput(spoilt: dict[str, Any]) -> None:
    found = words.verdict(measured(**spoilt))
    assert found.word is Word.UNTOLD
    assert "work done 1.00 times" in found.evidence


def test_the_time_that_a_loop_was_stopped_does_not_count_as_work_offered() -> None:
    assert words.verdict(measured(service_mean_s=9.0)).word is Word.HOLDS
    assert words.verdict(measured(service_mean_s=9.0, offered=1.0)).word is Word.UNTOLD


def test_older_trials_without_cpu_times_are_judged_by_the_calibrated_loop() -> None:
    assert words.verdict(measured(service_cpu_mean_s=float("nan"))).word is Word.HOLDS


def test_a_machine_that_changes_its_speed_between_trials_changes_no_verdict() -> None:
    """Of each pair, one trial ran at half the speed: half the answers, each loop twice as long."""
    found = measured()
    slow = (found["load"] > 1) & (found["workers"] == 1 + found["block"] % 2)
    found.loc[slow, ["busy_rps", "service_cpu_mean_s"]] *= [0.5, 2.0]
    (pair,) = study.compared(found)
    assert pair.throughput is not None
    assert pair.work is not None
    assert (pair.throughput.low, pair.throughput.high) == pytest.approx((0.5, 2.0), rel=1e-3)
    assert (pair.work.low, pair.work.high) == pytest.approx((1.0, 1.0))
    assert words.verdict(found).word is Word.HOLDS


def test_only_less_than_one_core_is_judged() -> None:
    whole, unlimited = measured([2.0] * 6, quota=1.0), free(measured([2.0] * 6))
    assert words.verdict(pd.concat([measured(), whole, unlimited])).word is Word.HOLDS
    assert words.verdict(whole).evidence == words.verdict(unlimited).evidence == ""


def test_a_flag_on_what_is_not_judged_takes_nothing_from_the_verdict() -> None:
    flagged = free(measured([2.0] * 12, valid=False, flags=(Flag("others_cpu", 0.5, 0.1),)))
    found = words.verdict(pd.concat([measured(), flagged]))
    assert (found.word, found.flagged, found.trials) == (Word.HOLDS, 0, 24)


def test_one_process_alone_is_no_comparison() -> None:
    alone = measured()
    alone = alone[alone["workers"] == 1]
    assert words.verdict(alone).evidence == ""
    assert "no quota below one core was measured" in words.answer(alone, "")


def test_a_verdict_that_flagged_trials_make_is_none() -> None:
    found = words.verdict(measured(valid=False, flags=(Flag("others_cpu", 0.5, 0.1),)))
    assert (found.word, found.flagged, found.trials) == (Word.UNTOLD, 24, 24)


def test_a_trial_that_answered_nothing_leaves_its_pair_out() -> None:
    found = measured([1.0] * 7)
    found.loc[(found["block"] == 3) & (found["workers"] == 1), "busy_rps"] = 0.0
    (pair,) = study.compared(found)
    assert pair.throughput is not None
    assert (pair.throughput.trials, pair.throughput.value) == (6, 1.0)


def test_the_answer_says_what_was_found() -> None:
    text = unlinked(words.answer(pd.concat([measured(), free(measured([1.9] * 6))]), ""))
    assert text.startswith("**Answer.** **Given less than one core, clustering makes no difference here**")


def test_the_table_has_a_row_per_server_with_ratios_throttling_and_what_would_have_shown() -> None:
    table = words.table(pd.concat([measured([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]), free(measured())]))
    assert table["quota"].tolist() == ["0.5 CPUs"] * 2 + ["all CPUs"] * 2
    assert table["workers"].tolist() == [1, 2, 1, 2]
    assert table["over one process"].iloc[1] == "1.25 times (0.999 to 1.50); 25.1 % would show"
    assert table["over one process"].iloc[0] == ""
    assert table["periods stopped, overloaded"].tolist()[:2] == ["90 %", "90 %"]


def test_nan_is_never_shown() -> None:
    found = pd.concat([measured(), free(measured())])
    assert "nan" not in words.table(found).to_string()
    assert "nan" not in words.answer(found, "")


def test_what_is_stated_are_the_ratios() -> None:
    rows = words.estimates(measured([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]))
    assert rows[0].quantity == "work over one process, overloaded"
    assert (rows[0].value, rows[0].n) == (1.25, 6)
    assert (rows[0].low, rows[0].high) == pytest.approx((1.0, 1.5), rel=2e-3)
    assert {row.factors for row in rows} == {"quota=0.5 CPUs, workers=2"}
    assert all(row.compares for row in rows)


def test_conditions_are_each_server_under_each_quota_at_both_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "affinity_cpus", lambda: 2)
    monkeypatch.setattr(study, "quota_cpus", lambda: None)
    found = study.conditions(study.Parameters(**PARAMETERS))
    assert len(found) == 12
    assert {one.quota_cpus for one in found} == {0.5, 1.0, None}
    assert {(one.topology, one.workers) for one in found} == {("single", 1), ("cluster", 2)}
    assert {(one.load, one.arrivals) for one in found} == {(0.7, "poisson"), (1.3, "constant")}


@pytest.mark.parametrize(("affinity", "outer"), [(1, None), (4, 1.0)])
def test_a_quota_that_limits_nothing_here_counts_as_none(
    affinity: int, outer: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "affinity_cpus", lambda: affinity)
    monkeypatch.setattr(study, "quota_cpus", lambda: outer)
    found = study.conditions(study.Parameters(**PARAMETERS))
    assert [one.quota_cpus for one in found] == [0.5] * 4 + [None] * 4


class NoQuota(BusyRun):
    """A run whose servers cannot be held."""

    def __init__(self) -> None:
        self.kept: dict[str, pd.DataFrame] = {}

    def measure(self, *_: Any, **__: Any) -> pd.DataFrame:
        raise QuotaError("a quota of 0.5 CPUs cannot be set here (permission denied): run as root")

    def trials(self, experiment: str) -> pd.DataFrame:
        return measured().head(0)

    def keep(self, name: str, frame: pd.DataFrame) -> None:
        self.kept[name] = frame

    def newest(self, beginning: str) -> pd.DataFrame | None:
        return self.kept.get(beginning)


def test_where_no_quota_can_be_set_the_answer_and_the_verdict_say_why_and_nothing_is_drawn() -> None:
    run = cast(Run, NoQuota())
    found, why_not = study.measure(run, study.Parameters(**PARAMETERS))
    text = unlinked(words.answer(found, why_not))
    assert "cannot be told here**: a quota of 0.5 CPUs cannot be set here (permission denied)" in text
    assert "\n" not in text
    assert words.figure(found) is None
    assert words.table(found).empty
    assert words.estimates(found) == []
    told = words.verdict_of(run)
    assert told.word is Word.UNTOLD
    assert told.evidence.startswith("nothing: a quota of 0.5 CPUs cannot be set here")


def test_a_run_resumes_and_its_verdict_is_of_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "affinity_cpus", lambda: 2)
    run = open_run("held")
    conditions = study.conditions(study.Parameters(**PARAMETERS))
    run.measure(study.EXPERIMENT, conditions, blocks=2, seed=1, execute=fake_attack)
    found, why_not = study.measure(run, study.Parameters(**PARAMETERS))
    assert (len(found), why_not) == (24, "")
    assert words.verdict_of(run).word is Word.UNTOLD
    figure = words.figure(found)
    assert figure is not None
    assert "all CPUs" in words.table(found)["quota"].tolist()


def test_the_figure_shows_throttling_below_throughput_and_latency() -> None:
    found = pd.concat([measured(), measured(quota=1.0), free(measured([1.9] * 6))])
    figure = words.figure(found)
    assert figure is not None
    rate, latency, stopped, stopped_calm = figure.axes
    assert title_of(figure) == "Given less than one core, clustering makes no difference"
    assert set(rate.get_legend_handles_labels()[1]) == {
        "ideal: quota used up", "0.5 CPUs", "1 CPU", "all CPUs",
    }  # fmt: skip
    assert latency.get_legend_handles_labels()[1] == ["p50", "p90"]
    assert "%" in stopped.get_ylabel()
    colours = {line.get_color() for line in stopped.get_lines()}
    assert len(colours) == 2, "without a quota there is nothing to draw"
    assert np.asarray(stopped_calm.get_lines()[0].get_ydata()).tolist() == [20, 20]


@pytest.mark.parametrize("quotas", [[0.5], [0.5, 0.75], [0.25, 0.5, 0.75, 1.0]])
def test_no_word_hides_what_is_drawn(quotas: list[float]) -> None:
    wide = [0.5, 0.8, 1.0, 1.2, 1.5, 2.0]
    found = pd.concat([measured(wide, wide, quota) for quota in quotas])
    figure = words.figure(found)
    assert figure is not None
    assert hidden(figure) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"quotas": []}, "quotas"),
        ({"quotas": [-1]}, r"quotas\[0\] must be at least 0"),
        ({"quotas": [0.5, 0.5]}, "each number once"),
        ({"workers": [2, 4]}, "must include 1"),
        ({"workers": [1]}, "another number"),
        ({"load": 1.0}, "load must be below 1"),
        ({"overload": 1.0}, "overload must be at least 1.1"),
        ({"duration_s": 0}, "duration_s"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)
