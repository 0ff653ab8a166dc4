"""Predictions: bands that trials of the same queue fall into, written once and first; causes of misses."""

from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked
from helpers.trial_rows import trials
from numpy.typing import NDArray

from lab.errors import LabError, UsageError
from lab.experiments.capacity import Parameters, prediction, score
from lab.experiments.capacity.case import Sustained
from lab.models.queueing import mdc_wait_quantile
from lab.models.simulation import Dispatch, waits
from lab.models.statistics import Estimate, Interval
from lab.study.estimates import key_of
from lab.study.run import Run

PARAMETERS = Parameters(
    run="", rate=0, slo_percentile=99, slo_loops=3, dispatch="least-busy", headroom=0, service_s=(),
    price_per_core_hour=0.04, cpus_per_machine=0, workers=2, loads=(0.5, 0.7), duration_s=1, kernel="python",
    iterations=1000, timeout_s=30, blocks=2, seed=1,
)  # fmt: skip

LOOP_S = 0.0125
OVERHEAD_S, OCCUPIED_S = 0.0007, 0.0004


def one_worker(blocks: int = 3, loops: int = 80, spread: float = 0.02) -> pd.DataFrame:
    """Make the answers of one worker: loops that vary a little, in blocks at different speeds."""
    random = np.random.default_rng(5)
    rows = [
        pd.DataFrame(
            {
                "block": block,
                "service_s": speed * LOOP_S * random.lognormal(sigma=spread, size=loops),
                "overhead_s": speed * OVERHEAD_S * random.lognormal(sigma=0.2, size=loops),
                "occupied_s": speed * OCCUPIED_S,
            }
        )
        for block, speed in enumerate(random.uniform(1, 1.6, size=blocks), start=1)
    ]
    return pd.concat(rows, ignore_index=True)


@cache
def foretold(utilisation: float, requests: int) -> pd.DataFrame:
    return prediction.foretold(one_worker(), utilisation, 2, "central", requests, seed=1)


def bands(*loads: float, requests: int = 300) -> pd.DataFrame:
    """Foretell two workers at these loads."""
    written_at = pd.Timestamp("2025-12-31", tz="UTC")
    found = [
        foretold(utilisation, requests).assign(load=load, workers=2, written_at=written_at)
        for load in loads
        for utilisation in (0.45, 0.5, 0.55, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
    ]
    return pd.concat(found, ignore_index=True).assign(occupied=OCCUPIED_S / LOOP_S)


def measured(
    number: int,
    load: float = 0.7,
    *,
    services: NDArray[np.float64] | None = None,
    together: int = 1,
    queue: Dispatch = "central",
    **changes: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Play a trial of two workers at another speed of the machine; return its row and its requests.

    So many requests arrive together. Of their overhead, a part occupies no worker.
    """
    random = np.random.default_rng(number)
    size = 300
    usual = random.lognormal(sigma=0.02, size=size)
    service_s = 2 * LOOP_S * (usual if services is None else services)
    rate = load * 2 / service_s.mean()
    due_s = np.repeat(np.sort(random.uniform(0, size / rate, size=size // together)), together)
    beside_s = 2 * OVERHEAD_S * random.lognormal(sigma=0.2, size=size)
    latency_s = waits(due_s, service_s + 2 * OCCUPIED_S, 2, queue, number) + service_s + beside_s
    row = {
        "trial_id": f"capacity.b{number:02d}.x", "block": number, "load": load, "rate": rate, "workers": 2,
        "topology": "cluster", "dispatch": "least-busy", "arrivals": "poisson", "pool": "process",
        "keepalive": False, "service_mean_s": service_s.mean(),
        "latency_p50_s": np.percentile(latency_s, 50), "latency_p99_s": np.percentile(latency_s, 99),
    }  # fmt: skip
    requests = pd.DataFrame(
        {
            "trial_id": row["trial_id"], "due_s": due_s, "sent_s": due_s, "end_s": due_s + latency_s,
            "service_s": service_s, "service_cpu_s": service_s, "latency_s": latency_s,
        }
    )  # fmt: skip
    return prediction.with_steady(trials(row | changes), requests), requests


def learnt() -> pd.DataFrame:
    """Learn from two blocks, of which only the first has a trial in overload."""
    alone = pd.DataFrame(
        {
            "trial_id": ["a", "a", "a", "a", "b"],
            "block": [1, 1, 1, 1, 2],
            "due_s": [0.0, 1.0, 1.5, 3.0, 0.0],
            "end_s": [0.6, 2.0, 2.6, 3.5, 0.7],
            "service_s": [0.5, 0.9, 0.5, np.nan, 0.5],
            "outcome": ["ok", "ok", "ok", "timeout", "ok"],
            "load": 0.5,
        }
    )
    behind_each_other = pd.DataFrame(
        {
            "trial_id": "c", "block": 1, "due_s": [0.0, 0.1, 0.2, 0.3], "end_s": [0.6, 1.13, 1.63, 2.21],
            "service_s": [0.5, 0.5, 0.5, 0.5], "outcome": "ok", "load": 1.1,
        }
    )  # fmt: skip
    requests = pd.concat([alone, behind_each_other], ignore_index=True)
    return prediction.learnt(requests.assign(latency_s=requests["end_s"] - requests["due_s"]))


def test_only_answers_that_found_the_worker_idle_tell_what_a_request_takes_beside_its_loop() -> None:
    found = learnt()
    assert found["block"].tolist() == [1, 1, 2]
    assert found["overhead_s"].tolist() == pytest.approx([0.1, 0.1, 0.2])


def test_a_worker_that_always_has_another_request_tells_what_of_it_occupies_the_worker() -> None:
    assert learnt()["occupied_s"].tolist() == pytest.approx([0.04, 0.04, 0.2]), "all of it where none is told"


def test_what_occupies_no_worker_delays_no_other_request() -> None:
    known = one_worker(blocks=1)
    occupies_all = known.assign(occupied_s=known["overhead_s"])
    few, all_of_it = (
        prediction.foretold(one, 0.9, 2, "central", 300, seed=1)["middle"] for one in (known, occupies_all)
    )
    assert (few < all_of_it).all()
    low, rest = (
        prediction.foretold(one, 0.01, 2, "central", 300, seed=1)["middle"] for one in (known, occupies_all)
    )
    assert low.tolist() == pytest.approx(rest.tolist(), rel=0.01), "but it is part of each one's latency"


def scored(*made: tuple[pd.DataFrame, pd.DataFrame], loads: tuple[float, ...] = (0.7,)) -> pd.DataFrame:
    """Score trials by the bands of their loads."""
    rows, requests = (pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True))
    return score.score(bands(*loads), rows, requests)


def test_trials_of_the_same_queue_fall_into_the_bands_whatever_the_machines_speed() -> None:
    made = [measured(number, load) for load in (0.5, 0.7, 0.85) for number in range(1, 61)]
    made = [
        (row.assign(trial_id=f"{load}-{i}"), requests.assign(trial_id=f"{load}-{i}"))
        for i, (row, requests) in enumerate(made)
        for load in row["load"]
    ]
    marked = scored(*made, loads=(0.5, 0.7, 0.85))
    for percentile in prediction.PERCENTILES:
        found = score.inside(marked, percentile)
        assert found is not None
        assert found.trials == len(made)
        assert 0.8 < found.value < 0.98, "nine of ten"
    assert score.validated(marked) == 2
    sentence = unlinked(score.sentence(marked))
    assert sentence.startswith("Of the predictions for 2 workers, ")
    assert sentence.endswith(f" of {len(made)} of p99 came true.")
    for percentile in prediction.PERCENTILES:
        assert key_of(score.INSIDE, workers=2, percentile=percentile) in score.sentence(marked)
    missed = marked.assign(inside=marked["block"] > 30)
    assert score.validated(missed) == 0


def test_that_the_machine_was_slower_for_a_while_is_no_miss() -> None:
    slow_for_a_while = np.where(np.arange(300) // 50 == 2, 1.6, 1.0) / 1.1
    made = [measured(number, 0.6, services=slow_for_a_while) for number in range(1, 21)]
    as_it_was = [
        (row.assign(steady_p99=row["latency_p99_s"] / row["service_mean_s"]), requests)
        for row, requests in made
    ]
    inside = [score.inside(scored(*one, loads=(0.6,)), 99) for one in (made, as_it_was)]
    steady, raw = (share.value for share in inside if share)
    assert raw < 0.6 < 0.8 <= steady


def test_a_trial_that_was_known_when_its_band_was_written_does_not_count() -> None:
    row, requests = measured(1)
    new, old = (
        score.score(
            bands(0.7).assign(written_at=row["started_at"].iloc[0] + pd.Timedelta(hours=hours)), row, requests
        )
        for hours in (-1, 1)
    )
    assert new["scored"].all()
    assert not old["scored"].any()


def test_no_more_workers_are_predicted_than_have_a_cpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "available_cpus", lambda: 1)
    with pytest.raises(UsageError, match="workers must be at most 1, one for each CPU here"):
        prediction.predict(cast(Run, _Tables()), PARAMETERS, one_worker())


def test_nothing_is_predicted_from_a_worker_that_answered_nothing() -> None:
    with pytest.raises(LabError, match="no request of the calibration was answered"):
        prediction.predict(cast(Run, _Tables()), PARAMETERS, one_worker().head(0))


def test_a_trial_near_its_limit_is_shown_but_not_scored() -> None:
    found = scored(measured(1, load=0.7, utilisation=0.95))
    assert not found["scored"].any()
    assert score.inside(found, 99) is None
    assert score.validated(found) == 0
    assert score.sentence(found) == ""
    assert "No prediction is scored" in score.title(found)
    assert score.score_table(found)["inside"].tolist() == ["0 of 0", "0 of 0"]


def test_a_miss_names_its_likely_cause() -> None:
    random = np.random.default_rng(1)
    row, requests = measured(1)
    longer_s = requests["latency_s"] * random.uniform(3, 5, size=300)
    slower = requests.assign(latency_s=longer_s, end_s=requests["due_s"] + longer_s)
    row = prediction.with_steady(row.drop(columns=row.filter(like="steady_p").columns), slower)
    causes = {
        "chance in its arrivals": scored(measured(2, together=5)),
        "the trial is flagged": scored((row.assign(valid=False), slower)),
        "no queue explains": scored((row, slower)),
    }
    for cause, found in causes.items():
        worst = found.sort_values("miss").iloc[-1]
        assert worst["miss"] > 0
        assert cause in worst["cause"]


def test_work_beside_the_loops_is_not_called_chance_however_small_the_miss() -> None:
    """A percentile that hardly varies is near any replay."""
    row, requests = measured(1, 0.5)
    more = 0.04 * row["service_mean_s"].iloc[0] * (np.arange(300) % 6 > 0)
    slower = requests.assign(latency_s=requests["latency_s"] + more, end_s=requests["end_s"] + more)
    row = prediction.with_steady(row.drop(columns=row.filter(like="steady_p").columns), slower)
    found = scored((row, slower), loads=(0.5,)).set_index("percentile")
    assert 0 < found["miss"][50] < 0.05
    assert found["cause"][50] == "work beside the loops, or waits that no queue explains"


def test_a_server_that_queues_badly_misses_however_its_loops_vary() -> None:
    """A steady speed takes away what unequal loops cause in the best of queues, and no other wait."""
    for spread in (0.02, 0.3):
        services = np.random.default_rng(3).lognormal(sigma=spread, size=300)
        made = [measured(n, services=services, queue="random") for n in range(1, 11)]
        found = scored(*made)
        assert found["inside"].mean() < 0.5
        assert "waits that no queue explains" in found[~found["inside"]]["cause"].mode().item()


class _Tables:
    """A run that keeps tables."""

    def __init__(self) -> None:
        self.made: dict[str, pd.DataFrame] = {}

    def table(self, name: str, make: Any) -> pd.DataFrame:
        """Return the table of that name, made once."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]


def test_a_prediction_is_written_once_and_before_its_trials() -> None:
    run = _Tables()
    first = prediction.predict(cast(Run, run), PARAMETERS, one_worker())
    again = prediction.predict(cast(Run, run), PARAMETERS, one_worker(spread=0.3))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["load"]) == set(PARAMETERS.loads)
    row, _ = measured(1, started_at=pd.Timestamp(first["written_at"].iloc[0]) + pd.Timedelta(seconds=7))
    assert score.written_before(first, row)["before"].tolist() == ["7.00 s"]
    known = row.assign(started_at=row["started_at"] - pd.Timedelta(seconds=8))
    assert score.written_before(first, known)["before"].tolist() == ["no: these trials were known before"]


def test_overhead_lowers_the_rate_that_is_foretold_to_be_sustained() -> None:
    with_it = prediction.sustained_utilisations(PARAMETERS, one_worker())
    alone = one_worker().assign(overhead_s=0.0, occupied_s=0.0)
    without = prediction.sustained_utilisations(PARAMETERS, alone)
    for theory in ("sustained", "steady"):
        assert 0.5 < with_it[theory] < without[theory] < 1


def test_an_objective_shorter_than_latency_beside_a_worker_is_met_at_no_rate() -> None:
    short = PARAMETERS.model_copy(update={"slo_loops": 0.02})
    found = prediction.sustained_utilisations(short, one_worker())
    assert found["sustained"] == found["steady"] == 0


def test_what_is_sustained_is_foretold_exactly_too_as_if_all_loops_were_alike() -> None:
    plain = one_worker().assign(overhead_s=0.0, occupied_s=0.0)
    found = prediction.sustained_utilisations(PARAMETERS, plain)
    assert found["by_formula"]
    waited = mdc_wait_quantile(PARAMETERS.slo_percentile / 100, 2, found["steady"])
    assert waited == pytest.approx(PARAMETERS.slo_loops - 1, rel=1e-2)
    varied = prediction.sustained_utilisations(PARAMETERS, one_worker(spread=0.4))
    alike = prediction.sustained_utilisations(PARAMETERS, one_worker(spread=1e-6))
    assert varied["sustained"] < 0.95 * varied["steady"], "loops that vary wait longer"
    assert alike["sustained"] == pytest.approx(alike["steady"], rel=0.02)
    found = prediction.sustained_utilisations(PARAMETERS.model_copy(update={"dispatch": "shared"}), plain)
    assert found["sustained"] > 0
    assert not found["by_formula"], "there is no formula for it, and a simulation is not called exact"


def test_given_service_times_vary_at_a_steady_speed_too() -> None:
    p = PARAMETERS.model_copy(update={"service_s": (0.01, 0.01, 0.02)})
    found = prediction.sustained_utilisations(p, prediction.calibration(cast(Run, None), p))
    assert found["steady"] == found["sustained"]
    assert not found["by_formula"]


def test_each_theory_stands_beside_what_was_measured_of_it() -> None:
    shares = [Estimate(value, 0.9 * value, 1.1 * value, 20, Interval.CROSSING) for value in (0.6, 0.64)]
    found = Sustained(2, shares[0], 0.57, shares[1], 0.672, by_formula=True)
    table = score.sustained_table(found, "p99")
    assert table["predicted / measured"].tolist() == ["1.05", "0.950"]
    assert table["predicted"].iloc[0] == "exact (M/D/c)"
    assert score.sustained_table(replace(found, by_formula=False), "p99")["predicted"].iloc[0] == "simulated"


def test_blocks_of_another_speed_do_not_lower_the_rate_that_is_predicted() -> None:
    slow = one_worker(blocks=1).assign(block=2)
    slow[["service_s", "overhead_s", "occupied_s"]] *= 1.7
    both = pd.concat([one_worker(blocks=1), slow])
    one_speed = prediction.sustained_utilisations(PARAMETERS, one_worker(blocks=1))["sustained"]
    found = prediction.sustained_utilisations(PARAMETERS, both)["sustained"]
    assert found == pytest.approx(one_speed, rel=1e-3)


def test_trials_of_other_workers_are_left_out_of_what_a_run_states() -> None:
    rows = pd.concat([measured(1)[0], measured(2, workers=1)[0], measured(3, arrivals="constant")[0]])
    assert score.predicted_among(rows, bands(0.7))["block"].tolist() == [1]


def test_a_trial_of_a_billion_requests_has_a_band_at_once() -> None:
    """As of given service times of a nanosecond."""
    found = prediction.foretold(one_worker(), 0.7, 2, "central", 10**9, seed=1)
    assert (found["low"] < found["high"]).all()


def test_bands_of_other_workers_say_nothing_of_a_trial() -> None:
    row, requests = measured(1)
    assert score.score(bands(0.7).assign(workers=3), row, requests).empty
