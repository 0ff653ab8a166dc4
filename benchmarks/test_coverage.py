"""How often each kind of interval holds the true value: `make bench` prints it, and fails below its bars.

All of it is simulated: nothing here depends on the machine.
"""

import numpy as np
import pytest
from helpers.coverage import (
    DRAWS,
    of_medians,
    of_own_searches,
    of_paired_ratios,
    of_proportions,
    of_searches,
)

DRAWN = 10_000
HONEST = 0.94
"""An interval of 95 % may cover that much in as many draws, by chance."""

ENOUGH = 120
"""Requests of a trial from which on the bounds of a search must hold what they say."""

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("trials", [6, 7, 12, 20])
@pytest.mark.parametrize("scatter", DRAWS)
def test_medians(trials: int, scatter: str) -> None:
    covered = of_medians(trials, scatter, DRAWN)
    print(f"median of {trials:2} {scatter} trials, order statistics: {covered:.1%} of {DRAWN:,}")
    assert covered >= HONEST


@pytest.mark.parametrize("blocks", [6, 7, 12, 20])
def test_paired_ratios(blocks: int) -> None:
    covered = of_paired_ratios(blocks, DRAWN)
    print(f"ratio paired over {blocks:2} blocks of two speeds, order statistics: {covered:.1%} of {DRAWN:,}")
    assert covered >= HONEST


@pytest.mark.parametrize("whole", [6, 20, 60])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_proportions(whole: int, share: float) -> None:
    covered = of_proportions(whole, share, DRAWN)
    print(f"share {share} of {whole:2} events, Clopper-Pearson: {covered:.1%} of {DRAWN:,}")
    assert covered >= HONEST


@pytest.mark.parametrize("requests", [60, 120, 200, 600])
def test_bounds_of_searches(requests: int) -> None:
    rates, shares = of_searches(200, requests), of_own_searches(100, requests, speeds=0.1)
    print(
        f"sustained rate, bounds 5 % apart, {requests} requests a trial: as rates, {rates.as_rates:.1%} of "
        f"{len(rates.trials)} hold it, in {np.median(rates.trials):.0f} trials in the median; as shares, "
        f"while the machine changes its speed, {shares.as_shares:.1%} of {len(shares.trials)}, in "
        f"{np.median(shares.trials):.0f}"
    )
    assert max(np.median(rates.trials), np.median(shares.trials)) <= 12
    if requests >= ENOUGH:
        assert min(rates.as_rates, shares.as_shares) >= 0.95
