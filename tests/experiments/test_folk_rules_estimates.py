"""What notebook 12 states: ratios within blocks, each with the trials that it was computed from."""

import pandas as pd
import pytest
from helpers.folk_trials import beside, events, held, looked, rates, tails

from lab.experiments import summary
from lab.experiments.folk_rules import estimates as study
from lab.experiments.folk_rules import memory
from lab.experiments.folk_rules.rules import EXPERIMENT
from lab.experiments.folk_rules.trials import CENTRAL, HASHED, INLINE, POOL, THREAD
from lab.models.statistics import Interval
from lab.study.estimates import Stated
from lab.study.run import open_run
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
    assert _by(rows, f"over={POOL}, server={INLINE}").value == pytest.approx(3, abs=0.1)
    assert len(_by(rows, f"server={THREAD}").sources) == 12
    (waited,) = study.of_waiting(events(reuseport=6))
    assert (waited.value, waited.factors, waited.sources) == (0.2, "dispatch=reuseport", ("reuseport",))


def test_a_quota_is_told_by_what_it_uses_and_whom_it_holds_up() -> None:
    used, late = study.of_quota(held(5, 5, 5, 5, 5, 5))
    assert used.sources == tuple(f"t{block}" for block in range(1, 7))
    assert late.value == pytest.approx(0.1)
    assert len(late.sources) == 12


def test_growth_of_memory_names_the_table_that_holds_it(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    (growth,) = study.of_memory(looked(1.2, 1.2, 1.2, 1.2, 1.2, 1.2))
    assert growth.value == pytest.approx(1.2)
    assert growth.sources == (memory.KEPT,)
    run = open_run("a-run")
    Store(run.path).save_table("tables", memory.KEPT, looked(1.2, 1.3))
    assert summary.estimates(run).empty, "only of what has trials"
