"""The progress of an attack, reported about once a second while it runs."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.load.generators import OnMessage
from lab.load.log import OUTCOMES
from lab.processes import Message


@dataclass(frozen=True)
class Progress:
    """The progress of an attack, warm-up included.

    `rate_rps` and the latency quantiles cover about the last second; a quantile is None without answers.
    """

    elapsed_s: float
    duration_s: float
    planned: int
    sent: int
    in_flight: int
    outcomes: dict[str, int]
    rate_rps: float
    p50_s: float | None
    p99_s: float | None


def teller(
    on_progress: Callable[[Progress], None],
    generators: int,
    duration_s: float,
    planned: int,
    begins_s: float = 0.0,
) -> OnMessage:
    """Return what adds up the generators' messages, and reports the sum once each has spoken again.

    `begins_s` is when the first request is due, below 0 with a warm-up. A generator that has ended need not
    speak again.
    """
    said: dict[int, Message] = {}
    heard: set[int] = set()
    ended: set[int] = set()
    latencies_s: list[float] = []
    before = (begins_s, 0)

    def tell(number: int, message: Message, elapsed_s: float) -> None:
        nonlocal before
        if "progress" not in message:
            return
        said[number] = message["progress"]
        latencies_s.extend(message["progress"]["latency_s"])
        if "health" in message:
            ended.add(number)
            return
        heard.add(number)
        if len(heard | ended) < generators:
            return
        heard.clear()
        sent = sum(one["sent"] for one in said.values())
        rate_rps = (sent - before[1]) / max(elapsed_s - before[0], 1e-9)
        before = elapsed_s, sent
        on_progress(
            Progress(
                elapsed_s=elapsed_s,
                duration_s=duration_s,
                planned=planned,
                sent=sent,
                in_flight=sum(one["in_flight"] for one in said.values()),
                outcomes={
                    name: sum(one["outcomes"].get(name, 0) for one in said.values()) for name in OUTCOMES
                },
                rate_rps=max(rate_rps, 0.0),
                **_quantiles(latencies_s),
            )
        )
        latencies_s.clear()

    return tell


def _quantiles(latencies_s: list[float]) -> dict[str, float | None]:
    import numpy as np

    values = np.percentile(latencies_s, [50, 99]).tolist() if latencies_s else (None, None)
    return dict(zip(("p50_s", "p99_s"), values, strict=True))
