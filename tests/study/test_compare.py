"""Runs beside each other: what is told, what could have been seen, and how often chance is told."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError, UsageError
from lab.models.statistics import estimate
from lab.study.compare import check_alike, compare
from lab.study.estimates import stated, table_of
from lab.study.manifest import new_manifest


def _simulated(
    random: np.random.Generator, middles: Sequence[float], blocks: int = 6, spread: float = 0.15
) -> pd.DataFrame:
    return table_of(
        stated("scaling", "speed-up", estimate(middle * random.lognormal(0, spread, blocks)), workers=number)
        for number, middle in enumerate(middles, 1)
    )


@pytest.mark.parametrize("blocks", [6, 7, 12, 20])
def test_two_runs_of_one_machine_hardly_ever_differ(blocks: int) -> None:
    random = np.random.default_rng(blocks)
    quiet = 0
    for _ in range(20):
        one, other = (_simulated(random, [1.0 + 0.1 * i for i in range(40)], blocks) for _ in range(2))
        quiet += not any(found.told for found in compare([("one", one), ("other", other)]).differences)
    assert quiet >= 18


def test_a_real_difference_is_told_and_how_large_one_had_to_be() -> None:
    random = np.random.default_rng(1)
    one, other = (_simulated(random, middles, spread=0.02) for middles in ([1.0, 2.0], [1.0, 3.0]))
    same, differs = compare([("one", one), ("other", other)]).differences
    assert (same.told, differs.told) == (False, True)
    assert same.smallest_told is not None
    assert 0 < same.smallest_told < 0.5
    assert differs.low is not None
    assert differs.low > 1


def test_a_run_does_not_differ_from_itself() -> None:
    one = _simulated(np.random.default_rng(2), [1.0, 2.0])
    found = compare([("one", one), ("one", one)])
    assert [(row.ratio, row.told) for row in found.differences] == [(1.0, False)] * 2
    assert found.left_out == ()


def test_too_few_blocks_tell_nothing() -> None:
    random = np.random.default_rng(3)
    one, other = (_simulated(random, [middle], blocks=5) for middle in (1.0, 9.0))
    (found,) = compare([("one", one), ("other", other)]).differences
    assert (found.told, found.low) == (None, None)


def test_runs_are_aligned_on_what_they_share_or_refused() -> None:
    random = np.random.default_rng(4)
    two, three = _simulated(random, [1.0, 2.0]), _simulated(random, [1.0, 2.0, 3.0])
    found = compare([("two", two), ("three", three)])
    assert len(found.differences) == 2
    assert found.left_out[0].startswith("three: 1 of 3")
    with pytest.raises(LabError, match="two has scaling; three has dispatch"):
        compare([("two", two), ("three", three.assign(experiment="dispatch"))])
    with pytest.raises(UsageError, match="at least two"):
        compare([("two", two)])


def test_runs_of_different_plans_are_refused_by_what_differs() -> None:
    quick, full = (
        new_manifest(name, profile=name, notebooks=(), parameters={}) for name in ("quick", "full")
    )
    check_alike([quick, quick])
    with pytest.raises(LabError, match="different profiles"):
        check_alike([quick, full])
    changed = quick.model_copy(update={"parameters": {"02.rate": 20}})
    with pytest.raises(LabError, match=r"different parameters \(02.rate\)"):
        check_alike([quick, changed])
