"""What a bound of least-busy costs: idle time of overloaded workers, and latency beside one queue."""

from typing import Any, cast

import pandas as pd
import pytest
from helpers.dispatch_parameters import parameters
from helpers.trial_rows import trials

from lab.experiments.dispatch import bound
from lab.experiments.dispatch.trials import Parameters
from lab.study.plan import Condition
from lab.study.run import Run

LEAST_BUSY = ["least-busy"]


class Overloaded:
    """A run whose two workers rest for a tenth of their time with a bound of 1, and for none with others."""

    def measure(self, _: str, conditions: list[Condition], *, blocks: int, seed: int) -> pd.DataFrame:
        rows = [
            {"trial_id": f"{one.bound}.{block}", "bound": one.bound, "block": block, "service_mean_s": 0.1}
            for one in conditions
            for block in range(blocks)
        ]
        return trials(*rows, workers=2, duration_s=10.0)

    def requests(self, measured: pd.DataFrame) -> pd.DataFrame:
        each = {
            row["trial_id"]: 0.1 / (0.9 if row["bound"] == 1 else 1.0) for row in measured.to_dict("records")
        }
        return pd.DataFrame(
            {"trial_id": name, "end_s": (number + 1) * every_s, "service_s": 0.1}
            for name, every_s in each.items()
            for number in range(120)
            for _ in range(2)
        )


def both(p: Parameters, **latency: Any) -> pd.DataFrame:
    overloaded = bound.measure(cast(Run, Overloaded()), p)
    rows = [
        {
            "dispatch": "least-busy",
            "bound": one,
            "block": block,
            "over_ideal": latency.get(f"bound_{one}", 1.1),
        }
        for one in p.bounds
        for block in range(6)
    ]
    compared = {"arrivals": "poisson", "load": 0.8, "topology": "cluster", "workers": 2, "pool": "process"}
    return bound.table(overloaded, trials(*rows, keepalive=False, **compared), p)


def test_idle_time_and_latency_stand_beside_what_unequal_loops_cost() -> None:
    p = parameters(dispatches=LEAST_BUSY, bounds=[1, 2, 1000], workers=2, blocks=6)
    table = both(p, bound_2=1.02).set_index("bound")
    assert list(table.index) == ["1", "2", "none"]
    idle = table["idle, overloaded"]
    assert str(idle["1"]).startswith("10 % (")
    assert str(idle["2"]).startswith("<0.1 % (")
    assert table["mean over ideal, equal loops"]["2"] == "1.02 (1.02 to 1.02)"
    for column in ("mean over ideal, unequal loops, simulated", "p99 over ideal, unequal loops, simulated"):
        ratios = table[column].astype(float)
        assert ratios["1"] == 1.0
        assert 1.0 < ratios["2"] <= ratios["none"]


def test_one_bound_is_not_overloaded_and_the_others_are_simulated_all_the_same() -> None:
    p = parameters(dispatches=LEAST_BUSY, bounds=[1], workers=2, blocks=6)
    table = both(p).set_index("bound")
    assert set(table["idle, overloaded"]) == {"not measured"}
    assert table["mean over ideal, equal loops"]["2"] == "not measured"
    assert float(table["mean over ideal, unequal loops, simulated"]["2"]) > 1


@pytest.mark.parametrize("bounds", [[], [0], [1001]])
def test_a_bound_that_is_none_is_refused(bounds: list[int]) -> None:
    with pytest.raises(Exception, match="bounds"):
        parameters(bounds=bounds)
