"""Balancing policies: what theory says of them, and what a slow node does to those that do not look."""

import math

import numpy as np
import pytest

from lab.errors import UsageError
from lab.models.balancing import POLICIES, VARIATIONS, Policy, policies, varied
from lab.models.queueing import mdc_wait_quantile


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, float, float], Policy]:
    rows = policies(variations=(0.0, 4.0), replications=6, requests=20_000)
    return {(one.policy, one.variation, one.slowest): one for one in rows}


def test_every_policy_has_as_many_replications_for_each_variation_and_node(
    found: dict[tuple[str, float, float], Policy],
) -> None:
    assert len(found) == len(POLICIES) * 2 * 2
    assert {len(one.latencies) for one in found.values()} == {6}


def test_constant_service_has_the_latency_of_mdc(found: dict[tuple[str, float, float], Policy]) -> None:
    central, chance = (np.median(found[policy, 0.0, 1.0].latencies) for policy in ("central", "random"))
    assert central == pytest.approx(1 + mdc_wait_quantile(0.99, 8, 0.7), rel=0.05)
    assert chance == pytest.approx(1 + mdc_wait_quantile(0.99, 1, 0.7), rel=0.15)
    turns = found["round-robin", 0.0, 1.0].latencies
    assert turns == pytest.approx(found["central", 0.0, 1.0].latencies)


def test_turns_lose_their_advantage_when_service_varies(
    found: dict[tuple[str, float, float], Policy],
) -> None:
    turns, two = (found[policy, 0.0, 1.0].latencies for policy in ("round-robin", "two-choices"))
    assert all(one < other for one, other in zip(turns, two, strict=True))
    turns, two = (found[policy, 4.0, 1.0].latencies for policy in ("round-robin", "two-choices"))
    assert np.median(two) < np.median(turns)


def test_who_does_not_look_overloads_a_node_of_half_the_speed(
    found: dict[tuple[str, float, float], Policy],
) -> None:
    lost = {policy for policy in POLICIES if math.inf in found[policy, 0.0, 0.5].latencies}
    assert lost == {"random", "round-robin"}
    rows = policies(utilisation=0.4, variations=(0.0,), replications=1, requests=2000)
    assert all(math.isfinite(one.latencies[0]) for one in rows), "at 40 % the slow node keeps up"


@pytest.mark.parametrize("variation", VARIATIONS)
def test_service_times_vary_as_asked(variation: float) -> None:
    works = varied(variation, 400_000, np.random.default_rng(1))
    assert works.mean() == pytest.approx(1, rel=0.05)
    assert works.std() / works.mean() == pytest.approx(variation, rel=0.15)
    assert (works > 0).all()


def test_nodes_that_get_more_than_all_can_do_never_settle() -> None:
    rows = policies(
        workers=2, utilisation=0.8, variations=(0.0,), slowest=(0.1,), replications=1, requests=1000
    )
    assert all(math.isinf(one.latencies[0]) for one in rows)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^utilisation must be below 1, got 1\.0$"):
        policies(utilisation=1.0)
