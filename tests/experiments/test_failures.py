"""Failures: what is planned and done, what is read off a trial made by hand, and what is said of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.errors import UsageError
from lab.experiments import failure_facts as facts
from lab.experiments import failure_words as words
from lab.experiments import failures as study
from lab.experiments.failure_facts import Scene

PARAMETERS: dict[str, Any] = {
    "run": "",
    "dispatches": ["round-robin", "reuseport"],
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


def scene(
    scenario: str,
    requests: list[tuple[float, float, int | None]],
    events: list[tuple[float, str, int]],
    **changes: Any,
) -> Scene:
    """Make a scene: requests as (due_s, end_s, worker), without a worker one that was reset."""
    frame = pd.DataFrame(requests, columns=["due_s", "end_s", "worker"])
    frame = frame.astype({"worker": float})
    frame["outcome"] = np.where(frame["worker"].isna(), "reset", "ok")
    frame["latency_s"] = frame["end_s"] - frame["due_s"]
    about: dict[str, Any] = {"dispatch": "round-robin", "workers": 2, "duration_s": 10.0, "loop_s": 0.1}
    log = pd.DataFrame(events, columns=["at_s", "event", "workers"])
    return Scene(scenario=scenario, requests=frame, events=log, **(about | changes))


KILLED = scene(
    study.KILL,
    [(0, 0.1, 1), (1, 1.1, 2), (1.9, 2.05, None), (2.1, 2.2, 2), (2.3, 2.9, 3), (4, 4.1, 3)],
    [(0.0, "", 2), (2.0, "kill -9 of a worker", 2), (2.02, "", 1), (2.5, "", 2)],
)
BLOCKED = scene(
    study.BLOCK,
    [(0, 0.1, 1), (1, 1.1, 2), (2.2, 4.3, 1), (2.4, 2.5, 2), (3, 3.1, 2), (3.5, 3.6, 2), (5, 5.1, 1)],
    [(0.0, "", 2), (2.0, "a request for 20 loops", 2), (4.0, "it is answered", 2)],
)
RECYCLED = scene(
    study.RECYCLE,
    [(0, 0.1, 1), (3, 3.4, 2), (6, 6.1, 3)],
    [(0.0, "", 2), (2.0, "recycle()", 2), (4.5, "all replaced", 2)],
)


def test_a_killed_worker_is_timed_until_another_accepts_and_answers() -> None:
    fact = facts.kill(KILLED)
    assert fact["lost"] == 1
    assert fact["full_again_s"] == pytest.approx(0.5)
    assert fact["served_again_s"] == pytest.approx(0.9)
    assert fact["lost_after"] == 0


def test_a_worker_that_never_comes_back_has_no_time() -> None:
    gone = scene(study.KILL, [(0, 0.1, 1), (3, 3.1, None)], [(1.0, "kill -9 of a worker", 2), (1.1, "", 1)])
    assert np.isnan(facts.kill(gone)["full_again_s"])
    assert [verdict.word for verdict in words.verdicts([gone])] == [
        "not measured", "does not hold here", "not measured",
    ]  # fmt: skip


def test_only_what_the_blocked_worker_had_waited_for_it() -> None:
    fact = facts.block(BLOCKED)
    assert (fact["due"], fact["waited"], fact["blocked_s"]) == (4, 1, 2.0)
    assert fact["answered"] == pytest.approx(0.75)


def test_replacing_workers_is_timed_and_its_fewest_workers_counted() -> None:
    fact = facts.recycle(RECYCLED)
    assert (fact["lost"], fact["took_s"], fact["fewest"]) == (0, 2.5, 2)
    assert fact["slowest_s"] == pytest.approx(0.4)


def test_a_crash_loop_lasts_until_requests_are_refused() -> None:
    crashed = scene(
        study.CRASH,
        [(0, 0.1, 1), (2, 2.1, 2), (3, 3.1, None), (5, 5.1, None)],
        [(1.0, "each new worker crashes", 2), (6.0, "gave up, because ...", 0)],
    )
    crashed.requests.loc[3, "outcome"] = "refused"
    fact = facts.crash(crashed)
    assert fact["held_s"] == pytest.approx(4.0)
    assert fact["answered"] == 0.5
    assert "“gave up, because ...”" in words.ending([crashed])


def test_scaling_compares_before_between_and_after() -> None:
    scaled = scene(
        study.SCALE,
        [(0, 1, 1), (3, 3.1, 2), (8, 8.5, 1)],
        [(1.0, "scale(2)", 1), (2.0, "2 workers accept", 2), (6.0, "scale(1)", 2), (7.0, "1 has drained", 1)],
    )
    fact = facts.scale(scaled)
    assert [fact["one_s"], fact["two_s"], fact["one_again_s"]] == pytest.approx([1.0, 0.1, 0.5])


def test_verdicts_follow_from_the_scenes() -> None:
    lossy = scene(study.RECYCLE, [(0, 0.1, 1), (3, 3.1, None)], [(2.0, "recycle()", 2)], dispatch="reuseport")
    judged = words.verdicts([BLOCKED, KILLED, RECYCLED, lossy])
    assert [(verdict.number, verdict.word) for verdict in judged] == [
        (5, "holds"), (6, "holds"), (7, "holds"), (7, "does not hold here"),
    ]  # fmt: skip
    assert judged[3].claim.endswith("(reuseport)")
    assert judged[3].evidence == "1 of 2 requests lost; never fewer than 2 workers"


def test_every_scenario_has_a_figure_whose_title_says_what_was_lost() -> None:
    for made in (KILLED, RECYCLED, BLOCKED):
        figure = words.figure([made], made.scenario)
        assert figure is not None
        assert " of " in figure.get_suptitle()
    assert words.figure([], study.KILL) is None


def test_what_is_compared_is_planned_for_each_dispatch_the_rest_for_the_first() -> None:
    planned = study.conditions(parameters(), loop_s=0.01)
    of = [(condition.labels["scenario"], condition.dispatch) for condition in planned]
    for scenario in (study.KILL, study.RECYCLE, study.BLOCK):
        assert [dispatch for name, dispatch in of if name == scenario] == ["round-robin", "reuseport"]
    for scenario in (study.SCALE, study.CRASH):
        assert [dispatch for name, dispatch in of if name == scenario] == ["round-robin"]


def test_while_one_is_blocked_the_load_is_what_the_others_can_do() -> None:
    planned = study.conditions(parameters(workers=4), loop_s=0.01)
    rates = {str(condition.labels["scenario"]): condition.rate for condition in planned}
    assert rates[study.BLOCK] == pytest.approx(0.75 * rates[study.KILL])


def test_one_worker_is_too_few_to_lose_one() -> None:
    with pytest.raises(UsageError, match="parameter workers = 1"):
        parameters(workers=1)
