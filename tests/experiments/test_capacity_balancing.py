"""Which balancing policy overtakes which: from made latencies, and simulated ones, in words and drawn."""

from typing import Any

import numpy as np

from lab.experiments.capacity import balancing, figure
from lab.models.balancing import Policy, policies


def _policy(name: Any, variation: float, slowest: float, *latencies: float) -> Policy:
    return Policy(name, variation, slowest, latencies * 6)


def made_policies() -> list[Policy]:
    """Make turns that are as good as any while service times are constant, and lost with a slow node."""
    equal = [
        _policy(name, variation, 1.0, latency)
        for name, latencies in {
            "random": (9.0, 30.0),
            "round-robin": (2.0, 20.0),
            "two-choices": (3.0, 10.0),
            "shortest": (2.0, 8.0),
            "central": (2.0, 8.0),
        }.items()
        for variation, latency in zip((0.0, 1.0), latencies, strict=True)
    ]
    lost = {"random": np.inf, "round-robin": np.inf}
    slow = [
        Policy(one.policy, one.variation, 0.5, (lost.get(one.policy, one.latencies[0]),) * 6) for one in equal
    ]
    return [*equal, *slow]


def test_who_overtakes_whom_and_where() -> None:
    rows = balancing.overtakes(made_policies()).to_dict("records")
    assert {"overtaken": "round robin", "where": "service times vary by 1 or more",
            "by": "the shorter of two, the shortest of all, one central queue"} in rows  # fmt: skip
    (slow,) = [row for row in rows if "of the speed" in row["where"]]
    assert slow["overtaken"] == "round robin"
    assert not any(row["overtaken"] == "one central queue" for row in rows)


def test_a_policy_that_never_settles_has_no_latency_in_table_or_figure() -> None:
    table = balancing.table(made_policies())
    assert (table["variation 0"] == balancing.OVERLOADED).sum() == 2
    assert "inf" not in table.to_string()
    drawn = figure.policies(made_policies(), 99)
    equal, slow = drawn.axes
    assert not any("never" in text.get_text() for text in equal.texts)
    assert any("random and round robin" in text.get_text() for text in slow.texts)


def test_simulated_policies_are_drawn_with_a_label_each() -> None:
    found = policies(variations=(0.0, 1.0), replications=2, requests=2000)
    equal, _ = figure.policies(found, 99).axes
    assert {text.get_text() for text in equal.texts} == {*balancing.NAMES.values(), "ideal: no wait"}
    told = balancing.overtakes(found)
    assert not told["where"].str.contains("vary").any(), "two replications tell nothing"
