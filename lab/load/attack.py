"""The caller's view of an attack: what to send where and when goes in, records and a summary come out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, UsageError
from lab.load.generators import Log, Message, offer, warn_above
from lab.load.progress import Progress, teller
from lab.load.target import Headers, Spec, check
from lab.units import parse_duration, parse_rate

if TYPE_CHECKING:
    import pandas as pd

    from lab.load.arrivals import Profile, Times

_KEPT = (
    "url",
    "arrivals",
    "rate",
    "duration_s",
    "profile",
    "generator",
    "errors",
    "warmup_errors",
    "stopped_s",
)
"""What a summary needs besides the records."""


@dataclass(frozen=True)
class Result:
    """What became of every planned request, and the numbers of `lab attack --format json`.

    `warmup` holds the requests that were due before time 0; of the numbers, only `summary["warmup"]` is about
    them.
    """

    requests: "pd.DataFrame"
    summary: dict[str, Any]
    warmup: "pd.DataFrame"

    def save(self, path: str | Path) -> None:
        """Write everything to a Parquet file, whole or not at all. Raises LabError if that cannot be."""
        import pandas as pd

        from lab.load import records

        rows = pd.concat([self.warmup, self.requests]) if len(self.warmup) else self.requests
        kept = self.summary | {"warmup_errors": self.summary["warmup"]["errors"]}
        records.write(path, rows, {name: kept[name] for name in _KEPT})

    @staticmethod
    def load(path: str | Path) -> "Result":
        """Return what `save` wrote, summarized anew. Raises LabError if the file is anything else."""
        from lab.load import records

        rows, kept = records.read_with_metadata(path)
        if missing := [name for name in _KEPT if name not in kept]:
            raise LabError(
                f"cannot read {path}: it does not say {missing[0]}; was it written by lab attack --out?"
            )
        return summarized(rows, **{name: kept[name] for name in _KEPT})


class Interrupted(KeyboardInterrupt):
    """An attack was interrupted; `result` is what it had until then, marked as invalid."""

    def __init__(self, result: Result) -> None:
        super().__init__("the attack was interrupted")
        self.result = result


def from_log(log: Log, due_s: "Times", asked: Mapping[str, Any]) -> Result:
    """Return the result of an attack from what its generators wrote down."""
    from lab.load.generators import joint_figures
    from lab.load.records import to_frame

    return summarized(
        to_frame(due_s, log.columns),
        generator=log.health | joint_figures(due_s, log.columns),
        errors=log.errors,
        warmup_errors=log.warmup_errors,
        stopped_s=log.stopped_s,
        **asked,
    )


def summarized(rows: "pd.DataFrame", *, warmup_errors: Mapping[str, int], **kept: Any) -> Result:
    """Keep the warm-up apart, and count the rest."""
    from lab.load.summary import account, summarize

    counted = rows["due_s"] >= 0
    requests, warmup = (rows[which].reset_index(drop=True) for which in (counted, ~counted))
    summary = summarize(requests, **kept) | {"warmup": account(warmup, warmup_errors)}
    return Result(requests, summary, warmup)


def attack(
    url: str,
    *,
    rate: float | str | None = None,
    duration: float | str | None = None,
    profile: str | None = None,
    arrivals: str = "constant",
    timeout: float | str = 30.0,
    warmup: float | str | None = None,
    generators: int = 1,
    seed: int = 0,
    remote: bool = False,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    keepalive: bool = False,
    connections: int = 10_000,
    in_flight: int | None = None,
    insecure: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Offer load to `url`, whether or not it is answered, and wait for what becomes of it.

    The load is `rate` requests per second for `duration`, or a `profile` as `lab.load.arrivals` reads it;
    arrivals are constant or poisson, repeatable by `seed`. Durations are seconds, or texts like 30s.
    `timeout` counts from the due time. `warmup` is offered first at the rate that the load begins with, and
    kept apart.

    Without `keepalive` each request has a connection of its own, so that the server's dispatch decides who
    gets it; with it up to `connections` idle ones are kept, and whoever accepted one gets all its requests.
    `in_flight` limits the unanswered requests: waiting for a slot counts into latency. Redirects are answers,
    not followed.

    Warns of a rate above what `lab doctor` found that a generator can be believed at (AboveCeilingWarning).
    Raises UsageError for what makes no sense, or a target that is not on loopback without `remote`; LabError
    if it cannot be reached; Interrupted, with the partial result, on KeyboardInterrupt.
    """
    from lab.load.arrivals import due_times, duration_s, peak_rps, total

    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}")
    stretches = _stretches(rate, duration, profile)
    due_s = due_times(stretches, arrivals, seed)
    if warmup_s := parse_duration(warmup or 0, zero=True):
        due_s = _preceded(due_s, stretches, warmup_s, arrivals, seed)
    if generators < 1:
        raise UsageError(f"generators must be at least 1, got {generators}")
    if in_flight is not None and in_flight < generators:
        raise UsageError(f"in-flight must be at least {generators}, one for each generator, got {in_flight}")
    if connections < 0:
        raise UsageError(f"connections must be at least 0, got {connections}")
    generators = min(generators, len(due_s))
    timeout_s, target = parse_duration(timeout), check(url, remote=remote)
    lasts_s = duration_s(stretches)
    payload = target.request(method, headers, body, keepalive=keepalive)
    spec = Spec(
        address=target.accepting(),
        port=target.port,
        payload=payload,
        timeout_s=timeout_s,
        lasts_s=lasts_s,
        without_body=method == "HEAD",
        server_name=target.server_name,
        insecure=insecure,
        keepalive=keepalive,
        connections=connections,
        in_flight=in_flight,
        progress=on_progress is not None,
    )
    warn_above(peak_rps(stretches), generators, keepalive=keepalive)
    begins_s = min(0.0, float(due_s[0]))
    tell = teller(on_progress, generators, lasts_s, len(due_s), begins_s) if on_progress else _tell_nobody
    log = offer(spec.shared_by(generators), due_s, tell)
    asked = {"url": url, "arrivals": arrivals, "profile": profile, "duration_s": lasts_s}
    result = from_log(log, due_s, asked | {"rate": total(stretches) / lasts_s})
    if log.stopped_s is not None:
        raise Interrupted(result)
    return result


def _stretches(rate: float | str | None, duration: float | str | None, profile: str | None) -> "Profile":
    from lab.load.arrivals import Stretch, parse

    if (profile is None) == (rate is None) or (rate is None) != (duration is None):
        raise UsageError("say how much load: a rate and a duration, or a profile")
    if profile is not None:
        return parse(profile)
    if not (rate_rps := parse_rate(rate or 0)):
        raise UsageError(f"a rate must be above 0, got {rate!r}: say how many requests per second")
    return [Stretch(rate_rps, rate_rps, parse_duration(duration or 0))]


def _preceded(due_s: "Times", stretches: "Profile", warmup_s: float, arrivals: str, seed: int) -> "Times":
    """Put a warm-up before time 0, at the rate that the load begins with."""
    import numpy as np

    from lab.load.arrivals import Stretch, due_times

    rate = stretches[0].start_rps or stretches[0].end_rps
    return np.concatenate([due_times([Stretch(rate, rate, warmup_s)], arrivals, seed + 1) - warmup_s, due_s])


def _tell_nobody(number: int, message: Message, elapsed_s: float) -> None:
    pass
