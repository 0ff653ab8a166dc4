"""The caller's view of an attack: what to send where and when goes in, records and a summary come out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.durations import seconds
from lab.errors import UsageError
from lab.load.crew import Message, offer
from lab.load.kept_ceiling import warn_above
from lab.load.progress import Progress, teller
from lab.load.result import Interrupted, Result, from_log
from lab.load.spec import Spec
from lab.load.target import Headers, check

if TYPE_CHECKING:
    from lab.load.arrivals import Profile, Times


def attack(
    url: str,
    *,
    rate: float | None = None,
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

    The load is `rate` requests per second for `duration`, or a `profile` as `lab.load.profile` reads it;
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
        raise UsageError(f"a seed is 0 or more, not {seed}")
    stretches = _stretches(rate, duration, profile)
    due_s = due_times(stretches, arrivals, seed)
    if warmup:
        due_s = _preceded(due_s, stretches, seconds(warmup), arrivals, seed)
    if not 1 <= generators <= (generators if in_flight is None else in_flight):
        raise UsageError("generators are 1 or more, in-flight no fewer than generators")
    if connections < 0:
        raise UsageError(f"connections are 0 or more, not {connections}: so many idle ones are kept at most")
    generators = min(generators, len(due_s))
    timeout_s, target = seconds(timeout), check(url, remote=remote)
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


def _stretches(rate: float | None, duration: float | str | None, profile: str | None) -> "Profile":
    from lab.load.arrivals import Stretch
    from lab.load.profile import parse

    if (profile is None) == (rate is None) or (rate is None) != (duration is None):
        raise UsageError("say how much load: a rate and a duration, or a profile")
    if profile is not None:
        return parse(profile)
    if not (rate is not None and rate > 0):
        raise UsageError(f"a rate is above zero, not {rate}: say how many requests per second")
    return [Stretch(rate, rate, seconds(duration or 0))]


def _preceded(due_s: "Times", stretches: "Profile", warmup_s: float, arrivals: str, seed: int) -> "Times":
    """Put a warm-up before time 0, at the rate that the load begins with."""
    import numpy as np

    from lab.load.arrivals import Stretch, due_times

    rate = stretches[0].start_rps or stretches[0].end_rps
    return np.concatenate([due_times([Stretch(rate, rate, warmup_s)], arrivals, seed + 1) - warmup_s, due_s])


def _tell_nobody(number: int, message: Message, elapsed_s: float) -> None:
    pass
