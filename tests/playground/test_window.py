"""The last seconds of a load: what reports add up to, and what is shown of it. Known answers."""

import json
from typing import Any

import pytest

from lab.experiments.dispatch.trials import Queue
from lab.load.live import Report, Row
from lab.models.queueing import mdc_mean_wait, mdc_wait_quantile
from lab.playground import picture
from lab.playground.engine import Moment, Worker
from lab.playground.theory import Theory, predict
from lab.playground.window import LEAST_ANSWERS, Window

FACTORS: dict[str, Any] = {
    "topology": "cluster", "dispatch": "round-robin", "workers": 2, "arrivals": "poisson", "kernel": "python",
    "pool": "process",
}  # fmt: skip


def row(due_s: float, took_s: float, outcome: str = "ok", worker: int = 1) -> Row:
    service_s = took_s / 2 if outcome == "ok" else None
    return Row(due_s, due_s + 0.001, due_s + took_s, service_s, service_s, outcome, worker)


def report(now_s: float, due: int, rows: list[Row], waiting: list[float] | None = None) -> Report:
    return Report(now_s, due, rows, len(waiting or ()), waiting or [])


def ended_by(now_s: float, rows: list[Row]) -> list[Row]:
    return sorted((one for one in rows if one.end_s and one.end_s <= now_s), key=lambda one: one.end_s or 0)


def test_steady_load() -> None:
    window = Window()
    rows = [row(k / 100, 0.02, worker=1 + k % 2) for k in range(1000)]
    for second in range(1, 9):
        done = ended_by(second, rows)
        rows = [one for one in rows if one not in done]
        window.add(report(second, 100 * second, done))
    numbers = window.numbers()
    assert numbers.offered_rps == pytest.approx(100)
    assert numbers.throughput_rps == pytest.approx(100, abs=1)
    assert numbers.p50_s == pytest.approx(0.02)
    assert numbers.p99_s == pytest.approx(0.02)
    assert numbers.service_s == pytest.approx(0.01)
    assert numbers.lag_p99_s == pytest.approx(0.001)
    assert numbers.by_worker[1] == pytest.approx(numbers.by_worker[2], abs=1)
    assert numbers.failures == {}


def test_few_answers_reach_further_back_but_not_for_ever() -> None:
    window = Window()
    window.add(report(3.0, 30, ended_by(3.0, [row(k / 10, 0.02) for k in range(29)])))
    assert window.numbers().answers == 29 < LEAST_ANSWERS
    window.add(report(60.0, 30, []))
    numbers = window.numbers()
    assert numbers.answers == 0
    assert (numbers.p50_s, numbers.p99_s, numbers.service_s) == (None, None, None)
    assert numbers.throughput_rps == numbers.offered_rps == 0


def test_a_request_that_waits_for_longer_than_any_took_counts_with_its_age() -> None:
    window = Window()
    window.add(report(2.0, 11, ended_by(2.0, [row(k / 10, 0.02) for k in range(10)]), [1.0, 1.99]))
    numbers = window.numbers()
    assert numbers.p99_s is not None
    assert 0.5 < numbers.p99_s <= 1.0
    assert numbers.p50_s == pytest.approx(0.02), "one that has just come does not flatter"
    assert numbers.in_flight == 2


def test_failures_are_told_apart_and_are_no_answers() -> None:
    window = Window()
    rows = [row(0.5, 0.001, "refused", 0), row(0.6, 0.1), row(0.7, 0.001, "reset", 0)]
    window.add(report(1.0, 3, ended_by(1.0, rows)))
    numbers = window.numbers()
    assert numbers.failures == {"refused": 1, "reset": 1}
    assert numbers.failed_rps == pytest.approx(2)
    assert numbers.p50_s == pytest.approx(0.1)
    assert window.outcomes == {"ok": 1, "refused": 1, "reset": 1}
    assert window.loops_s[1] == pytest.approx(0.05)


def test_theory_is_that_of_the_arrangement() -> None:
    turns = predict(FACTORS, 80.0, 0.02, 0.02, cpus=2)
    assert turns.queue is Queue.TURNS
    assert turns.utilisation == pytest.approx(0.8)
    assert turns.p99_s == pytest.approx(0.02 * (1 + mdc_wait_quantile(0.99, 2, 0.8)))
    assert turns.in_flight == pytest.approx(80 * (0.02 + mdc_mean_wait(2, 0.8, 0.02)), rel=0.05)
    hashed = predict(FACTORS | {"dispatch": "reuseport"}, 80.0, 0.02, 0.02, cpus=2)
    assert hashed.p99_s == pytest.approx(0.02 * (1 + mdc_wait_quantile(0.99, 1, 0.8)))
    constant = predict(FACTORS | {"arrivals": "constant"}, 80.0, 0.02, 0.02, cpus=2)
    assert constant.p50_s == constant.p99_s == 0.02


@pytest.mark.parametrize("cpus", [1, 2])
def test_in_overload_the_queue_grows_by_what_is_too_much(cpus: int) -> None:
    theory = predict(FACTORS, 150.0, 0.02, 0.02, cpus)
    assert theory.throughput_rps == pytest.approx(50 * cpus)
    assert theory.grows_rps == pytest.approx(150 - 50 * cpus)
    assert theory.p99_s is None


FOUND = (Worker(0, 4711, 0, 0.5, is_busy=False), Worker(1, 4712, 2, 0.5, is_busy=True))


def moment(theory: Theory | None, at_s: float = 2.0, **more: Any) -> Moment:
    window = Window()
    window.add(report(2.0, 11, ended_by(2.0, [row(k / 10, 0.02) for k in range(10)]), [1.9]))
    return Moment(at_s, 100.0, window.numbers(), theory, FOUND, "", **more)


def test_numbers_are_shown_beside_theory() -> None:
    theory = predict(FACTORS, 80.0, 0.02, 0.02, cpus=2)
    tiles = {tile["name"]: tile for tile in picture.tiles(moment(theory))}
    assert list(tiles) == ["p50", "p99", "throughput", "in flight", "utilisation"]
    assert tiles["p50"]["value"] == "20.0 ms"
    assert tiles["throughput"]["theory"] == "theory 80.0/s"
    assert tiles["utilisation"]["value"] == "80 %"
    assert not any(tile["bad"] for tile in tiles.values())


def test_overload_is_shown_as_such() -> None:
    theory = predict(FACTORS, 150.0, 0.02, 0.02, cpus=2)
    tiles = {tile["name"]: tile for tile in picture.tiles(moment(theory))}
    assert tiles["in flight"]["theory"] == "theory: grows by 50.0/s"
    assert tiles["p99"]["theory"] == "theory: grows without end"
    assert tiles["throughput"]["bad"]
    assert tiles["utilisation"]["bad"]


def test_charts_hold_the_last_minute_and_no_nan() -> None:
    history = picture.History()
    for at_s in range(100):
        history.add(moment(None, float(at_s)))
        if at_s in (10, 90):
            history.note("kill")
    rates, tails = history.charts()
    points = {line["name"]: line["points"] for line in rates["lines"]}
    assert [t for t, _ in points["measured"]] == list(range(39, 100))
    assert points["offered"][-1] == [99, 100]
    assert points["theory"][-1] == [99, None]
    assert rates["events"] == tails["events"] == [[90, "kill"]]
    json.dumps([rates, tails], allow_nan=False)
    assert tails["alt"] == "p99 of latency, over the last minute; now: measured 92.0 ms"


def test_nothing_is_shown_as_nothing() -> None:
    assert {tile["value"] for tile in picture.tiles(None)} == {"–"}
    assert [chart["alt"].endswith("nothing yet") for chart in picture.History().charts()] == [True, True]


def test_what_is_recent_ended_lately_or_waits_and_there_is_not_too_much_of_it() -> None:
    window = Window()
    window.add(report(10.0, 103, ended_by(10.0, [row(k / 10, 0.05) for k in range(100)]), [1.0, 9.0, 9.5]))
    recent = window.recent(2.0, 400)
    assert [one.due_s for one in recent.rows] == pytest.approx([8 + k / 10 for k in range(20)])
    assert (recent.now_s, recent.waiting, recent.waiting_due_s) == (10.0, 3, [1.0, 9.0, 9.5])
    few = window.recent(2.0, 5)
    assert [one.due_s for one in few.rows] == pytest.approx([9.8, 9.9]), "the latest"
    assert len(few.waiting_due_s) == 3


def test_a_scene_holds_each_request_once_in_the_order_of_their_due_times() -> None:
    rows = [row(0.3, 0.1), row(0.1, 0.4), row(0.2, 0.1, "reset"), row(0.2, 0.1)]
    recent = Report(0.6, 25, rows, 21, [0.25])
    scene = picture.scene("two", FOUND, False, recent, [1, 0, 0, 7])
    assert [one["due"] for one in scene["requests"]] == [0.1, 0.25, 0.3]
    assert scene["requests"][0] == {"due": 0.1, "start": pytest.approx(0.3), "end": 0.5, "worker": 0}
    assert scene["requests"][1] == {"due": 0.25, "start": None, "end": None, "worker": None}
    assert (scene["workers"], scene["now"], scene["busy"], scene["more"]) == (2, 0.6, [1], 20)
    assert "queue" not in scene
    assert picture.scene("one", FOUND, True, report(0.0, 0, []), [])["queue"] == "shared"
