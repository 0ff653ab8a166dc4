"""Controls made by hand: 16 workers with the shorter loop are fed though 8 are not; one is flagged."""

from lab.experiments.control import HELD, Fed, frame
from lab.flags import Flag

BUSY = Flag("generator_cpu", 0.95, 0.9)


def fed(workers: int, iterations: int, share: float, flags: tuple[Flag, ...] = ()) -> Fed:
    """Make a control: loops of 0.1 µs an iteration."""
    loop_s = iterations / 1e7
    return Fed(workers, iterations, loop_s, 1.2 * workers / loop_s, share * workers / loop_s, share, 1, flags)


FED = frame(
    [
        *(fed(n, 7**6, share) for n, share in ((2, 0.95), (4, 0.94), (8, HELD - 0.01), (16, 0.97))),
        *(fed(n, 7**7, 0.99, (BUSY,) if n == 16 else ()) for n in (2, 4, 8, 16)),
    ]
)
