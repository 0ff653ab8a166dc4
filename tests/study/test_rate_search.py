"""The search in requests/s: known capacities are found; where there is none, it says why."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import coverage
from helpers.simulated_servers import Simulated

from lab.flags import Flag
from lab.load.report import Slo
from lab.study.rate_search import BACKLOG, RateTrial, Search
from lab.study.sustained import Sustained
from lab.study.trial import Attacked

DURATION_S = 3.0
SLOS = Slo.parse_all(["p99=250ms"])


def searched(server: Simulated, *, slos: list[Slo] = SLOS, max_rps: float = 10_000, **more: Any) -> Sustained:
    search = Search(server, slos, duration_s=DURATION_S, arrivals=server.arrivals, **more)
    found = search.run(2 * server.capacity_rps, max_rps, 0.05)
    return Sustained.by_rates("", slos, server.arrivals, found, search.trials)


def test_the_limit_is_inside_the_bounds_however_noisy_the_server() -> None:
    found = coverage.of_searches(40, requests=300)
    assert found.as_rates >= 0.95
    assert np.median(found.trials) <= 12


def test_the_bounds_are_as_near_as_they_were_asked_to_be() -> None:
    found = searched(Simulated(noise=0.0))
    assert found.reason == ""
    assert found.lower_rps is not None
    assert found.lower_rps >= 0.95 * (found.upper_rps or math.inf) - 0.001
    noisy = searched(Simulated(noise=0.2))
    assert 0.9 * (noisy.upper_rps or math.inf) < (noisy.lower_rps or 0), "further apart, as it scatters"


def test_no_rate_is_sustained_beyond_what_the_own_service_times_allow() -> None:
    """An overload of half a percent does not show in three seconds, but in the service times it does."""
    found = searched(Simulated(noise=0.0, loop_s=0.01005))
    assert all(trial.utilisation <= 1 for trial in found.trials if trial.good and trial.utilisation)
    search = Search(Simulated(noise=0.0, loop_s=0.01005), SLOS, duration_s=DURATION_S, arrivals="constant")
    assert search.run(1000, 200, 0.05)[:2] != (200, None), "200/s are 1.005 times what two workers can do"


def test_without_noise_the_bounds_are_tight_and_the_limit_is_reached() -> None:
    found = searched(Simulated(noise=0.0))
    assert found.lower_rps is not None
    assert found.lower_rps <= 2 / 0.0128 <= (found.upper_rps or 0)
    assert found.consistent


def test_every_trial_is_kept_and_told() -> None:
    server, heard = Simulated(), []
    found = searched(server, on_trial=lambda trial, trials: heard.append((trial, len(trials))))
    assert [trial.rate for trial in found.trials] == server.rates
    assert heard == [(trial, number) for number, trial in enumerate(found.trials, 1)]


def test_a_growing_backlog_is_missed_before_the_slo_is() -> None:
    server = Simulated(noise=0.0, loop_s=0.0128)
    search = Search(server, Slo.parse_all(["p99=10s"]), duration_s=DURATION_S, arrivals="constant")
    lower_rps, _, _ = search.run(2 * server.capacity_rps, 10_000, 0.05)
    assert lower_rps is not None
    assert lower_rps <= server.capacity_rps
    assert {trial.missed for trial in search.trials if not trial.good} == {(BACKLOG,)}


@pytest.mark.parametrize(
    ("server", "slo", "reason"),
    [
        (Simulated(), "p99=5ms", r"^even .*/s is too much: p99 is "),
        (Simulated(fails=True), "p99=250ms", r"^even .*/s is too much: requests fail$"),
    ],
)
def test_where_no_rate_is_sustained_it_says_why(server: Simulated, slo: str, reason: str) -> None:
    found = searched(server, slos=Slo.parse_all([slo]))
    assert found.lower_rps is None
    assert re.search(reason, found.reason)


def test_it_ends_at_the_highest_rate_that_was_asked_for() -> None:
    found = searched(Simulated(), max_rps=50)
    assert (found.held_rps, found.failed_rps, found.upper_rps) == (50, None, None)
    assert 47 < (found.lower_rps or 0) < 50, "as far below as its trials cannot see"
    assert found.reason == "the search ended at 50.0/s, which is sustained"


def test_it_goes_beyond_a_guess_that_was_too_low() -> None:
    server = Simulated()
    search = Search(server, SLOS, duration_s=DURATION_S, arrivals="constant")
    lower_rps, upper_rps, _ = search.run(server.capacity_rps / 10, 10_000, 0.05)
    assert lower_rps is not None
    assert upper_rps is not None
    assert lower_rps <= server.capacity_rps <= upper_rps


def test_a_trial_that_the_generator_spoiled_is_repeated_and_its_ceiling_is_no_bound() -> None:
    server = Simulated(believed_rps=100)
    found = searched(server)
    assert found.upper_rps is None
    assert found.reason.startswith("the load generator cannot be believed at ")
    assert 90 < (found.lower_rps or 0) <= 100
    spoiled = [trial.rate for trial in found.trials if trial.flags]
    assert len(spoiled) % 3 == 0, "three tries each"
    assert min(spoiled) > 100


def disturbed_by(flag: Flag, server: Simulated, spoils: Callable[[float], bool]) -> Callable[..., Attacked]:
    """Return the server with this flag on every trial whose rate is one that `spoils`."""

    def offer(rate_rps: float, duration_s: float, seed: int) -> Attacked:
        offered = server(rate_rps, duration_s, seed)
        flags = [flag.to_dict()] if spoils(rate_rps) else []
        return Attacked(offered.requests, {**offered.summary, "flags": flags})

    return offer


OTHERS = Flag("others_cpu", 0.5, 0.1)


def test_a_machine_that_others_disturb_for_a_while_is_waited_for() -> None:
    server, spoilt = Simulated(noise=0.0), iter([False] * 4 + [True] * 4)
    search = Search(
        disturbed_by(OTHERS, server, lambda _: next(spoilt, False)), SLOS, duration_s=3, arrivals="constant"
    )
    found = search.run(2 * server.capacity_rps, 10_000, 0.05)
    assert found == Search(Simulated(noise=0.0), SLOS, duration_s=3, arrivals="constant").run(
        2 * server.capacity_rps, 10_000, 0.05
    )
    assert [bool(trial.flags) for trial in search.trials][:9] == [False] * 4 + [True] * 4 + [False]


def test_a_machine_that_others_keep_disturbing_ends_the_search_with_what_it_has_found() -> None:
    for calm in (0, 3, 5):
        server, quiet = Simulated(noise=0.0), iter([False] * calm)
        search = Search(
            disturbed_by(OTHERS, server, lambda _, quiet=quiet: next(quiet, True)),  # type: ignore[misc]
            SLOS, duration_s=3, arrivals="constant",
        )  # fmt: skip
        lower_rps, upper_rps, reason = search.run(2 * server.capacity_rps, 10_000, 0.05)
        assert reason.startswith("others disturbed 5 trials of "), reason
        assert "CPU time that other processes took 50 %" in reason
        assert len(search.trials) == calm + 5
        held = [trial.rate for trial in search.trials[:calm] if trial.good]
        failed = [trial.rate for trial in search.trials[:calm] if not trial.good]
        assert (lower_rps, upper_rps) == (max(held, default=None), min(failed, default=None))


def test_rates_at_which_the_generator_falls_behind_are_no_bounds_though_higher_ones_were_believed() -> None:
    late, server = Flag("send_lag", 0.5, 0.01), Simulated(noise=0.0)
    search = Search(
        disturbed_by(late, server, lambda rate: 100 < rate < 170), SLOS, duration_s=3, arrivals="constant"
    )
    lower_rps, upper_rps, reason = search.run(2 * server.capacity_rps, 10_000, 0.05)
    assert 90 < (lower_rps or 0) <= 100
    assert (upper_rps or 0) >= 170
    assert reason.startswith("the load generator cannot be believed at ")


def test_what_was_believed_of_a_rate_counts_though_later_tries_of_it_are_not() -> None:
    """Of each rate the first trial is believed, three tries of the second are not, the third is again."""
    late, server, asked = Flag("send_lag", 0.5, 0.01), Simulated(noise=0.0), Counter[float]()

    def spoils(rate: float) -> bool:
        asked[rate] += 1
        return 2 <= asked[rate] <= 4

    search = Search(disturbed_by(late, server, spoils), SLOS, duration_s=3, arrivals="constant")
    lower_rps, upper_rps, reason = search.run(2 * server.capacity_rps, 10_000, 0.05)
    assert (lower_rps or math.inf) <= server.capacity_rps <= (upper_rps or 0)
    assert reason == ""


def test_why_even_the_lowest_rate_is_too_much_is_told_by_a_trial_that_failed() -> None:
    slow, kind = Simulated(noise=0.0, loop_s=10.0), iter([Simulated(noise=0.0)])

    def offer(rate_rps: float, duration_s: float, seed: int) -> Attacked:
        server = next(kind, slow) if rate_rps < 0.4 else slow
        return server(rate_rps, duration_s, seed)

    search = Search(offer, SLOS, duration_s=3, arrivals="constant")
    lower_rps, _, reason = search.run(2.0, 10_000, 0.05)
    assert lower_rps is None
    assert any(trial.good for trial in search.trials)
    assert reason.startswith("even 0.333/s is too much: p99 is 10"), reason


@pytest.mark.parametrize(("cpus", "share"), [(1, 1.0), (2, 0.5), (math.inf, 1.0)])
def test_the_share_of_workers_that_take_turns_is_of_the_cpus(cpus: float, share: float) -> None:
    """Four workers take turns: a loop of 5 ms of a CPU lasts 20 ms, and 200 a second fill one CPU."""
    server = Simulated(noise=0.0, workers=4, loop_s=0.02)

    def offer(rate_rps: float, duration_s: float, seed: int) -> Attacked:
        offered = server(rate_rps, duration_s, seed)
        requests = offered.requests.assign(service_cpu_s=0.005)
        return Attacked(requests, {**offered.summary, "service_cpu_s": {"mean": 0.005}})

    search = Search(offer, SLOS, duration_s=3, arrivals="constant", workers=4, cpus=cpus)
    search.run(400, 10_000, 0.05)
    (first, *_) = search.trials
    assert first.utilisation == pytest.approx(2 * share)
    assert first.share_of_limit == pytest.approx(share, rel=0.02)


def test_a_rate_that_failed_below_one_that_held_is_a_contradiction() -> None:
    found = searched(Simulated(noise=0.0))
    assert found.consistent
    first, *_ = [trial for trial in found.trials if not trial.good]
    low = replace(first, rate=1.0)
    spoiled = replace(low, flags=(Flag("send_lag", 1.0, 0.1),))

    def with_it(trial: RateTrial) -> Sustained:
        ended = found.held_rps, found.failed_rps, ""
        return Sustained.by_rates("", SLOS, "constant", ended, [*found.trials, trial])

    assert not with_it(low).consistent
    assert with_it(spoiled).consistent, "it is not believed"


def test_an_interrupted_search_keeps_what_it_has() -> None:
    server = Simulated(noise=0.0)

    def impatient(rate_rps: float, duration_s: float, seed: int) -> Attacked:
        if len(server.rates) == 4:
            raise KeyboardInterrupt
        return server(rate_rps, duration_s, seed)

    search = Search(impatient, SLOS, duration_s=DURATION_S, arrivals="constant")
    with pytest.raises(KeyboardInterrupt):
        search.run(2 * server.capacity_rps, 10_000, 0.05)
    lower_rps, upper_rps, reason = search.so_far()
    assert reason == "interrupted after 4 trials"
    assert (lower_rps or 0) <= server.capacity_rps <= (upper_rps or 0)


def test_a_server_that_becomes_slower_ends_the_search_all_the_same() -> None:
    found = searched(Simulated(slower=1.06))
    assert len(found.trials) < 100


def test_poisson_arrivals_are_sustained_at_less_than_the_capacity() -> None:
    found = searched(Simulated(arrivals="poisson"), slos=Slo.parse_all(["p99=60ms"]))
    assert 0.5 * 156 < (found.lower_rps or 0) < 156


def test_poisson_arrivals_are_searched_down_to_rates_that_still_send_something() -> None:
    found = searched(Simulated(arrivals="poisson", fails=True))
    assert found.held_rps is None
    assert "requests fail" in found.reason
    assert min(trial.requests for trial in found.trials) > 0


def test_each_bound_has_the_vote_of_two_trials() -> None:
    for seed in range(5):
        found = searched(Simulated(random=np.random.default_rng(seed)))
        at_held = [trial.good for trial in found.trials if trial.rate == found.held_rps]
        at_failed = [trial.good for trial in found.trials if trial.rate == found.failed_rps]
        assert at_held.count(True) >= 2
        assert at_failed.count(False) >= 2
