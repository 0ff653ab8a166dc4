"""The replay: what was recorded is played rightly, and what is said of it follows from it."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import Page
from helpers.trial_rows import trials
from hypothesis import given
from hypothesis import strategies as st

from lab.report.replay import Scene, at_own_worker, in_one_queue, section, telling_moment
from lab.study.run import Run


@st.composite
def played(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Scene]:
    """Arrivals, some at the same time, with their loops, under either dispatch."""
    workers = draw(st.integers(2, 5))
    number = draw(st.integers(1, 40))
    due_s = np.cumsum(draw(_lists(number, st.sampled_from([0.0, 0.001, 0.01]) | st.floats(0, 0.1))))
    service_s = np.array(draw(_lists(number, st.floats(1e-6, 0.2))))
    if draw(st.booleans()):
        return due_s, service_s, in_one_queue("", workers, due_s, service_s)
    worker = np.array(draw(_lists(number, st.integers(0, workers - 1))))
    return due_s, service_s, at_own_worker("", workers, due_s, service_s, worker)


def _lists(number: int, of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, min_size=number, max_size=number)


@given(played())
def test_every_request_is_served_once_for_as_long_as_its_loop(
    case: tuple[np.ndarray, np.ndarray, Scene],
) -> None:
    due_s, service_s, scene = case
    assert np.array_equal(scene.due_s, due_s)
    assert np.allclose(scene.end_s - scene.start_s, service_s, rtol=0, atol=1e-12)
    assert (scene.start_s >= due_s).all()
    told = scene.for_script()["requests"]
    assert [one["due"] for one in told] == np.round(due_s, 6).tolist()
    assert all(one["due"] <= one["start"] <= one["end"] for one in told)


@given(played())
def test_no_worker_serves_two_at_once_nor_idles_while_its_own_wait(
    case: tuple[np.ndarray, np.ndarray, Scene],
) -> None:
    *_, scene = case
    for worker in range(scene.workers):
        its = scene.worker == worker
        assert (scene.start_s[its][1:] >= scene.end_s[its][:-1]).all()
    for i, start_s in enumerate(scene.start_s):
        if start_s > scene.due_s[i] + 1e-9:
            just_before_s = float((max(scene.due_s[i], start_s - 1e-9) + start_s) / 2)
            idle = scene.idle(just_before_s)
            assert scene.worker[i] not in idle
            assert not (scene.shared and idle), "in one queue, none waits while any worker is idle"


def _scenes() -> tuple[Scene, Scene]:
    """Four requests of a second each; by hash, all of them go to one of two workers."""
    due_s, service_s = np.array([0.0, 0.1, 0.2, 5.0]), np.ones(4)
    return (
        at_own_worker("hash", 2, due_s, service_s, np.zeros(4, np.int64)),
        in_one_queue("queue", 2, due_s, service_s),
    )


def test_waits_are_known_where_all_go_to_one_worker() -> None:
    hashed, queue = _scenes()
    assert hashed.start_s.tolist() == pytest.approx([0, 1, 2, 5])
    assert hashed.wait_s == pytest.approx((0.9 + 1.8) / 4)
    assert queue.start_s.tolist() == pytest.approx([0, 0.1, 1, 5])
    assert queue.worker.tolist() == [0, 1, 0, 1], "the worker that was free first takes the next"
    assert hashed.waiting(np.array([0.05, 0.15, 0.5, 1.5, 2.5])).tolist() == [0, 1, 2, 1, 0]


def test_the_telling_moment_is_where_most_more_wait_beside_most_idle_workers() -> None:
    """By hash one more waits from 0.1 s to 2 s, for the longest while between changes from 1.1 s on."""
    hashed, queue = _scenes()
    assert telling_moment(hashed, queue) == pytest.approx((1.1 + 2.0) / 2) == telling_moment(queue, hashed)
    assert telling_moment(queue, queue) > 0


class Recorded(Run):
    """A run whose notebook 05 has these trials, with these requests each."""

    def __init__(self, rows: pd.DataFrame, records: pd.DataFrame) -> None:
        self._rows, self._records = rows, records

    def trials(self, experiment: str) -> pd.DataFrame:
        return self._rows if experiment == "dispatch" else self._rows.iloc[:0]

    def requests(self, trials: pd.DataFrame | str) -> pd.DataFrame:
        assert isinstance(trials, pd.DataFrame)
        return pd.concat([self._records.assign(trial_id=name) for name in trials["trial_id"]])


HASHED = {
    "trial_id": "dispatch.b01.aa",
    "topology": "cluster",
    "workers": 2,
    "dispatch": "reuseport",
    "arrivals": "poisson",
    "utilisation": 0.7,
}


def _records(number: int = 40, **changes: Any) -> pd.DataFrame:
    """Requests every 10 ms whose loops take 14 ms, in runs of three to the same worker."""
    due_s = 0.01 * np.arange(number)
    records = {
        "due_s": due_s,
        "end_s": due_s + 0.05,
        "latency_s": 0.05,
        "service_s": 0.014,
        "outcome": "ok",
        "worker": np.where(np.arange(number) // 3 % 2, 4711.0, 4712.0),
    }
    return pd.DataFrame(records | changes)


def _replayed(rows: list[dict[str, Any]] | None = None, **changes: Any) -> str:
    return section(Recorded(trials(*(rows or [HASHED])), _records(**changes)))


def _data(markup: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="replay-data">(.*?)</script>', markup)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_recorded_times_and_workers_are_played_under_both_dispatches() -> None:
    hashed, queue = _data(_replayed())["scenes"]
    dues = [[request["due"] for request in scene["requests"]] for scene in (hashed, queue)]
    assert dues[0] == dues[1] == pytest.approx([0.014 + 0.01 * i for i in range(40)])
    assert [request["worker"] for request in hashed["requests"]][:7] == [0, 0, 0, 1, 1, 1, 0]
    assert (hashed["queue"], queue["queue"]) == ("each", "shared")
    assert {round(one["end"] - one["start"], 6) for one in hashed["requests"] + queue["requests"]} == {0.014}


def test_the_heading_is_the_finding_computed_from_the_scenes() -> None:
    markup = _replayed()
    waits_ms = [
        1000 * np.mean([one["start"] - one["due"] for one in scene["requests"]])
        for scene in _data(markup)["scenes"]
    ]
    assert waits_ms[1] == pytest.approx(0)
    said = re.search(r"40 requests wait ([\d.]+) ms on average under reuseport, no time in one queue", markup)
    assert said
    assert float(said[1]) == pytest.approx(waits_ms[0], rel=0.01)


def test_the_caption_says_what_was_recorded_what_is_played_and_how_it_was_chosen() -> None:
    text = Page(_replayed([HASHED, HASHED | {"trial_id": "dispatch.b02.bb"}])).text("figcaption")
    assert "Recorded in trial dispatch.b01.aa (reuseport, 2 workers, utilisation 70 %)" in text
    assert "mean latency was 50.0 ms as measured" in text
    assert "Of 2 such trials in this run" in text
    assert "No other trial" in Page(_replayed()).text("figcaption")


def test_the_still_figure_says_the_finding_to_those_who_cannot_see_it() -> None:
    pictures = Page(_replayed()).find("svg")
    assert [picture["role"] for picture in pictures] == ["img"]
    assert pictures[0]["aria-label"].startswith("The same 40 requests wait ")


def test_of_a_long_trial_the_stretch_that_differs_most_is_played_and_named() -> None:
    worker = np.where(np.arange(200) % 2, 1.0, 2.0)
    worker[120:150] = 1.0  # for a while, all to one
    markup = _replayed(number=200, worker=worker)
    requests = _data(markup)["scenes"][0]["requests"]
    assert len(requests) == 60
    assert [request["worker"] for request in requests].count(1) >= 40
    assert ", of a stretch of 60 of its 200, was due" in markup


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 1},
        {"workers": 64},
        {"utilisation": 1.0},
        {"utilisation": float("nan")},
        {"valid": False},
        {"arrivals": "constant"},
        {"keepalive": True},
        {"dispatch": "shared"},
        {"topology": "offload"},
    ],
)
def test_a_trial_in_which_nothing_would_be_seen_is_not_played(changes: dict[str, Any]) -> None:
    assert _replayed()
    assert _replayed([HASHED | changes]) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "timeout"},
        {"service_s": float("nan")},
        {"service_s": -1.0},
        {"service_s": float("inf")},
        {"worker": float("nan")},
        {"worker": 1.0},
        {"worker": np.arange(40.0) % 3},
        {"number": 1, "worker": 1.0},
    ],
)
def test_records_that_do_not_say_enough_are_not_played(changes: dict[str, Any]) -> None:
    assert _replayed(**changes) == ""


def test_a_run_without_notebook_05_has_no_replay() -> None:
    assert section(Recorded(trials(HASHED).iloc[:0], _records())) == ""


def test_names_of_an_imported_run_are_text() -> None:
    markup = _replayed([HASHED | {"trial_id": "</script><script>alert(1)</script>"}])
    assert len(Page(markup).find("script")) == 2
    assert "</script><script>alert(1)</script>" in Page(markup).text("figcaption")
