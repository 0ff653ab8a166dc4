"""The caller's view of an attack: what to send where and when goes in, records and a summary come out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.durations import seconds
from lab.errors import UsageError
from lab.load.crew import Log, Message, offer
from lab.load.outcomes import Outcome
from lab.load.spec import Spec
from lab.load.target import find

if TYPE_CHECKING:
    import pandas as pd

    from lab.load.arrivals import Times


@dataclass(frozen=True)
class Progress:
    """How an attack stands. Quantiles are of the answers of about the last second, None without any."""

    elapsed_s: float
    duration_s: float
    planned: int
    sent: int
    in_flight: int
    outcomes: dict[str, int]
    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True)
class Result:
    """What became of every planned request, and the numbers of `lab attack --format json`.

    `warmup` holds the requests before time 0, which are in none of the numbers.
    """

    requests: "pd.DataFrame"
    summary: dict[str, Any]
    warmup: "pd.DataFrame"

    def save(self, path: str | Path) -> None:
        """Write everything to a Parquet file that `load` reads: whole, or not at all."""
        import pandas as pd

        from lab.load import records

        rows = pd.concat([self.warmup, self.requests]) if len(self.warmup) else self.requests
        records.write(path, rows, self.summary)


class Interrupted(KeyboardInterrupt):
    """An attack was interrupted; `result` is what it had until then, marked as invalid."""

    def __init__(self, result: Result) -> None:
        super().__init__("the attack was interrupted")
        self.result = result


def attack(
    url: str,
    *,
    rate: float,
    duration: float | str,
    arrivals: str = "constant",
    timeout: float | str = 30.0,
    generators: int = 1,
    seed: int = 0,
    remote: bool = False,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    keepalive: bool = False,
    connections: int = 10_000,
    in_flight: int | None = None,
    insecure: bool = False,
    warmup: float | str = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Offer `rate` requests per second for `duration` to `url`, whether or not they are answered, and wait.

    Durations are seconds, or texts like 30s. `timeout` counts from the due time. Without `keepalive` each
    request has a connection of its own, so that the server's dispatch decides who gets it; with it, up to
    `connections` idle ones are kept, and whichever worker accepted one gets all its requests. `in_flight`
    limits the requests that are unanswered at a time: waiting for a slot counts into latency. `warmup` is
    offered first, at the same rate, and kept apart. Redirects are answers, and are not followed. `seed` makes
    poisson arrivals repeatable.

    Raises UsageError for what makes no sense, or a URL that is not on loopback without `remote`; LabError if
    it cannot be reached; Interrupted, with the partial result, on KeyboardInterrupt.
    """
    from lab.load.arrivals import Stretch, due_times

    if not rate > 0:
        raise UsageError(f"a rate is above zero, not {rate}: write requests per second")
    if generators < 1 or (in_flight is not None and in_flight < generators) or connections < 0:
        raise UsageError(
            "generators, connections and the in-flight limit are 1 or more, and in-flight for each generator"
        )
    duration_s, warmup_s = seconds(duration), seconds(warmup) if warmup else 0.0
    due_s = due_times([Stretch(rate, rate, duration_s)], arrivals, seed)
    planned = len(due_s)
    if warmup_s:
        due_s = _preceded(due_times([Stretch(rate, rate, warmup_s)], arrivals, seed + 1) - warmup_s, due_s)
    generators = min(generators, len(due_s))
    timeout_s = seconds(timeout)
    target = find(url, remote=remote)
    specs = [
        Spec(
            address=target.address,
            port=target.port,
            payload=target.request(method, headers or {}, body, keepalive=keepalive),
            timeout_s=timeout_s,
            without_body=method == "HEAD",
            server_name=target.server_name,
            insecure=insecure,
            keepalive=keepalive,
            connections=connections,
            in_flight=None if in_flight is None else (in_flight + k) // generators,
            progress=on_progress is not None,
        )
        for k in range(generators)
    ]
    tell = _teller(on_progress, generators, duration_s, len(due_s)) if on_progress else _tell_nobody
    log = offer(specs, due_s, tell)
    result = _result(log, due_s, planned, url=url, arrivals=arrivals, rate=float(rate), duration_s=duration_s)
    if log.stopped_s is not None:
        raise Interrupted(result)
    return result


def _preceded(first: "Times", then: "Times") -> "Times":
    import numpy as np

    return np.concatenate([first, then])


def _result(log: Log, due_s: "Times", planned: int, **asked: Any) -> Result:
    from lab.load.records import to_frame
    from lab.load.summary import summarize

    rows = to_frame(due_s, log.columns)
    warmup, requests = rows[:-planned], rows[-planned:].reset_index(drop=True)
    interrupted = [] if log.stopped_s is None else [f"interrupted after {max(log.stopped_s, 0):.1f} s"]
    summary = summarize(requests, generator=log.health, errors=log.errors, also_invalid=interrupted, **asked)
    return Result(requests, summary, warmup)


def _tell_nobody(number: int, message: Message, elapsed_s: float) -> None:
    pass


def _teller(
    on_progress: Callable[[Progress], None], generators: int, duration_s: float, planned: int
) -> Callable[[int, Message, float], None]:
    """Add up what all generators say, and pass it on whenever the first of them speaks."""
    said: dict[int, Message] = {}

    def tell(number: int, message: Message, elapsed_s: float) -> None:
        if "progress" not in message:
            return
        said[number] = message["progress"]
        if number == 0 and len(said) == generators:
            on_progress(_progress(list(said.values()), elapsed_s, duration_s, planned))

    return tell


def _progress(said: list[Message], elapsed_s: float, duration_s: float, planned: int) -> Progress:
    import numpy as np

    latencies_s = [latency for one in said for latency in one["latency_s"]]
    p50_s, p99_s = np.percentile(latencies_s, [50, 99]).tolist() if latencies_s else (None, None)
    outcomes = {o.name.lower(): sum(one["outcomes"].get(o.name.lower(), 0) for one in said) for o in Outcome}
    sent, in_flight = (sum(one[name] for one in said) for name in ("sent", "in_flight"))
    return Progress(elapsed_s, duration_s, planned, sent, in_flight, outcomes, p50_s, p99_s)
