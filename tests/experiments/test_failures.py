"""Failures: what is planned and done, and what is read off a trial made by hand."""

import ast
from typing import Any

import numpy as np
import pandas as pd
import papermill
import pytest
from helpers.failure_scenes import blocked, crashed, killed, recycled, scaled

from lab import files
from lab.cli import study as batch
from lab.errors import UsageError
from lab.experiments.claims import Word
from lab.experiments.failures import facts
from lab.experiments.failures import trials as study
from lab.experiments.failures.answer import verdicts
from lab.experiments.failures.facts import scenes
from lab.study import plan
from lab.study.plan import Event

SLOW_S = 175e-9
"""What an iteration costs when the machine is slow; it is 100 ns when that is quiet."""

PARAMETERS: dict[str, Any] = {
    "run": "",
    "dispatches": ["round-robin", "reuseport"],
    "kept": ["recycle"],
    "workers": 2,
    "utilisation": 0.5,
    "duration_s": 4,
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 10,
    "blocks": 1,
    "seed": 1,
}


def parameters(**changes: Any) -> study.Parameters:
    return study.Parameters.from_notebook(PARAMETERS | changes)


def planned(**changes: Any) -> dict[str, list[tuple[str, bool]]]:
    """Return the servers that each scenario is planned for: dispatch, and whether connections are kept."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for condition in study.conditions(parameters(**changes), loop_s=0.01):
        server = (condition.dispatch, condition.keepalive)
        found.setdefault(str(condition.labels["scenario"]), []).append(server)
    return found


def test_what_is_compared_is_planned_for_each_dispatch_the_rest_for_the_first() -> None:
    servers = planned(kept=[])
    assert list(servers) == list(study.SCENARIOS)
    both, first = [("round-robin", False), ("reuseport", False)], [("round-robin", False)]
    assert [servers[name] for name in study.SCENARIOS] == [both, both, first, both, first]


def test_what_is_kept_is_planned_for_each_dispatch_with_new_connections_and_with_kept_ones() -> None:
    servers = planned(kept=["scale"], dispatches=["shared", "least-busy"])
    assert servers[study.SCALE] == [("shared", False), ("shared", True), ("least-busy", False)]
    assert servers[study.RECYCLE] == [("shared", False), ("least-busy", False)]


def test_quick_asks_for_enough_to_decide_claim_6_though_one_request_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "available_cpus", lambda: 2)
    listed = papermill.inspect_notebook(str(files.notebooks() / "06-failures.ipynb"))
    defaults = {name: ast.literal_eval(about["default"]) for name, about in listed.items()}
    p = study.Parameters.from_notebook(defaults | batch.profile_parameters("quick", "06-failures"))
    loop_s = SLOW_S * p.iterations
    killing = study.conditions(p, loop_s)[0].planned(loop_s)
    assert killing.rate
    met = int(killing.rate * (killing.duration_s - study.actions(killing)[0].at_s))
    (judged,) = [v for v in verdicts([killed(late=p.blocks * met)]) if v.number == 6]
    assert judged.word is Word.HOLDS


def test_while_one_is_blocked_the_load_is_what_the_others_can_do() -> None:
    conditions = study.conditions(parameters(workers=4), loop_s=0.01)
    loads = {str(condition.labels["scenario"]): condition.load or 0 for condition in conditions}
    assert loads[study.BLOCK] == pytest.approx(0.75 * loads[study.KILL])


def test_scaling_begins_with_more_than_one_worker_can_do() -> None:
    (scaling,) = [
        c for c in study.conditions(parameters(), loop_s=0.01) if c.labels["scenario"] == study.SCALE
    ]
    assert scaling.workers == 1
    assert 1 < (scaling.load or 0) < 2


@pytest.mark.parametrize(("name", "value"), [("workers", 1), ("kept", ["crash"]), ("dispatches", [])])
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"parameter {name}"):
        parameters(**{name: value})


def test_a_killed_worker_is_timed_until_another_accepts_and_answers() -> None:
    fact = facts.kill(killed(late=20, late_lost=3))
    assert fact["full_again_s"] == pytest.approx(0.5)
    assert fact["served_again_s"] == pytest.approx(2.1)
    assert (fact["met"], fact["met_lost"]) == (21, 4), "what was lost with the worker counts"
    assert fact["watched_s"] == 8.0


def test_a_worker_that_never_comes_back_has_no_time() -> None:
    fact = facts.kill(killed(back_s=None, late=1))
    assert np.isnan(fact["full_again_s"])
    assert np.isnan(fact["served_again_s"])


def test_replacing_workers_is_timed_and_what_was_open_meanwhile_is_counted() -> None:
    fact = facts.recycle(recycled(lost=1))
    assert (fact["took_s"], fact["fewest"], fact["met"], fact["met_lost"]) == (2.5, 2, 4, 1)
    assert fact["slowest_s"] == pytest.approx(0.4)
    assert np.isnan(facts.recycle(recycled(ends=Event.FAILED))["took_s"])


def test_only_what_the_blocked_worker_had_waited_for_it() -> None:
    made = blocked(waiting=1, going_on=3)
    assert facts.block(made) == {"blocked_s": 2.0, "due": 4, "answered": 3, "waited": 1}
    assert made.requests.loc[facts.blocked(made), "worker"].unique().tolist() == [1.0]


def test_scaling_compares_the_end_of_each_part() -> None:
    fact = facts.scale(scaled())
    assert [fact["one_s"], fact["two_s"], fact["one_again_s"]] == pytest.approx([1.0, 0.1, 0.5])
    assert (fact["grow_s"], fact["shrink_s"]) == (1.0, 1.5)
    assert fact["load"] == pytest.approx(0.03), "3 requests of .1 s in 10 s"


def test_a_crash_loop_lasts_until_requests_are_refused() -> None:
    reason = "gave up, because ..."
    assert facts.crash(crashed()) == {"held_s": 4.0, "due": 2, "answered": 1, "reason": reason}


def test_a_crash_loop_that_is_never_given_up_has_no_time() -> None:
    fact = facts.crash(crashed(given_up=False))
    assert np.isnan(fact["held_s"])
    assert (fact["due"], fact["answered"]) == (4, 1)


def test_scenes_are_put_together_in_the_order_of_scenarios_dispatches_and_blocks() -> None:
    rows = [("d", "scale", 0, 1), ("c", "kill", 1, 1), ("b", "kill", 0, 2), ("a", "kill", 0, 1)]
    trials = pd.DataFrame(rows, columns=["trial_id", "scenario", "place", "block"]).assign(
        dispatch="shared", keepalive=False, workers=2, duration_s=3.0
    )
    trials["flags"] = [(), (), (), ()]
    empty = pd.DataFrame({"trial_id": list("abcd"), "outcome": "ok", "event": Event.DONE})
    found = scenes(trials, empty, empty)
    assert [scene.requests["trial_id"].item() for scene in found] == list("abcd")
