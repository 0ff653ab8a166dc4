"""The highest sustained rate, of servers that say their service times and of others: found, or why not."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.simulated_servers import Simulated, attacked, believed

from lab.errors import UsageError
from lab.flags import Flag
from lab.load.attack import attack
from lab.load.summary import latency_of
from lab.servers import serve
from lab.study.rate_search import BACKLOG, RateTrial
from lab.study.sustained import Interrupted, Sustained, sustained
from lab.study.trial import Attacked

Attack = Callable[..., Attacked]

TELLS = pytest.mark.parametrize("tells", [True, False], ids=["tells", "silent"])


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.study.sustained.available_cpus", lambda: 2)
    monkeypatch.setattr("lab.study.sustained.quota_cpus", lambda: None)


def searched(
    server: Simulated, changed: Callable[[Attack], Attack] = lambda one: one, **options: Any
) -> Sustained:
    """Search for the rate of a simulated server, whose attacks may be `changed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.study.sustained.attack", changed(attacked(server)))
        return sustained("http://127.0.0.1:1/", arrivals=server.arrivals, **options)  # type: ignore[arg-type]


def middle(found: Sustained) -> float:
    lower, upper = found.shares
    assert lower is not None
    assert upper is not None
    return (lower + upper) / 2


def noisy(seed: int, **more: Any) -> Simulated:
    """A machine whose speed wanders from trial to trial and within them, with service times that scatter."""
    random = np.random.default_rng(seed)
    server = {"noise": 0.2, "wanders": 0.07, "wobble": 0.2, "beside_s": 0.0002, **more}
    return Simulated(random=random, pace=random.uniform(0.8, 1.25), **server)


@pytest.mark.parametrize("workers", [1, 2])
def test_on_a_machine_whose_speed_wanders_bounds_hold_the_capacity_and_repeats_agree(workers: int) -> None:
    found = [searched(noisy(seed, workers=workers)) for seed in range(1000, 1024)]
    lower, upper = shares = np.array([one.shares for one in found], float).T
    capacity = 0.0128 / 0.0130  # what a request takes beside its loop keeps its worker, too
    assert np.mean((lower <= capacity) & (capacity <= upper)) >= 0.95
    assert np.median([len(one.trials) for one in found]) <= 12
    repeats = shares.reshape(2, 8, 3)
    most = 1.05 if workers == 2 else 1.1  # one worker answers half as many requests in a trial
    assert (repeats.max(axis=2) / repeats.min(axis=2)).max() <= most, "of any three in a row"


@TELLS
def test_the_bounds_are_as_near_as_they_were_asked_to_be(tells: bool) -> None:
    found = searched(Simulated(noise=0.0, tells=tells))
    assert found.reason == ""
    assert found.lower_rps is not None
    assert found.upper_rps is not None
    assert 0.945 * found.upper_rps <= found.lower_rps <= 2 / 0.0128 <= found.upper_rps
    assert found.consistent
    assert found.steady is tells
    assert (found.shares == (None, None)) is not tells


@TELLS
def test_every_trial_is_kept_and_told(tells: bool) -> None:
    server, heard = Simulated(tells=tells), []
    found = searched(server, on_trial=lambda trial, trials: heard.append((trial.rate, len(trials))))
    assert [trial.rate for trial in found.trials] == server.rates
    assert heard == [(trial.rate, number) for number, trial in enumerate(found.trials, 1)]


@TELLS
@pytest.mark.parametrize(
    ("options", "slo", "reason"),
    [({}, "p99=5ms", r"^even .*/s is too much: p99 is "), ({"fails": True}, "p99=250ms", "requests fail$")],
)
def test_where_no_rate_is_sustained_it_says_why(
    options: dict[str, Any], slo: str, reason: str, tells: bool
) -> None:
    found = searched(Simulated(tells=tells, **options), slo=[slo])
    assert found.held_rps is None
    assert found.lower_rps is None
    assert found.shares[0] is None
    assert re.search(reason, found.reason)
    assert len(found.trials) <= 12


@TELLS
@pytest.mark.parametrize("most_rps", [2.0, 50.0])
def test_it_ends_at_the_highest_rate_that_was_asked_for(most_rps: float, tells: bool) -> None:
    found = searched(Simulated(tells=tells, wanders=0.1), max_rate=most_rps)
    assert found.held_rps == pytest.approx(most_rps, rel=0.06)
    assert found.failed_rps is None
    assert found.upper_rps is None
    assert 0.8 * most_rps < (found.lower_rps or 0) < most_rps, "as far below as its trials cannot see"
    assert (
        found.reason == f"the search ended at {most_rps:.{1 if most_rps > 9 else 2}f}/s, which is sustained"
    )
    assert max(trial.rate for trial in found.trials) == most_rps


@TELLS
def test_several_objectives_hold_at_once(tells: bool) -> None:
    """With random arrivals, the median is the stricter one here."""
    wide, both = (
        searched(Simulated(tells=tells, arrivals="poisson", noise=0.0), slo=slo)
        for slo in (["p99=1s", "success=90%"], ["p99=1s", "p50=20ms", "success=90%"])
    )
    assert (both.upper_rps or math.inf) < (wide.lower_rps or 0)
    assert any("p50" in trial.missed for trial in both.trials)
    assert [slo.name for slo in both.slos] == ["p99", "p50", "success"]


@TELLS
def test_poisson_arrivals_are_sustained_at_less_than_the_capacity(tells: bool) -> None:
    found = searched(Simulated(arrivals="poisson", tells=tells), slo=["p99=60ms"])
    assert 0.5 * 156 < (found.lower_rps or 0) < 156
    assert min(trial.requests for trial in found.trials) > 0


@TELLS
def test_the_ceiling_of_the_load_generator_is_no_bound(tells: bool) -> None:
    found = searched(Simulated(believed_rps=100, tells=tells))
    assert found.upper_rps is None
    assert found.reason.startswith("the load generator cannot be believed at ")
    assert 85 < (found.lower_rps or 0) <= 100
    assert min(trial.rate for trial in found.trials if trial.flags) > 100


@TELLS
def test_an_interrupted_search_keeps_what_it_has(tells: bool) -> None:
    server = Simulated(noise=0.0, tells=tells)

    def impatient(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            if len(server.rates) == 4:
                raise KeyboardInterrupt
            return attack(url, **options)

        return offer

    with pytest.raises(Interrupted) as raised:
        searched(server, impatient)
    found = raised.value.found
    assert found.reason == "interrupted after 4 trials"
    assert len(found.trials) == 4
    assert (found.lower_rps or 0) <= server.capacity_rps <= (found.upper_rps or math.inf)


def flagged(*codes: str) -> Callable[[Attack], Attack]:
    """Flag trials with these codes in turn; the six requests at the beginning are none."""
    left: Iterator[str] = iter(codes)

    def changed(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            made = attack(url, **options)
            code = "" if "in_flight" in options else next(left, "")
            flags = [Flag(code, 0.5, 0.1).to_dict()] if code else []
            return Attacked(made.requests, {**made.summary, "flags": flags})

        return offer

    return changed


@TELLS
@pytest.mark.parametrize("code", ["others_cpu", "send_lag"])
def test_trials_that_are_spoilt_for_a_while_do_no_harm(code: str, tells: bool) -> None:
    found = searched(Simulated(noise=0.0, tells=tells), flagged("", "", code, code, "", code))
    assert (found.lower_rps or math.inf) <= 2 / 0.0128 <= (found.upper_rps or 0)
    assert found.reason == ""


@TELLS
def test_a_machine_that_is_never_quiet_ends_the_search(tells: bool) -> None:
    found = searched(Simulated(tells=tells), flagged(*["others_cpu"] * 99))
    assert found.lower_rps is None
    assert len(found.trials) == 5
    assert "CPU time that other processes took 50 %" in found.reason


@pytest.mark.parametrize("number", range(2, 6))
@pytest.mark.parametrize("late_s", [0.05, 0.5])
def test_one_trial_that_others_slow_down_beside_its_loops_does_not_move_the_bounds(
    number: int, late_s: float
) -> None:
    """Its latency grows by so much, which is in no loop."""
    trials = iter(range(1, 99))

    def disturbed(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            made = attack(url, **options)
            if "in_flight" in options or next(trials) != number:
                return made
            later_s = late_s * made.requests["due_s"] / made.requests["due_s"].max()
            requests = made.requests.assign(end_s=made.requests["end_s"] + later_s)
            return Attacked(requests, {**made.summary, "latency_s": latency_of(requests)})

        return offer

    found = searched(Simulated(noise=0.05), disturbed)
    assert 0.93 < (found.shares[0] or 0) <= 1.0 <= (found.shares[1] or 0) < 1.08
    assert len(found.trials) <= 12


def test_loops_that_a_server_says_took_for_ever_are_left_out() -> None:
    def endless(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            made = attack(url, **options)
            if "in_flight" in options:
                return made
            service_s = made.requests["service_s"].where(made.requests.index % 50 > 0, math.inf)
            return Attacked(made.requests.assign(service_s=service_s), made.summary)

        return offer

    found = searched(Simulated(noise=0.05), endless)
    assert (found.shares[0] or math.inf) <= 1.0 <= (found.shares[1] or 0)


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("loop_s", [0.0128, 0.09])
def test_workers_need_not_be_told(workers: int, loop_s: float) -> None:
    """They may be more than the CPUs: loops that wait for something else need none."""
    found = searched(Simulated(workers=workers, loop_s=loop_s, noise=0.05), waiting, slo=["p99=1s"])
    assert (found.shares[0] or math.inf) <= 1.0 <= (found.shares[1] or 0)
    assert (found.lower_rps or math.inf) <= workers / loop_s <= (found.upper_rps or 0)
    assert len(found.trials) <= 12


def waiting(attack: Attack) -> Attack:
    """Return attacks on loops that use next to no CPU time."""

    def offer(url: str, **options: Any) -> Attacked:
        made = attack(url, **options)
        requests = made.requests.assign(service_cpu_s=0.01 * made.requests["service_cpu_s"])
        cpu_s = {"mean": float(requests["service_cpu_s"].mean())}
        return Attacked(requests, {**made.summary, "service_cpu_s": cpu_s})

    return offer


def seen_by(names: Callable[[int], int]) -> Callable[[Attack], Attack]:
    """Let each worker call itself by another name in X-Worker."""

    def changed(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            made = attack(url, **options)
            requests = made.requests.assign(worker=made.requests["worker"].map(names))
            counts = {str(name): 1 for name in requests["worker"].unique()}
            return Attacked(requests, {**made.summary, "workers": counts})

        return offer

    return changed


def test_threads_of_one_process_are_as_many_workers_as_are_busy_at_once() -> None:
    found = searched(Simulated(workers=2, noise=0.05), seen_by(lambda _: 7))
    assert (found.shares[0] or math.inf) <= 1.0 <= (found.shares[1] or 0)
    assert (found.lower_rps or math.inf) <= 2 / 0.0128 <= (found.upper_rps or 0)


def test_workers_that_are_taken_for_more_do_not_change_the_rate() -> None:
    """One that was replaced meanwhile has another name: there seem to be three, on two CPUs."""

    def with_a_third(attack: Attack) -> Attack:
        def offer(url: str, **options: Any) -> Attacked:
            made = attack(url, **options)
            return Attacked(made.requests, {**made.summary, "workers": {**made.summary["workers"], "9": 1}})

        return offer

    found = searched(Simulated(workers=2, noise=0.05), with_a_third)
    assert (found.lower_rps or math.inf) <= 2 / 0.0128 <= (found.upper_rps or 0)


def test_a_loop_that_is_short_beside_the_rest_of_its_request_is_searched_from_what_is_done() -> None:
    """Of their own limit, the workers reach a fifth: the rest of a request is no loop."""
    server = Simulated(loop_s=0.001, beside_s=0.004, noise=0.05)
    found = searched(server)
    assert (found.lower_rps or math.inf) <= 2 / 0.005 <= (found.upper_rps or 0)
    assert (found.shares[0] or math.inf) <= 0.2 <= (found.shares[1] or 0)
    assert max(server.rates) < 3 * 2 / 0.005, "it is not flooded with what its loops alone would allow"
    assert len(found.trials) <= 12


def test_what_clients_got_is_kept_beside_what_counted() -> None:
    found = searched(noisy(3, wobble=0.5), slo=["p99=80ms"])
    held = [trial for trial in found.trials if trial.good]
    assert all((trial.steady_s or {})["p99"] <= 0.08 for trial in held)  # type: ignore[operator]
    assert any((trial.latency_s["p99"] or 0) > 0.08 for trial in held), (
        "a wobble of the machine is no verdict"
    )


def test_latency_counts_at_the_speed_that_is_usual_however_the_machine_changed_it_between_trials() -> None:
    """An objective of so many milliseconds is one of fewer loops in a slow trial: all would contradict."""
    server = {"arrivals": "poisson", "noise": 0.0}
    same, changing = (
        [middle(searched(Simulated(wanders=wanders, random=np.random.default_rng(seed), **server),  # type: ignore[arg-type]
                         slo=["p90=40ms"], duration=10)) for seed in range(6)]
        for wanders in (0.0, 0.15)
    )  # fmt: skip
    assert np.median(changing) == pytest.approx(np.median(same), rel=0.08)


def test_a_machine_that_changes_its_speed_is_said() -> None:
    assert searched(Simulated(noise=0.02)).consistent
    assert not searched(Simulated(noise=0.02, slower=1.08)).consistent


def test_a_server_that_becomes_slower_ends_the_search_all_the_same() -> None:
    for tells in (True, False):
        assert len(searched(Simulated(slower=1.06, tells=tells)).trials) < 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slo": ["p99=250"]}, "say the unit"),
        ({"precision": "200%"}, "precision must be below 1"),
        ({"precision": 0}, "precision must be above 0"),
        ({"duration": 0}, "duration"),
        ({"arrivals": "uniform"}, "arrivals must be 'constant' or 'poisson'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sustained("http://127.0.0.1:1/", **options)


def test_a_server_of_ours_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow or disturbed the machine is: at this rate it is idle, and is sent too little to judge."""
    monkeypatch.setattr("lab.study.sustained.attack", believed(attack))
    with serve(workers=1, iterations=20_000) as server:
        found = sustained(server.url + "/api/slow", slo=["p50=9s"], duration=0.5, max_rate=10)
        silent = sustained(server.url + "/", slo=["p50=9s"], duration=0.5, max_rate=10)
    assert found.reason == silent.reason == "the search ended at 10.0/s, which is sustained"
    assert found.held_rps == pytest.approx(10)
    assert silent.held_rps == 10
    assert 0 < (found.shares[0] or 0) < 1
    assert silent.shares == (None, None)
    told = found.to_dict()
    assert told.keys() >= {"url", "slo", "lower_rps", "upper_rps", "reason", "share_of_limit", "consistent"}
    assert told["trials"][0].keys() >= {"rate", "good", "flags", "throughput", "share_of_limit", "latency_s"}
    assert isinstance(found.trials[0], RateTrial)
    assert BACKLOG not in found.trials[0].missed
