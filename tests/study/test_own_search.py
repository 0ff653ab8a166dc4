"""The search in own utilisation: known limits are found however the machine changes its speed."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from helpers import coverage
from helpers.simulated_servers import Simulated

from lab.flags import Flag
from lab.load.report import Slo
from lab.study.own_search import OwnSearch, in_turns, steadied
from lab.study.trial import Attacked, Measured

LOOP_S = 0.0128


def slos(loop_s: float) -> list[Slo]:
    return Slo.parse_all([f"p95={3 * loop_s:.9f}s"])


def search(offer: Callable[[float, float, int], Attacked], likely_rps: float = 2 / LOOP_S) -> OwnSearch:
    return OwnSearch(
        offer, slos, duration_s=1.0, arrivals="constant", workers=2, cpus=2, likely_rps=likely_rps,
        precision=0.05,
    )  # fmt: skip


def ended(*searches: OwnSearch) -> list[str]:
    """Carry out searches in turns; return whose trial came when."""
    order: list[str] = []
    in_turns(searches, lambda one: order.append("ab"[searches.index(one)]))
    return order


def test_the_limit_is_inside_the_bounds_at_any_speed_of_the_machine() -> None:
    found = coverage.of_own_searches(40, requests=120, speeds=0.1)
    assert found.as_shares >= 0.95
    assert found.as_rates >= 0.95, "as ratios of two servers that took turns"
    assert np.median(found.trials) <= 12


def test_at_one_speed_it_takes_few_trials_and_the_bounds_are_near() -> None:
    one = search(Simulated(noise=0.0))
    ended(one)
    lower, upper = one.bounds
    assert lower is not None
    assert upper is not None
    assert 0.9 < lower <= 1.0 <= upper < 1.1
    assert one.consistent
    assert one.reason == ""
    assert len(one.trials) <= 8
    assert one.limit_rps == pytest.approx(2 / LOOP_S, rel=0.01)


def test_a_machine_that_wobbles_within_trials_tells_the_same_share() -> None:
    """Another hour, another wobble: of the rates that meet an SLO, only the latter changes."""
    searches = [search(Simulated(noise=0.02, wobble=wobble)) for wobble in (0.0, 0.2, 0.4)]
    ended(*searches[:2])
    ended(searches[2])
    for lower, upper in (one.bounds for one in searches):
        assert lower is not None
        assert upper is not None
        assert 0.9 < lower <= 1.0 <= upper < 1.1


def _late(offered: Measured) -> float:
    p95: float = offered.summary["latency_s"]["p95"]
    return p95 / LOOP_S


def test_what_the_machine_did_is_taken_out_of_latency_and_what_the_server_did_is_not() -> None:
    slow_for_a_while = Simulated(noise=0.0, wobble=0.5)(0.9 * 2 / LOOP_S, 2.0, 1)
    assert _late(slow_for_a_while) > 3
    assert _late(steadied(slow_for_a_while, 2, 2)) == pytest.approx(1.0, abs=0.01)
    overloaded = Simulated(noise=0.0)(1.2 * 2 / LOOP_S, 2.0, 1)
    assert _late(steadied(overloaded, 2, 2)) == pytest.approx(_late(overloaded))
    hashed = Simulated(noise=0.0, dispatch="random")(0.8 * 2 / LOOP_S, 2.0, 1)
    assert _late(hashed) > 2
    assert _late(steadied(hashed, 2, 2)) == pytest.approx(_late(hashed))


def test_what_requests_take_beside_their_loops_lets_them_wait_longer_for_slow_ones() -> None:
    server = Simulated(noise=0.0, wobble=0.3, beside_s=0.05 * LOOP_S)
    offered = server(0.9 * 2 / LOOP_S, 2.0, 1)
    assert _late(offered) > 3
    assert _late(steadied(offered, 2, 2)) == pytest.approx(1.05, abs=0.05)


@pytest.mark.parametrize("cpus", [0.5, 1.25, 2.0])
def test_workers_that_share_cpus_wait_for_these_and_not_for_the_next_whole_number(cpus: float) -> None:
    """Half a CPU takes twice as long for a loop as it says; that wait is in no CPU time."""
    servers = math.ceil(cpus)
    took_s = LOOP_S * servers / cpus
    offered = Simulated(workers=servers, loop_s=took_s, wobble=0.3)(0.9 * cpus / LOOP_S, 2.0, 1)
    cpu_s = offered.requests["service_cpu_s"] * cpus / servers
    shared = Attacked(offered.requests.assign(service_cpu_s=cpu_s), offered.summary)
    assert _late(offered) > 2
    assert _late(steadied(shared, 4, cpus)) == pytest.approx(_late(steadied(offered, servers, servers)))


def test_loops_of_unknown_cpu_time_are_served_by_as_many_as_there_are_workers() -> None:
    offered = Simulated(workers=4)(0.9 * 4 / LOOP_S, 2.0, 1)
    silent = Attacked(offered.requests.assign(service_cpu_s=math.nan), offered.summary)
    assert _late(steadied(silent, 4, 2)) == pytest.approx(_late(steadied(offered, 4, 4)))


def test_a_steadied_load_has_every_request_and_one_without_loop_times_stays_as_it_is() -> None:
    offered = Simulated(noise=0.2, fails=True)(150.0, 2.0, 1)
    steady = steadied(offered, 2, 2)
    changed = ["end_s"]
    pd.testing.assert_frame_equal(
        steady.requests.drop(columns=changed), offered.requests.drop(columns=changed)
    )
    assert (steady.requests["end_s"] >= steady.requests["due_s"]).all()
    silent = Attacked(offered.requests.assign(service_s=math.nan, service_cpu_s=math.nan), offered.summary)
    assert steadied(silent, 2, 2) is silent


def test_servers_take_turns_until_each_is_done() -> None:
    order = ended(search(Simulated(noise=0.0)), search(Simulated(noise=0.2)))
    least = min(order.count("a"), order.count("b"))
    assert "".join(order)[: 2 * least] == "ab" * least


@pytest.mark.parametrize("times", [0.4, 2.5])
def test_a_likely_limit_that_is_far_off_does_no_harm(times: float) -> None:
    one = search(Simulated(noise=0.02), likely_rps=times * 2 / LOOP_S)
    ended(one)
    assert (one.bounds[0] or 0) <= 1.0 <= (one.bounds[1] or 0)


def test_a_server_that_fails_is_given_up_at_once() -> None:
    one = search(Simulated(fails=True))
    ended(one)
    assert len(one.trials) == 1
    assert one.bounds[0] is None
    assert "requests fail" in one.reason


def test_flagged_trials_do_not_count_and_are_not_repeated_for_ever() -> None:
    server = Simulated(noise=0.0)

    def disturbed(rate_rps: float, duration_s: float, number: int) -> Attacked:
        made = server(rate_rps, duration_s, number)
        flags = [Flag("others_cpu", 0.5, 0.1).to_dict()] if number % 2 or always else []
        return Attacked(made.requests, {**made.summary, "flags": flags})

    always = False
    every_other = search(disturbed)
    ended(every_other)
    assert (every_other.bounds[0] or math.nan) <= 1.0 <= (every_other.bounds[1] or math.nan)
    always = True
    never = search(disturbed)
    ended(never)
    assert len(never.trials) == 5
    assert never.bounds == (None, None)
    assert never.reason.startswith("5 of 5 trials are flagged: ")


def test_a_machine_that_changes_its_speed_is_said() -> None:
    one = search(Simulated(noise=0.02, slower=1.08))
    ended(one)
    assert not one.consistent
