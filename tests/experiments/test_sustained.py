"""Sustained rates: known capacities are found, kept, compared at one speed, and stated with their doubts."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked
from helpers.simulated_servers import Simulated, believed
from helpers.trial_rows import found_rates

from lab.errors import UsageError
from lab.experiments import searches, sustained
from lab.experiments.searches import Objective, search
from lab.experiments.sustained import bounds, times_as_much
from lab.hotloop import LoopCost
from lab.models.statistics import Interval
from lab.study import own_search, plan, stability
from lab.study.plan import Condition
from lab.study.runs import open_run
from lab.study.stability import Noise
from lab.study.trial import Attacked, serve_and_attack

LOOP_S = 0.005
SINGLE = Condition(rate=1, duration_s=2.0)
CLUSTER = Condition(rate=1, duration_s=2.0, topology="cluster", workers=2, dispatch="least-busy")


class Servers:
    """Carries out trials on simulated servers, and counts them."""

    def __init__(self, **simulated: float) -> None:
        self.asked: Counter[int] = Counter()
        self._simulated = simulated
        self._random = np.random.default_rng(5)

    def __call__(self, condition: Condition, seed: int) -> Attacked:
        self.asked[condition.workers] += 1
        server = Simulated(loop_s=LOOP_S, workers=condition.workers, random=self._random, **self._simulated)  # type: ignore[arg-type]
        return server(condition.offered_rps, condition.duration_s, seed)


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of two CPUs on which the loop always costs the same, however long neighbours make it wait."""
    monkeypatch.setattr(stability, "measure", lambda *_: [LoopCost(9.0, LOOP_S)] * 3)
    for module in (plan, searches):
        monkeypatch.setattr(module, "available_cpus", lambda: 2)
    monkeypatch.setattr(searches, "between", lambda *_: Noise(0.0, 0.0, 0.0, 0.0))


def test_the_known_capacity_of_each_server_is_found_and_compared() -> None:
    trials = search(open_run(), [CLUSTER, SINGLE], execute=Servers())
    found = bounds(trials)
    assert found["workers"].tolist() == [1, 2]
    for _, row in found.iterrows():
        assert row["lower_rps"] <= row["workers"] / LOOP_S * 1.02
        assert row["upper_rps"] >= row["workers"] / LOOP_S * 0.98
        assert 0.9 < row["lower_share"] < row["upper_share"] < 1.15
        assert row["loop_s"] == pytest.approx(LOOP_S, rel=0.05)
        assert row["consistent"]
        assert row["reason"] == ""
    assert found["trials"].sum() == len(trials)
    middle, low, high = times_as_much(found.iloc[0], found.iloc[1])
    assert low <= middle <= high
    assert low < 2 < high


def test_a_search_that_is_kept_is_not_repeated() -> None:
    run, servers = open_run(), Servers()
    first = search(run, [SINGLE], execute=servers)
    again = search(run, [SINGLE, CLUSTER], execute=servers)
    assert servers.asked[1] == len(first)
    pd.testing.assert_frame_equal(again[again["workers"] == 1], first)
    search(run, [SINGLE], Objective(percentile=90), execute=servers)
    assert servers.asked[1] > len(first), "another objective is another search"


def test_a_search_from_before_peers_is_read_and_not_repeated() -> None:
    run, servers = open_run(), Servers()
    older = search(run, [SINGLE], execute=servers).drop(columns="peer")
    (run.path / "tables" / "sustained-fc10f78884e5.parquet").unlink()
    run.table("sustained-fc10f78884e5", lambda: older)
    assert search(run, [SINGLE, CLUSTER], execute=servers)["peer"].unique().tolist() == [""]
    assert servers.asked[1] == len(older)
    assert bounds(older)["peer"].tolist() == [""]


def test_trials_are_long_enough_for_the_percentile() -> None:
    trials = search(open_run(), [SINGLE], Objective(percentile=99), execute=Servers(noise=0.0))
    near = trials[trials["rate"] >= 0.9 / LOOP_S]
    assert near["requests"].min() >= 0.85 * 299


def test_a_server_that_fails_has_no_bound_and_says_why() -> None:
    found = bounds(search(open_run(), [SINGLE], execute=Servers(fails=True))).iloc[0]
    assert math.isnan(found["lower_rps"])
    assert "requests fail" in found["reason"]
    assert all(map(math.isnan, times_as_much(found, found)))


def test_no_server_is_refused() -> None:
    with pytest.raises(UsageError, match="no server to search"):
        search(open_run(), [])


def test_a_server_of_ours_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow or disturbed the machine is: what its trials say is theirs."""
    monkeypatch.setattr(own_search, "_MOST", 3)
    server = Condition(rate=1, duration_s=0.3, iterations=20_000)
    trials = search(
        open_run(), [server], Objective(percentile=50, loops=1000), execute=believed(serve_and_attack)
    )
    found = bounds(trials).iloc[0]
    assert trials["rate"].iloc[0] == pytest.approx(1.1 / LOOP_S)
    assert found["trials"] == 3
    assert found["flagged"] == 0
    assert (trials["service_s"] > 0).all()
    assert (trials["utilisation"] > 0).all()
    assert found["limits_rps"] == pytest.approx((trials["rate"] / trials["utilisation"]).tolist())


def test_a_machine_that_is_never_quiet_gives_no_bound_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "between", lambda *_: Noise(0.0, 0.5, 0.0, 0.0))
    found = bounds(search(open_run(), [SINGLE], execute=Servers())).iloc[0]
    assert found[["lower_rps", "upper_rps"]].isna().all()
    assert found["reason"].startswith("5 of 5 trials are flagged: ")
    assert found["trials"] == found["flagged"] == 5


def test_a_trial_that_others_disturbed_is_repeated_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = iter([True, True])
    monkeypatch.setattr(
        searches, "between", lambda *_: Noise(0.0, 0.5 if next(disturbed, False) else 0.0, 0.0, 0.0)
    )
    trials = search(open_run(), [SINGLE], execute=Servers())
    assert [[flag.code for flag in flags] for flags in trials["flags"]][:3] == [["others_cpu"]] * 2 + [[]]
    assert trials["rate"].head(3).nunique() == 1
    assert bounds(trials)["flagged"].tolist() == [2]


def test_the_answer_is_the_pair_and_how_many_times() -> None:
    text = unlinked(sustained.answer(found_rates()))
    for said in (
        "9.00/s to 9.50/s",
        "17.0/s to 18.0/s",
        "1.89 times as much** (1.79 to 2.00)",
        "85 % to 90 %",
    ):
        assert said in text
    assert "changed its speed" not in text


def test_a_bound_that_is_missing_is_explained_and_compared_with_nothing() -> None:
    found = found_rates()
    found.loc[0, ["lower_rps", "lower_share"]] = math.nan
    found.loc[0, "reason"] = "even 1.00/s is too much: requests fail"
    text = unlinked(sustained.answer(found))
    assert "For one process, no sustained rate was found: even 1.00/s is too much: requests fail" in text
    assert "times as much" not in text
    assert "nan" not in text
    row = sustained.table(found).iloc[0]
    assert (row["sustained rate"], row["doubts"]) == (
        "less than 9.50/s",
        "even 1.00/s is too much: requests fail",
    )


def test_bounds_that_are_not_confirmed_are_doubted_where_they_stand_and_not_compared() -> None:
    found = found_rates()
    found.loc[1, "reason"] = "others disturbed 5 trials of 17.5/s"
    text = unlinked(sustained.answer(found))
    assert "2 workers sustain **17.0/s to 18.0/s** (others disturbed 5 trials of 17.5/s)" in text
    assert "times as much" not in text
    assert {"workers=2" in row.factors for row in sustained.estimates("rate-sweep", found)} == {False}


def test_without_an_upper_bound_it_is_at_least_the_lower() -> None:
    found = found_rates(upper_rps=math.nan, upper_share=math.nan, reason="it ended")
    assert "One process sustains **at least 9.00/s**" in unlinked(sustained.answer(found))
    assert sustained.table(found)["of the own limit"].tolist() == ["at least 90 %", "at least 85 %"]


def test_no_rate_at_all_is_one_sentence() -> None:
    missing = {f"{bound}_{of}": math.nan for bound in ("lower", "upper") for of in ("rps", "share")}
    text = unlinked(sustained.answer(found_rates(**missing, reason="the bounds did not settle")))
    assert text.count("the bounds did not settle") == 2
    assert sustained.title(found_rates(**missing, reason="")) == "No sustained rate was found"
    assert "shares" not in text


def test_a_machine_that_changed_its_speed_is_said() -> None:
    assert "changed its speed during a search" in sustained.answer(found_rates(consistent=False))
    fast = found_rates()
    fast["limits_rps"] = [[10.0] * 7, [31.0] * 7]
    assert "more than its workers can: the machine changed its speed" in sustained.answer(fast)


def test_rates_and_shares_are_stated_as_bounds_of_a_search() -> None:
    rows = sustained.estimates("rate-sweep", found_rates())
    assert {row.interval for row in rows} == {Interval.SEARCH}
    shares = [end for row in rows if row.unit == "" for end in (row.low, row.high)]
    assert shares == pytest.approx([0.9, 0.95, 0.85, 0.9, 1.7 / 0.95, 2.0])
    assert rows[-1].key in sustained.answer(found_rates()), "the answer's ratio leads to this estimate"
    assert len({(row.quantity, row.factors) for row in rows}) == 5


def test_a_search_without_a_lower_bound_is_stated_with_its_upper_alone() -> None:
    rows = sustained.estimates("rate-sweep", found_rates(lower_rps=math.nan))
    (row, _) = [row for row in rows if row.unit]
    assert math.isnan(row.low)
    assert row.value == row.high
