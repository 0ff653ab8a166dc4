"""Every notebook says how long it takes, whatever the machine; the full study fits an hour."""

from itertools import pairwise

import pytest

from lab import cpus
from lab.cli import study as batch
from lab.experiments.worker_scaling.trials import default_workers

HOUR_S = 3600.0


@pytest.fixture(params=[2, 8, 64, 192])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with so many CPUs."""
    monkeypatch.setattr(cpus, "host_cpus", lambda: request.param)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: request.param)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)
    return int(request.param)


def _lasts_s(profile: str) -> dict[str, float]:
    parameters = batch.checked_parameters(profile, batch.notebooks(), {})
    return {name: batch.lasts_s(name, values) for name, values in parameters.items()}


def test_each_profile_takes_longer_than_the_one_before(machine: int) -> None:
    for shorter, longer in pairwise(_lasts_s(profile) for profile in ("smoke", "quick", "full")):
        assert sum(shorter.values()) < sum(longer.values())
        assert all(longer[name] >= shorter[name] > 0 for name in longer)


def test_the_full_study_fits_an_hour_on_few_and_on_many_cpus(machine: int) -> None:
    most_s = HOUR_S if machine <= 64 else 1.25 * HOUR_S
    assert sum(_lasts_s("full").values()) <= most_s


def test_the_full_study_can_be_cut_to_half_an_hour(machine: int) -> None:
    settings, _, cut = batch.within(0.5 * HOUR_S, "full", batch.notebooks(), {})
    assert cut.startswith("blocks")
    assert sum(batch.lasts_s(name, values) for name, values in settings.items()) <= 0.5 * HOUR_S


def test_workers_of_the_full_study_grow_in_a_few_steps_to_twice_the_cpus(machine: int) -> None:
    growth = batch.profile_parameters("full", "04-worker-scaling")["growth"]
    counts = default_workers(machine, growth)
    assert counts[:2] == [1, 2]
    assert {machine, 2 * machine} <= set(counts)
    assert max(counts) == 2 * machine
    assert len(counts) <= 18
