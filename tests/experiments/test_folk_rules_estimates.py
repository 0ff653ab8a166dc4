"""What notebook 12 states: ratios within blocks, each with the trials that it was computed from."""

import re

import pandas as pd
import pytest
from helpers.folk_trials import beside, events, held, looked, rates, tails, told
from helpers.study_fakes import fake_attack

from lab.experiments import summary
from lab.experiments.failures import answer as failures
from lab.experiments.folk_rules import counts, held_up, memory, replicas, throttled, workers
from lab.experiments.folk_rules import estimates as study
from lab.experiments.folk_rules.rules import EXPERIMENT
from lab.experiments.folk_rules.trials import ALONE, CENTRAL, HASHED, INLINE, POOL, THREAD
from lab.experiments.worker_scaling import scaling
from lab.models.statistics import Interval
from lab.study.estimates import Stated
from lab.study.plan import Condition
from lab.study.runs import open_run
from lab.study.store import Store


def _named(trials: pd.DataFrame) -> pd.DataFrame:
    names = [
        f"{EXPERIMENT}.b{trial['block']:02d}.{trial['server']}-{trial['part']}"
        for _, trial in trials.iterrows()
    ]
    return trials.assign(trial_id=names)


def _by(rows: list[Stated], factor: str) -> Stated:
    (row,) = [row for row in rows if factor in row.factors]
    return row


def test_tails_and_work_are_ratios_of_servers_in_the_blocks_that_have_both() -> None:
    mine = _named(tails({"workers-2": 2.0, "workers-5": 3.0, CENTRAL: 1.0, HASHED: [4.0] * 5}))
    rows = study.of_tails(mine, 2)
    assert {row.experiment for row in rows} == {EXPERIMENT}
    in_turn, at_random = _by(rows, f"over={CENTRAL}, server=workers-2"), _by(rows, f"server={HASHED}")
    assert in_turn.value == pytest.approx(2, abs=0.05)
    assert (in_turn.n, len(in_turn.sources), in_turn.interval) == (6, 12, Interval.MEDIAN)
    assert (at_random.n, len(at_random.sources)) == (5, 10), "a block without one of both is no pair"
    assert _by(rows, "over=workers-2, server=workers-5").value == pytest.approx(1.5, abs=0.05)
    (work,) = study.of_work(_named(rates({"workers-2": 1.0, "workers-5": 1.2})), 2)
    assert work.value == pytest.approx(1.2, abs=0.05)
    assert work.compares
    assert len({row.key for row in [*rows, work]}) == len(rows) + 1


def test_a_slow_request_is_told_by_place_and_by_dispatch() -> None:
    rows = study.of_places(_named(beside(3.0, 2.0)))
    tail = _by([row for row in rows if row.unit == "s"], f"server={POOL}")
    assert tail.value == pytest.approx(0.1, abs=0.01)
    assert (tail.n, len(tail.sources)) == (6, 6)
    assert _by(rows, f"over={ALONE}, server={POOL}").value == pytest.approx(2, abs=0.1)
    assert _by(rows, f"over={POOL}, server={INLINE}").value == pytest.approx(3, abs=0.1)
    assert len(_by(rows, f"server={THREAD}").sources) == 12
    (waited,) = study.of_waiting(events(reuseport=6))
    assert (waited.value, waited.factors, waited.sources) == (0.2, "dispatch=reuseport", ("reuseport",))


def test_a_quota_is_told_by_what_it_uses_and_whom_it_holds_up() -> None:
    used, stopped, late = study.of_quota(held(5, 5, 5, 5, 5, 5))
    assert stopped.value == pytest.approx(0.2)
    assert used.sources == stopped.sources == tuple(f"t{block}" for block in range(1, 7))
    assert late.value == pytest.approx(0.1)
    assert len(late.sources) == 12


def test_growth_of_memory_names_the_table_that_holds_it(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    warming, growth, fresh = study.of_memory(looked(1.2, 1.2, 1.2, 1.2, 1.2, 1.2))
    assert warming.value == 2
    assert growth.value == pytest.approx(1.2)
    assert (fresh.value, fresh.unit) == (20, "MiB")
    assert warming.sources == growth.sources == fresh.sources == (memory.KEPT,)
    run = open_run("a-run")
    Store(run.path).save_table("tables", memory.KEPT, looked(1.2, 1.3))
    assert summary.estimates(run).empty, "only of what has trials"


def test_numbers_of_all_rulings_lead_to_estimates() -> None:
    waited, quick, looks = events(least_busy=0, reuseport=6), _named(beside(3.0, 2.0)), looked(*[1.2] * 6)
    servers = _named(tails({"workers-2": 2.0, "workers-5": 3.0, CENTRAL: 1.0, HASHED: 4.0}))
    overloads, under = _named(rates({"workers-2": 1.0, "workers-5": 1.2})), held(*[5] * 6)
    asked = pd.concat([told(quota, 1, host=2, own=quota) for quota in (0.5, 1.5)])
    stated = [
        *study.of_tails(servers, 2), *study.of_work(overloads, 2), *study.of_waiting(waited),
        *study.of_places(quick), *study.of_memory(looks), *study.of_quota(under),
        *study.of_counts(asked.assign(table="cpu-counts-1")),
    ]  # fmt: skip
    rulings = [
        workers.ruling(overloads, servers, 2, 2),
        replicas.ruling(servers, 2),
        held_up.slow_ruling(waited),
        held_up.pool_ruling(quick),
        memory.ruling(looks),
        throttled.ruling(under),
        counts.ruling(asked),
    ]
    keys = [row.key for row in stated]
    assert len(keys) == len(set(keys))
    for ruling in rulings:
        for text in (ruling.answer, ruling.number):
            linked = re.findall("#estimate-([0-9a-f]{10})", text)
            assert linked, ruling.name
            assert set(linked) <= set(keys), ruling.name


def test_events_of_notebook_06_lead_to_its_estimates() -> None:
    waited = events(reuseport=6).assign(trial_id="failures.b01.0", connections="new")
    (stated,) = [row for row in failures.estimates(waited) if row.quantity.startswith("block: share")]
    assert stated.key in held_up.slow_ruling(waited).answer


def test_work_that_is_taken_from_notebook_04_is_stated_with_its_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "with_work", lambda _, rates: rates.assign(work_cpus=1.0))
    run = open_run("both")
    overloads = [Condition(topology="cluster", workers=n, load=2.0, duration_s=0.3) for n in (2, 5)]
    theirs = run.measure(scaling.EXPERIMENT, overloads, blocks=1, seed=1, execute=fake_attack)
    mine = tails({"workers-2": 1.0, "workers-5": 1.0})
    (work,) = study.of_work(workers.compared(run, mine[mine["block"] == 1], 2), 2)
    assert set(work.sources) == set(theirs["trial_id"])
