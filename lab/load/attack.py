"""The caller's view of an attack: in goes what to send, where and when; out come records and a summary."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from lab.channel import Message
from lab.checks import Before, Count, Whole, checked
from lab.cpus import available_cpus
from lab.errors import LabError, UsageError
from lab.load.arrivals import (
    Arrivals,
    Stage,
    Stages,
    Times,
    due_times,
    duration_s,
    parse_stages,
    peak_rps,
    total,
)
from lab.load.generators import MOST_GENERATORS_PER_CPU, JointLog, OnMessage, joint_figures, offer, warn_above
from lab.load.log import OUTCOMES
from lab.load.target import Assignment, Headers, check
from lab.units import counted, parse_duration, parse_rate, percent, seconds

if TYPE_CHECKING:
    import pandas as pd

_KEPT = (
    "url",
    "arrivals",
    "rate",
    "duration_s",
    "stages",
    "generator",
    "errors",
    "warmup_errors",
    "stopped_s",
)
"""What a summary needs besides the records."""

_NAMES_IN_0_1 = {"profile": "stages", "precedence": "realtime"}


def _by_todays_names(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {_NAMES_IN_0_1.get(name, name): value for name, value in kept.items()}


@dataclass(frozen=True, repr=False)
class Result:
    """What became of every planned request, and the numbers of `lab attack --format json`.

    `warmup` holds the requests that were due before time 0; only `summary["warmup"]` counts them.
    """

    requests: "pd.DataFrame"
    summary: dict[str, Any]
    warmup: "pd.DataFrame"

    def __repr__(self) -> str:
        summary, p99_s = self.summary, self.summary["latency_s"]["p99"]
        tail = "" if p99_s is None else f", p99 {seconds(p99_s)}"
        success = "" if summary["success"] is None else f", {percent(summary['success'])} answered well"
        doubts = "" if summary["valid"] else ", to be doubted"
        return f"<Result of {counted(summary['planned'], 'request')}{success}{tail}{doubts}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the report of `lab attack` where it is the value of a notebook's cell."""
        from lab.load.report import report

        printer.text(report(self.summary))

    def _repr_html_(self) -> str:
        """Show it so that no line breaks: the text would in a narrow window."""
        from lab.load.report import report

        style = "margin:0;padding:0;font-size:12px;white-space:pre;overflow-x:auto"
        return f'<pre style="{style}">{html.escape(report(self.summary))}</pre>'

    def save(self, path: str | Path) -> None:
        """Write everything to a Parquet file, whole or not at all. Raises LabError if that is impossible."""
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
        kept = _by_todays_names(kept) | {"generator": _by_todays_names(kept.get("generator", {}))}
        if missing := [name for name in _KEPT if name not in kept]:
            raise LabError(f"cannot read {path}: it has no {missing[0]}; was it written by lab attack --out?")
        return summarized(rows, **{name: kept[name] for name in _KEPT})


class Interrupted(KeyboardInterrupt):
    """An attack was interrupted; `result` is what it had by then, marked as invalid."""

    def __init__(self, result: Result) -> None:
        super().__init__("the attack was interrupted")
        self.result = result


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


def from_log(log: JointLog, due_s: Times, asked: Mapping[str, Any]) -> Result:
    """Return the result of an attack from its generators' log."""
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
    """Set the warm-up apart, and count the rest."""
    from lab.load.summary import account, summarize

    counted = rows["due_s"] >= 0
    requests, warmup = (rows[which].reset_index(drop=True) for which in (counted, ~counted))
    summary = summarize(requests, **kept) | {"warmup": account(warmup, warmup_errors)}
    return Result(requests, summary, warmup)


Rate = Annotated[float | str, Before(parse_rate), Field(gt=0)]
Duration = Annotated[float | str, Before(parse_duration)]
DurationOrNone = Annotated[float | str, Before(partial(parse_duration, zero=True))]


@checked
def attack(
    url: str,
    *,
    rate: Rate | None = None,
    duration: Duration | None = None,
    stages: str | None = None,
    arrivals: Arrivals = "constant",
    timeout: Duration = 30.0,
    warmup: DurationOrNone = 0.0,
    generators: Count = 1,
    seed: Whole = 0,
    remote: bool = False,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    keepalive: bool = False,
    connections: Whole = 10_000,
    in_flight: Count | None = None,
    insecure: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Offer load to `url`, whether or not it answers, and wait until every request has ended.

    The load is a `rate` (requests per second, or a text like 30/m) for a `duration`, or `stages` such as
    "10/s for 10s, ramp to 50/s over 30s"; arrivals are constant or poisson, repeatable by `seed`. Durations
    are seconds, or texts like 30s. `timeout` counts from the due time. A `warmup` is offered first, at the
    rate that the load begins with, and kept apart.

    Without `keepalive`, each request has its own connection, so the server's dispatch decides which worker
    gets it. With it, up to `connections` idle ones are kept, and the worker that accepted one gets all its
    requests. `in_flight` limits the unanswered requests: waiting for a slot counts towards latency. Redirects
    count as answers and are not followed.

    Warns of a rate above the one at which `lab doctor` believed a generator (AboveCeilingWarning).
    Raises UsageError for invalid arguments, or for a target off loopback without `remote`; LabError if it
    cannot be reached; Interrupted, with the partial result, on KeyboardInterrupt.
    """
    load = _stages(rate, duration, stages)
    due_s = due_times(load, arrivals, seed, float(warmup))
    if generators > (most := MOST_GENERATORS_PER_CPU * available_cpus()):
        raise UsageError(
            f"generators must be at most {most}, {MOST_GENERATORS_PER_CPU} per CPU, got {generators}"
        )
    generators = min(generators, len(due_s))
    if in_flight is not None and in_flight < generators:
        raise UsageError(f"in_flight must be at least {generators}, one for each generator, got {in_flight}")
    target, lasts_s = check(url, remote=remote), duration_s(load)
    payload = target.request(method, headers, body, keepalive=keepalive)
    assignment = Assignment(
        address=target.accepting(),
        port=target.port,
        payload=payload,
        timeout_s=float(timeout),
        lasts_s=lasts_s,
        without_body=method == "HEAD",
        server_name=target.server_name,
        insecure=insecure,
        keepalive=keepalive,
        connections=connections,
        in_flight=in_flight,
        progress=on_progress is not None,
    )
    warn_above(peak_rps(load), generators, keepalive=keepalive)
    begins_s = min(0.0, float(due_s[0]))
    tell = teller(on_progress, generators, lasts_s, len(due_s), begins_s) if on_progress else _tell_nobody
    log = offer(assignment, generators, due_s, tell)
    asked = {"url": url, "arrivals": arrivals, "stages": stages, "duration_s": lasts_s}
    result = from_log(log, due_s, asked | {"rate": total(load) / lasts_s})
    if log.stopped_s is not None:
        raise Interrupted(result)
    return result


def _stages(rate: float | str | None, duration: float | str | None, stages: str | None) -> Stages:
    if stages is not None and (rate is not None or duration is not None):
        raise UsageError("stages say it all: leave out the rate and the duration")
    if stages is None and (rate is None or duration is None):
        raise UsageError("say how much load to offer: a rate and a duration, or stages")
    if stages is not None:
        return parse_stages(stages)
    return [Stage(float(rate or 0), float(rate or 0), float(duration or 0))]


def _tell_nobody(number: int, message: Message, elapsed_s: float) -> None:
    pass


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
    values = np.percentile(latencies_s, [50, 99]).tolist() if latencies_s else (None, None)
    return dict(zip(("p50_s", "p99_s"), values, strict=True))
