"""When a worker that died is replaced: at once; later and later if workers die young; then no more."""

from dataclasses import dataclass

SETTLED_S = 2.0
"""A worker that accepted for this long before it died did not die of how it was started."""

_FIRST_DELAY_S = 0.1


@dataclass
class Backoff:
    """Counts deaths in a row of workers that were not settled.

    The first replacement is immediate and the next ones wait .1, .2, .4, ... seconds: neither a
    worker that cannot start nor one that crashes with every request takes the machine with it.
    """

    most: int = 6
    young: int = 0

    def after_death(self, accepted_for_s: float) -> float | None:
        """Return how many seconds to wait before the next start, or None to give up."""
        self.young = 0 if accepted_for_s >= SETTLED_S else self.young + 1
        if self.young >= self.most:
            return None
        return 0.0 if self.young <= 1 else _FIRST_DELAY_S * 2 ** (self.young - 2)
