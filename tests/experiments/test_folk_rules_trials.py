"""The trials of notebook 12: what is planned, what is taken from other notebooks, and what is carried out."""

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
import pytest
from helpers.folk_trials import PARAMETERS, parameters
from helpers.quotas import needs_a_quota
from helpers.study_fakes import fake_attack

from lab import cpus
from lab.errors import UsageError
from lab.experiments import catalog
from lab.experiments.failures import trials as failures
from lab.experiments.folk_rules import counts, held_up, memory, throttled, workers
from lab.experiments.folk_rules import trials as study
from lab.experiments.folk_rules.rules import EXPERIMENT, Parameters
from lab.experiments.other_servers.servers import PEERS, ServerError
from lab.experiments.worker_scaling import scaling
from lab.quota import QuotaError
from lab.servers.peers import Peer
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.runs import open_run
from lab.study.trial import Execute
from lab.study.watched import Watched


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two CPUs."""
    monkeypatch.setattr(cpus, "host_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)
    monkeypatch.setattr(study, "affinity_cpus", lambda: 2)
    monkeypatch.setattr(study, "quota_cpus", lambda *_: None)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without servers."""

    def measure(run: Run, p: Parameters, planned: list[Condition], execute: Any = None) -> pd.DataFrame:
        return run.measure(EXPERIMENT, planned, blocks=p.blocks, seed=p.seed, execute=fake_attack)

    monkeypatch.setattr(study, "measure", measure)


def test_numbers_of_workers_are_the_folk_ones() -> None:
    assert study.numbers(4) == [1, 4, 5, 8, 9]
    assert study.numbers(1) == [1, 2, 3]


@pytest.mark.usefixtures("two_cpus")
def test_all_servers_meet_random_arrivals_of_one_rate() -> None:
    for n in (1, 2):
        planned = study.tails(parameters(workers=n))
        assert len({round(one.planned(0.01).offered_rps, 3) for one in planned}) == 1
        assert {one.arrivals for one in planned} == {"poisson"}
        assert {"least-busy", "reuseport", study.named(n), study.named(2 * n + 1)} <= {
            one.labels["server"] for one in planned
        }


@pytest.mark.usefixtures("two_cpus")
def test_only_what_is_asked_for_is_planned() -> None:
    parts: dict[str, set[str | None]] = {
        "workers": {"overload", "tail"},
        "replicas": {"tail"},
        "pool": {"beside"},
        "quota": {"held", "free"},
        "slow": {None},
        "counts": set(),
        "memory": set(),
    }
    for rule, expected in parts.items():
        groups = study.by_blocks(parameters(rules=[rule]))
        assert {one.labels.get("part") for _, planned in groups for one in planned} == expected
    (servers,) = [planned for _, planned in study.by_blocks(parameters(rules=["replicas"]))]
    assert study.named(5) not in {one.labels["server"] for one in servers}


@pytest.mark.usefixtures("two_cpus")
def test_a_quota_that_limits_nothing_is_not_measured() -> None:
    found, why_not = throttled.measure(cast(Run, None), parameters(quota=2))
    assert found.empty
    assert why_not == "a quota of 2 CPUs limits nothing on these CPUs"


@pytest.mark.usefixtures("two_cpus")
def test_a_quota_is_measured_only_if_it_is_less_than_one_that_holds_us_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "quota_cpus", lambda *_: 1.0)
    assert [study.limits(quota) for quota in (0.5, 1.0, 1.5)] == [True, False, False]


@pytest.mark.usefixtures("two_cpus")
def test_where_no_quota_can_be_set_the_reason_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any, **__: Any) -> pd.DataFrame:
        raise QuotaError("permission denied")

    monkeypatch.setattr(study, "measure", measure)
    assert throttled.measure(cast(Run, None), parameters())[1] == "permission denied"


@pytest.mark.usefixtures("two_cpus", "faked")
def test_overloads_of_notebook_04_are_taken_and_the_others_measured_like_them() -> None:
    run, p = open_run("both"), parameters()
    theirs = [
        Condition(topology="cluster", workers=n, load=2.0, duration_s=0.3, iterations=20_000)
        for n in (1, 2, 4)
    ]
    run.measure(scaling.EXPERIMENT, theirs, blocks=1, seed=1, execute=fake_attack)
    found, _, taken = workers.measure(run, p)
    assert taken == [1, 4], "two and five are compared, and there are no five"
    assert sorted(found["workers"]) == [1, 2, 3, 4, 5]
    mine = found[found["experiment"] == EXPERIMENT]
    assert sorted(mine["workers"]) == [2, 3, 5]
    alike = mine[["load", "duration_s", "iterations"]].drop_duplicates()
    assert alike.to_numpy().tolist() == [[2.0, 0.3, 20_000]]
    assert set(found["server"]) == {study.named(n) for n in study.numbers(2)}


@pytest.mark.usefixtures("two_cpus", "faked")
def test_without_as_many_blocks_in_notebook_04_all_is_measured_here() -> None:
    run, p = open_run("few"), parameters(blocks=2)
    theirs = [Condition(topology="cluster", workers=2, load=2.0, duration_s=0.3, iterations=20_000)]
    run.measure(scaling.EXPERIMENT, theirs, blocks=1, seed=1, execute=fake_attack)
    found, _, taken = workers.measure(run, p)
    assert taken == []
    assert set(found["experiment"]) == {EXPERIMENT}
    assert len(found) == 10


def test_slow_requests_of_notebook_06_are_taken_and_other_dispatches_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: list[Condition] = []

    class Noted:
        def trials(self, experiment: str) -> pd.DataFrame:
            return pd.DataFrame({"keepalive": [False, True], "dispatch": "least-busy"})

        def measure(self, experiment: str, planned: Sequence[Condition], **_: Any) -> pd.DataFrame:
            wanted.extend(planned)
            return pd.DataFrame({"keepalive": [False], "dispatch": "reuseport"})

        def requests(self, trials: pd.DataFrame) -> pd.DataFrame:
            return trials

        events = requests

    def events(trials: pd.DataFrame, *_: pd.DataFrame) -> pd.DataFrame:
        return trials.assign(kind=failures.BLOCK, due=5)

    monkeypatch.setattr(failures, "events", events)
    found, source = held_up.events(cast(Run, Noted()), parameters())
    assert found["dispatch"].tolist() == ["least-busy", "reuseport"]
    assert source == "The events of least-busy are notebook 06's."
    (one,) = wanted
    assert (one.dispatch, one.keepalive, one.labels["turns"]) == ("reuseport", False, "block")


def test_a_balancer_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "missing", None)
    asked: list[list[str]] = []

    class Failing:
        def measure(
            self, experiment: str, planned: Sequence[Condition], *, execute: Execute, **_: Any
        ) -> pd.DataFrame:
            asked.append([one.peer for one in planned])
            if any(asked[-1]):
                raise ServerError(study.BALANCED, "it did not start")
            return pd.DataFrame({"left": [len(planned)]})

    planned = study.tails(parameters(rules=["replicas"]))
    assert study.measure(cast(Run, Failing()), parameters(), planned)["left"].item() == 3
    assert [study.BALANCED in peers for peers in asked] == [True, False]
    with pytest.raises(ServerError):
        study.measure(cast(Run, Failing()), parameters(), [one for one in planned if one.peer])


@pytest.mark.usefixtures("two_cpus")
def test_in_full_it_takes_at_most_five_minutes_on_two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PEERS[study.BALANCED].name == study.BALANCED
    monkeypatch.setattr(Peer, "missing", None)
    lasts_s = catalog.lasts_s("12-folk-rules", catalog.profile_parameters("full", "12-folk-rules"))
    assert 60 < lasts_s <= 300
    assert catalog.lasts_s("12-folk-rules", catalog.profile_parameters("smoke", "12-folk-rules")) <= 30


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rules": []}, "rules must list at least 1"),
        ({"rules": ["luck"]}, r"rules\[0\] must be 'workers'"),
        ({"workers": 0}, "workers"),
        ({"load": 1}, "load must be below 1"),
        ({"quotas": [0.5, 0.5]}, "each number once"),
        ({"quotas": [0]}, r"quotas\[0\] must be above 0"),
        ({"slow_s": 1}, "slow_s must be at least 2.5"),
        ({"quota": 0}, "quota must be above 0"),
        ({"requests": 0}, "requests must be at least 1"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Parameters.from_notebook(PARAMETERS | change)


def test_beside_slow_requests_the_event_loop_answers_nobody_meanwhile() -> None:
    """A loop that sleeps for 20 ms, five times in a slow request: whoever comes first waits for all five."""
    (inline, *_) = study.beside(parameters(kernel="sleep", iterations=200_000))
    done = study.beside_slow(inline, seed=1)
    assert done.summary["ok"] == done.summary["planned"] == 300
    assert done.requests["service_s"].isna().all(), "they run no loop"
    assert done.summary["latency_s"]["max"] > 0.08


def test_memory_is_weighed_before_and_after_requests() -> None:
    found = memory.look(1, 30)
    assert found["answered"].item() == memory.WARM + 30
    assert (found[["fresh_bytes", "warm_bytes", "after_bytes"]] > 2**20).all(axis=None)
    assert found["free_bytes"].item() > 0


def test_a_system_that_tells_no_memory_ends_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "pss_bytes", lambda _: [])
    found, why_not = memory.measure(open_run("untold"), parameters(workers=1, requests=1))
    assert found.empty
    assert "does not tell how much memory" in why_not


def test_every_api_is_asked_without_a_quota() -> None:
    found = counts.asked(None, 0.1)
    assert {"Python os.cpu_count()", "affinity", "cgroup quota"} <= set(found["api"])
    assert found["quota_cpus"].isna().all()
    assert (found["ran"] > 0).all()


@needs_a_quota
@pytest.mark.usefixtures("no_group_left")
def test_under_a_quota_loops_get_no_more_than_it_allows() -> None:
    found = counts.asked(0.5, 0.4)
    assert found["usable"].unique().tolist() == [1]
    cells = found.set_index("api")["cpus"]
    assert cells["cgroup quota"] == 0.5
    assert cells["Python os.cpu_count()"] == cpus.host_cpus()
