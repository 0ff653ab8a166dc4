"""Runs: everything planned is measured once, whatever stops it, and read back as it was measured."""

import os
import re
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.study_fakes import QUICK, condition, fake_attack

from lab.errors import LabError, UsageError
from lab.flags import Flag
from lab.hotloop import LoopCost
from lab.load import records
from lab.study import run, stability
from lab.study.manifest import other_machine, other_version, write_manifest
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.runs import find_runs, open_run, unfinished_run
from lab.study.stability import MOST_OTHERS_CPU, MOST_STEAL, Noise
from lab.study.trial import Attacked

CONDITIONS = [condition(20), condition(40), condition(80)]


def measure(
    run: Run, conditions: list[Condition] = CONDITIONS, blocks: int = 2, **options: Any
) -> pd.DataFrame:
    return run.measure("sweep", conditions, blocks=blocks, seed=1, **({"execute": fake_attack} | options))


def contents(run: Run, kinds: tuple[str, ...] = ("trials", "requests")) -> dict[Path, bytes]:
    return {path: path.read_bytes() for kind in kinds for path in (run.path / kind).glob("*")}


class Counting:
    """A fake that counts the conditions it carries out, and raises at the n-th."""

    def __init__(self, raise_at: int = 0, error: BaseException | None = None) -> None:
        self.done: Counter[float | None] = Counter()
        self._raise_at = raise_at
        self._error = error

    def __call__(self, condition: Condition, seed: int) -> Attacked:
        if self._error and self.done.total() + 1 == self._raise_at:
            raise self._error
        self.done[condition.rate] += 1
        return fake_attack(condition, seed)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing else happens and the loop always costs the same."""
    monkeypatch.setattr(run, "between", lambda before, after: Noise(0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(stability, "measure", lambda kernel, iterations, repeats: [LoopCost(0.1, 0.1)])


def test_a_row_per_planned_trial_in_the_order_of_the_plan() -> None:
    trials = measure(open_run())
    assert list(trials["block"]) == [1, 1, 1, 2, 2, 2]
    assert list(trials["position"]) == [1, 2, 3, 1, 2, 3]
    assert Counter(trials["rate"]) == {20: 2, 40: 2, 80: 2}
    assert trials["started_at"].is_monotonic_increasing


def test_a_row_holds_the_summary_of_its_requests(quiet: None) -> None:
    run = open_run()
    trials = measure(run, [condition(20)], blocks=1)
    (row,) = trials.to_dict("records")
    requests = run.requests(trials)
    ok = requests[requests["outcome"] == "ok"]
    assert (row["planned"], row["sent"], row["ok"], row["refused"], row["timeout"]) == (20, 20, 18, 2, 0)
    assert row["success"] == 0.9
    assert row["throughput_rps"] == 18  # in the second that the schedule lasts
    assert row["latency_p99_s"] == pytest.approx(requests["latency_s"].quantile(0.99))
    assert row["latency_ok_max_s"] == pytest.approx(ok["latency_s"].max())
    assert row["service_mean_s"] == pytest.approx(0.001)
    assert (row["workers_seen"], row["worker_max_share"]) == (2, 10 / 18)
    assert (row["loop_s"], row["loop_drift"]) == (0.1, 1.0)
    assert (row["valid"], row["flags"]) == (True, ())


def test_requests_carry_their_trial_s_factors_and_labels() -> None:
    run = open_run()
    trials = measure(
        run, [condition(20, labels={"server": "a"}), condition(40, labels={"server": "b"})], blocks=1
    )
    requests = run.requests(trials)
    assert requests.groupby("server").size().to_dict() == {"a": 20, "b": 40}
    assert requests.groupby("trial_id").size().to_dict() == dict(
        zip(trials["trial_id"], trials["planned"], strict=True)
    )
    pd.testing.assert_frame_equal(run.requests("sweep"), run.requests(run.trials("sweep")))
    assert set(records.SCHEMA.names) < set(requests.columns)


def test_what_is_on_disk_is_not_measured_again() -> None:
    run, second = open_run(), Counting()
    before = measure(run)
    kept = contents(run, ("trials", "requests", "calibrations"))
    after = measure(open_run(run.run_id), execute=second)
    pd.testing.assert_frame_equal(before, after)
    assert second.done.total() == 0
    assert contents(run, ("trials", "requests", "calibrations")) == kept


def test_changed_conditions_are_other_trials_and_the_old_ones_stay() -> None:
    run, more = open_run(), Counting()
    measure(run)
    trials = measure(run, [condition(40), condition(160)], blocks=3, execute=more)
    assert more.done == {40: 1, 160: 3}
    assert Counter(trials["rate"]) == {40: 3, 160: 3}
    assert Counter(run.trials("sweep")["rate"]) == {20: 2, 40: 3, 80: 2, 160: 3}


def test_experiments_are_kept_apart() -> None:
    run = open_run()
    for name in ("sweep", "sweep-b", "swee"):
        run.measure(name, [condition(20)], blocks=1, seed=1, execute=fake_attack)
        assert set(run.trials(name)["experiment"]) == {name}


def test_an_experiment_without_trials_is_an_empty_table_with_all_columns() -> None:
    run = open_run()
    trials = run.trials("nothing")
    assert len(trials) == 0
    assert {"rate", "valid", "loop_s", "loop_drift"} <= set(trials.columns)
    assert len(run.requests("nothing")) == 0


@pytest.mark.parametrize(
    ("raise_at", "error"),
    [
        (1, KeyboardInterrupt()),
        (2, LabError("the server did not start")),
        (4, LabError("the server did not start")),
        (6, KeyboardInterrupt()),
    ],
)
def test_a_run_that_was_stopped_goes_on_where_it_was(raise_at: int, error: BaseException) -> None:
    run, first, second = open_run(), Counting(raise_at, error), Counting()
    with pytest.raises(type(error)):
        measure(run, execute=first)
    kept = contents(run)
    assert len(kept) == 2 * (raise_at - 1)
    trials = measure(open_run(run.run_id), execute=second)
    assert first.done + second.done == {20: 2, 40: 2, 80: 2}
    assert len(trials) == 6
    assert kept.items() <= contents(run).items()
    assert trials["loop_drift"].notna().all()


def test_sigkill_at_any_write_loses_no_finished_trial_and_repeats_none(
    quiet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves what is on disk: it is copied at each flush, between any two steps others could see."""
    really_sync, seen = os.fsync, set[frozenset[Path]]()

    def sync_and_copy(descriptor: int) -> None:
        found = frozenset(home.glob("data/*/manifest.json")) | frozenset(home.glob("data/*/*/*"))
        if found not in seen:
            copied = shutil.copytree(home, tmp_path / f"killed-{len(seen)}")
            for path in copied.rglob("*.partial"):
                path.rename(path.with_name(f".other{path.name}"))  # a process that resumes has its own
            seen.add(found)
        really_sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setenv("SCALING_LAB_HOME", str(home := tmp_path / "whole"))
        patch.setattr(os, "fsync", sync_and_copy)
        measure(open_run("killed"), CONDITIONS[:2])
    survivors = Counter[int]()
    for killed in tmp_path.glob("killed-*"):
        monkeypatch.setenv("SCALING_LAB_HOME", str(killed))
        run, rest = open_run("killed"), Counting()
        finished = {path: path.read_bytes() for path in (run.path / "trials").glob("[!.]*")}
        survivors[len(finished)] += 1
        trials = measure(run, CONDITIONS[:2], execute=rest)
        assert len(finished) + rest.done.total() == len(trials) == 4
        assert finished.items() <= contents(run).items()
        assert len(run.requests(trials)) == 2 * (20 + 40)
        assert trials["loop_drift"].notna().all()
        run.seal()
        assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]
    assert set(survivors) == {0, 1, 2, 3, 4}


def test_leftovers_of_a_kill_are_removed_by_the_next_writer() -> None:
    run = open_run()
    measure(run, [condition(20)])
    halves = [
        "trials/.a.parquet.partial",
        "requests/.a.parquet.4711.partial",
        "requests/sweep.b09.000000000000.parquet",
    ]
    for name in halves:
        (run.path / name).write_bytes(b"half")
    measure(run, [condition(40)])
    assert [name for name in halves if (run.path / name).exists()] == []


def test_two_may_not_measure_into_one_run_at_once() -> None:
    run = open_run()

    def intrude(condition: Condition, seed: int) -> Attacked:
        with pytest.raises(LabError, match="being measured by another process"):
            measure(open_run(run.run_id), [condition])
        assert len(open_run(run.run_id).trials("sweep")) == 0  # reading is free
        return fake_attack(condition, seed)

    assert len(measure(run, [condition(20)], blocks=1, execute=intrude)) == 1
    assert len(measure(open_run(run.run_id), [condition(40)])) == 2


def test_a_trial_is_kept_with_its_reasons_when_something_spoils_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = iter([0.1, 0.1, 0.1, 0.125])
    monkeypatch.setattr(stability, "measure", lambda *loop: [LoopCost(9.0, next(loops))])
    noises = iter([Noise(0.5, 0.0, None, 0.0), Noise(0.0, 0.25, 1.0, 9.0)])
    monkeypatch.setattr(run, "between", lambda before, after: next(noises, Noise(0.0, 0.0, 1.0, 9.0)))

    def struggling(condition: Condition, seed: int) -> Attacked:
        result = fake_attack(condition, seed)
        spoilt = {"valid": False, "flags": [Flag("send_lag", 0.002, 0.001).to_dict()]}
        return Attacked(result.requests, {**result.summary, **(spoilt if condition.rate == 40 else {})})

    trials = measure(open_run(), CONDITIONS[:2], execute=struggling)  # too few to agree on the loop's cost
    flags = trials.set_index(["block", "position"])["flags"]
    assert Flag("steal", 0.5, MOST_STEAL) in flags[1, 1]
    assert Flag("others_cpu", 0.25, MOST_OTHERS_CPU) in flags[1, 2]
    for position in (1, 2):
        assert ("loop_drift", pytest.approx(0.25)) in [(flag.code, flag.value) for flag in flags[2, position]]
    assert all(found[0].code == "send_lag" for found in trials.loc[trials["rate"] == 40, "flags"])
    assert list(trials["valid"]) == [not found for found in trials["flags"]]
    assert trials["loop_s"].iloc[-1] == pytest.approx(0.1125)


def test_a_resumed_block_is_calibrated_where_it_was_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = iter([0.1, 0.2, 0.2])
    monkeypatch.setattr(stability, "measure", lambda *loop: [LoopCost(9.0, next(loops))])
    run = open_run()
    with pytest.raises(KeyboardInterrupt):
        measure(run, blocks=1, execute=Counting(2, KeyboardInterrupt()))
    assert list(measure(run, blocks=1)["loop_drift"]) == [2.0, 1.0, 1.0]


LOADS = [condition(None, load=load) for load in (0.5, 1.0)]


def test_each_block_works_out_its_rates_from_its_own_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop takes 100 ms before the first block, 50 ms before the second, and longer at the end of both."""
    loops = iter([0.1, 0.2, 0.05, 0.2])
    monkeypatch.setattr(stability, "measure", lambda *loop: [LoopCost(9.0, next(loops))])
    run = open_run()
    trials = measure(run, LOADS).set_index(["block", "load"])
    rates = {(1, 0.5): 5, (1, 1.0): 10, (2, 0.5): 10, (2, 1.0): 20}
    assert trials["rate"].to_dict() == pytest.approx(rates)
    assert trials["planned"].to_dict() == rates, "what was offered"
    again = measure(open_run(run.run_id), LOADS, execute=Counting(1, AssertionError("measured again")))
    assert again["rate"].tolist() == pytest.approx(trials["rate"].tolist())


def test_a_resumed_block_goes_on_at_the_load_that_was_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is half as fast by then: the rate of the old calibration would be twice the load."""
    loops = iter([0.05, 0.1, 0.1])
    monkeypatch.setattr(stability, "measure", lambda *loop: [LoopCost(9.0, next(loops))])
    run, same = open_run(), [condition(None, load=1.0, labels={"arm": arm}) for arm in "ab"]
    with pytest.raises(KeyboardInterrupt):
        measure(run, same, blocks=1, execute=Counting(2, KeyboardInterrupt()))
    trials = measure(open_run(run.run_id), same, blocks=1)
    assert trials["rate"].tolist() == pytest.approx([20, 10])
    assert trials["load"].tolist() == [1.0, 1.0]


def test_the_utilisation_is_of_the_trial_s_own_service_times(quiet: None) -> None:
    trials = measure(open_run(), [condition(20), condition(40, topology="cluster", workers=2)], blocks=1)
    assert trials["service_mean_s"].tolist() == pytest.approx([0.001, 0.001])
    assert trials["utilisation"].tolist() == pytest.approx([0.02, 0.02])


def test_the_loop_is_timed_once_per_run() -> None:
    run = open_run()
    assert run.loop_cpu_s("python", QUICK) == open_run(run.run_id).loop_cpu_s("python", QUICK) > 0
    assert len(run.table(f"loop-python-{QUICK}", lambda: pytest.fail("made again"))) > 1


def test_a_table_is_made_once_and_read_ever_after() -> None:
    run, frame = open_run(), pd.DataFrame({"kernel": ["python", "numba"], "wall_s": [0.09, 0.02]})
    pd.testing.assert_frame_equal(run.table("timings", lambda: frame), frame)
    pd.testing.assert_frame_equal(
        open_run(run.run_id).table("timings", lambda: pytest.fail("made again")), frame
    )
    with pytest.raises(UsageError):
        run.table("../timings", lambda: frame)


def test_runs_are_found_newest_first_and_the_unfinished_one_is_resumed() -> None:
    assert find_runs() == []
    old = open_run(profile="quick", notebooks=["01", "02"], parameters={"rate": 5})
    new = open_run("named", profile="quick", notebooks=["01"])
    assert [run.run_id for run in find_runs()] == ["named", old.run_id]
    assert old.manifest.parameters == {"rate": 5}
    assert unfinished_run("quick", ["01", "02"], {"rate": 5}) == old.manifest
    assert unfinished_run("quick", ["01", "02"], {}) is None
    assert unfinished_run("full", ["01"], {}) is None
    new.seal()
    assert unfinished_run("quick", ["01"], {}) is None


def test_nothing_is_added_to_a_run_of_another_machine_but_it_can_be_read() -> None:
    run = open_run()
    before = measure(run, [condition(20)])
    kept = run.table("timings", lambda: pd.DataFrame({"wall_s": [0.1]}))
    here = run.manifest
    elsewhere = here.machine.model_copy(update={"cpu_model": "Abacus 3000", "memory_bytes": 1})
    write_manifest(run.path, here.model_copy(update={"machine": elsewhere}))
    pd.testing.assert_frame_equal(measure(run, [condition(20)]), before)
    pd.testing.assert_frame_equal(run.table("timings", lambda: pytest.fail("made again")), kept)
    refused = r"begun on another machine \(cpu_model Abacus 3000, here .*\); begin a new run"
    with pytest.raises(LabError, match=refused):
        measure(run)
    with pytest.raises(LabError, match=refused):
        run.table("new", lambda: kept)


def test_a_run_knows_whether_it_was_begun_here_by_this_version() -> None:
    here = open_run().manifest
    assert (other_machine(here), other_version(here)) == ("", "")
    rebooted = here.machine.model_copy(update={"memory_bytes": here.machine.memory_bytes - 4096})
    assert other_machine(here.model_copy(update={"machine": rebooted})) == ""
    pinned = here.machine.model_copy(update={"affinity_cpus": 99})
    assert "affinity_cpus 99, here" in other_machine(here.model_copy(update={"machine": pinned}))
    older = here.model_copy(update={"git_commit": "abc", "packages": {**here.packages, "numpy": "1.0"}})
    assert re.search(r"another version \(commit abc, here .*, numpy 1.0, here ", other_version(older))


def test_a_run_that_was_named_is_not_the_run_of_the_day() -> None:
    named = open_run("mine")
    shared = open_run()
    assert shared.run_id != named.run_id
    assert open_run().run_id == shared.run_id


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "x" * 101, "two words", ".."])
def test_a_run_s_name_is_a_folder_s_name(name: str) -> None:
    with pytest.raises(UsageError, match="a run's name consists of"):
        open_run(name)


class TestNotebooksOpenedByHand:
    def test_they_share_the_run_of_the_day(self) -> None:
        first = open_run()
        assert open_run().run_id == first.run_id
        assert open_run(profile="quick").run_id != first.run_id, "a study has a run of its own"
        assert open_run().run_id == first.run_id
        assert (another := open_run("new")).run_id != first.run_id
        assert open_run().run_id == another.run_id

    def test_they_begin_another_run_on_another_day_machine_or_version(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = open_run()
        yesterday = first.manifest.started_at - timedelta(days=1)
        write_manifest(first.path, first.manifest.model_copy(update={"started_at": yesterday}))
        second = open_run()
        assert second.run_id != first.run_id
        monkeypatch.setattr("lab.study.manifest.other_version", lambda manifest: "by another version")
        assert open_run().run_id not in (first.run_id, second.run_id)

    def test_what_was_asked_for_last_is_what_the_run_shows(self) -> None:
        measure(open_run(), [condition(20), condition(40)])
        run = open_run()
        assert set(measure(run, [condition(40), condition(80)])["rate"]) == {40, 80}
        assert set(open_run(run.run_id).trials("sweep")["rate"]) == {40, 80}
        measure(run, [condition(20)])  # a second part of the same plan
        assert set(open_run(run.run_id).trials("sweep")["rate"]) == {20, 40, 80}
        measure(open_run(), [condition(20)])
        assert set(open_run(run.run_id).trials("sweep")["rate"]) == {20}
