"""How long a plan takes, by hand, and every notebook; and the one rule by which a plan is cut to a budget.

The full study fits an hour on few CPUs, and little more on many.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from lab import cpus
from lab.errors import UsageError
from lab.experiments import catalog, forecast
from lab.experiments.forecast import CALIBRATION_S, SLOWER, TRIAL_S, fitted, start_s, trials_s
from lab.experiments.worker_scaling.scaling import default_workers
from lab.servers.peers import Peer
from lab.study.plan import Condition


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "host_cpus", lambda: 4)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: 4)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)


def _trial(workers: int = 1, **changes: Any) -> Condition:
    topology = "cluster" if workers > 1 else "single"
    values: dict[str, Any] = {"duration_s": 3.0, "load": 0.5, "topology": topology, "workers": workers}
    return Condition(iterations=1_000_000, **(values | changes))


def test_a_trial_is_start_warm_up_load_and_stop() -> None:
    """A loop of 0.1 s; one worker answers one request first, eight on four CPUs two after the other."""
    assert trials_s([_trial()]) == pytest.approx(CALIBRATION_S + TRIAL_S + start_s(1) + 0.1 + 3.0)
    assert trials_s([_trial(8)]) == pytest.approx(CALIBRATION_S + TRIAL_S + start_s(8) + 0.2 + 3.0)


def test_an_overload_drains_until_its_clients_give_up() -> None:
    calm, drained = trials_s([_trial()]), trials_s([_trial(load=2.0)])
    assert drained - calm == pytest.approx((2 * SLOWER - 1) * 3.0)
    assert trials_s([_trial(load=20.0, timeout_s=5.0)]) - calm == pytest.approx(5.0)
    by_rate = trials_s([_trial(load=None, rate=20.0)])
    assert by_rate == pytest.approx(drained), "20/s is twice what loops of 0.1 s allow"


def test_blocks_repeat_trials_and_calibrations() -> None:
    assert trials_s([_trial(), _trial(2)], 6) == pytest.approx(6 * trials_s([_trial(), _trial(2)]))
    assert trials_s([]) == 0


def _lasts(name: str, values: Mapping[str, Any]) -> float:
    """Take a second for starting, and each trial its duration."""
    return float(1.0 + values["blocks"] * values["duration_s"] * len(values.get("loads", [1])))


FULL: dict[str, dict[str, Any]] = {
    "03": {"blocks": 10, "duration_s": 10.0, "loads": [0.5, 0.7, 0.9]},
    "04": {"blocks": 6, "duration_s": 10.0},
}
QUICK: dict[str, dict[str, Any]] = {
    "03": {"blocks": 3, "duration_s": 2.0, "loads": [0.5, 0.9]},
    "04": {"blocks": 6, "duration_s": 1.0},
}


@pytest.mark.parametrize(
    ("budget_s", "cut", "blocks", "loads"),
    [
        (1000, "", 10, 3),
        (362, "", 10, 3),
        (361, "blocks to 6", 6, 3),
        (242, "blocks to 6", 6, 3),
        (241, "blocks to 6, and trials to shorter ones", 6, 3),
        (44, "blocks to 6, and trials to shorter ones", 6, 3),
        (43, "blocks, trials, and 03 to what quick measures", 3, 2),
        (20, "blocks, trials, and 03 to what quick measures", 3, 2),
    ],
)
def test_what_is_cut_goes_by_one_rule_until_it_fits(
    budget_s: float, cut: str, blocks: int, loads: int
) -> None:
    settings, said = fitted(FULL, QUICK, _lasts, budget_s)
    assert said == cut
    assert (settings["03"]["blocks"], len(settings["03"]["loads"])) == (blocks, loads)
    assert forecast.total_s(settings, _lasts) <= budget_s
    assert settings["04"]["blocks"] == 6, "never below six of what has six"
    assert settings["04"]["duration_s"] >= 1.0
    assert FULL["03"]["blocks"] == 10, "what was given is as it was"


def test_a_budget_uses_most_of_the_time_it_has() -> None:
    for budget_s in range(50, 240, 10):
        settings, _ = fitted(FULL, QUICK, _lasts, budget_s)
        assert forecast.total_s(settings, _lasts) > 0.9 * budget_s


def test_what_both_have_alike_is_never_cut() -> None:
    asked = {name: values | {"duration_s": 10.0} for name, values in QUICK.items()}
    settings, _ = fitted(FULL, asked, _lasts, 230)
    assert all(values["duration_s"] == 10.0 for values in settings.values())


def test_a_budget_that_nothing_fits_is_refused_with_what_would() -> None:
    with pytest.raises(UsageError, match="take at least 20 s: give as much, or fewer with --only"):
        fitted(FULL, QUICK, _lasts, 19)


HOUR_S = 3600.0


@pytest.fixture(params=[2, 8, 64, 192])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with so many CPUs."""
    monkeypatch.setattr(cpus, "host_cpus", lambda: request.param)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: request.param)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)
    return int(request.param)


def _lasts_s(profile: str) -> dict[str, float]:
    parameters = catalog.checked_parameters(profile, catalog.select([], profile), {})
    return {name: catalog.lasts_s(name, values) for name, values in parameters.items()}


def test_each_profile_takes_longer_than_the_one_before(machine: int) -> None:
    for shorter, longer in pairwise(_lasts_s(profile) for profile in ("smoke", "quick", "full")):
        assert sum(shorter.values()) < sum(longer.values())
        assert all(longer[name] >= shorter[name] > 0 for name in {*shorter} & {*longer})


def test_servers_of_others_take_as_long_as_there_are_of_them_and_longer_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a look, and two trials in each of six blocks."""
    monkeypatch.setattr(Peer, "missing", None)
    settings = catalog.profile_parameters("full", "07-other-servers") | {"events": []}
    one, two, again = (
        catalog.lasts_s("07-other-servers", settings | {"peers": peers})
        for peers in (["uvicorn"], ["uvicorn", "granian"], ["uvicorn", "granian", "hypercorn"])
    )
    assert two - one == pytest.approx(again - two)
    assert two - one > 13 * forecast.PEER_START_S
    monkeypatch.setattr(Peer, "missing", "pip install it")
    assert catalog.lasts_s("07-other-servers", settings | {"peers": ["uvicorn"]}) < one


def test_a_look_at_a_server_of_ours_is_shorter_by_what_it_starts_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Peer, "missing", None)

    def looks_s(*peers: str) -> float:
        settings = {"ours": ["shared"], "events": [], "peers": peers}
        one, two = (catalog.lasts_s("07-other-servers", settings | {"looks": looks}) for looks in (1, 2))
        return two - one

    of_both, of_three = looks_s("uvicorn"), looks_s("uvicorn", "granian")
    theirs_s = of_three - of_both
    ours_s = of_both - theirs_s
    assert theirs_s - ours_s == pytest.approx(forecast.peer_start_s(4, 4) - start_s(4))


def test_the_full_study_fits_an_hour_up_to_64_cpus_and_takes_little_more_beyond(machine: int) -> None:
    """So many workers of so many servers take a while to start (07)."""
    most_s = HOUR_S if machine <= 64 else 1.2 * HOUR_S
    assert sum(_lasts_s("full").values()) <= most_s


def test_the_full_study_can_be_cut_to_half_an_hour(machine: int) -> None:
    settings, _, cut = catalog.within(0.5 * HOUR_S, "full", catalog.select([], "full"), {})
    assert cut.startswith("blocks")
    assert sum(catalog.lasts_s(name, values) for name, values in settings.items()) <= 0.5 * HOUR_S


def test_workers_of_the_full_study_grow_by_a_quarter_to_twice_the_cpus(machine: int) -> None:
    growth = catalog.profile_parameters("full", "04-worker-scaling")["growth"]
    counts = default_workers(machine, growth)
    assert counts[:2] == [1, 2]
    assert {machine, 2 * machine} <= set(counts)
    assert max(counts) == 2 * machine
    assert all(more <= max(fewer + 1, math.ceil(1.25 * fewer)) for fewer, more in pairwise(counts))
