"""A search that offers the same few rates to any server, so that a test takes as long on any machine."""

from collections.abc import Callable, Sequence
from typing import Any

from lab.load.report import Slo
from lab.study.rate_search import RateTrial
from lab.study.trial import Measured

HELD_RPS, FAILED_RPS = 40.0, 100.0


class Scripted:
    """Stands in for `lab.study.rate_search.Search`: 40/s holds, and 100/s is too much."""

    def __init__(
        self,
        offer: Callable[[float, float, int], Measured],
        slos: Sequence[Slo],
        *,
        duration_s: float,
        on_trial: Callable[[RateTrial, Sequence[RateTrial]], None],
        **_: Any,
    ) -> None:
        self._offer = offer
        self._duration_s = duration_s
        self._on_trial = on_trial
        self.trials: list[RateTrial] = []

    def run(self, guess_rps: float, max_rps: float, precision: float) -> tuple[float, float, str]:
        """Offer both rates."""
        assert guess_rps > 0
        for number, rate_rps in enumerate((HELD_RPS, FAILED_RPS)):
            self.trials.append(_judged(self._offer(rate_rps, self._duration_s, number), rate_rps))
            self._on_trial(self.trials[-1], self.trials)
        return HELD_RPS, FAILED_RPS, ""

    def so_far(self) -> tuple[None, None, str]:
        """Return that nothing is known yet."""
        return None, None, "stopped"


def _judged(offered: Measured, rate_rps: float) -> RateTrial:
    summary = offered.summary
    good = rate_rps == HELD_RPS
    return RateTrial(
        rate_rps, summary["planned"], good, () if good else ("p99",), (), summary["throughput"],
        None, None, None, None, 0.0, dict(summary["latency_s"]), {"cpu_s": 0.0, "send_lag_p99_s": 0.0},
    )  # fmt: skip
