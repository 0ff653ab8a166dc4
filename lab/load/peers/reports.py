"""What peers report, as numbers in seconds: one function per tool reads what it printed or wrote."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.flags import Flag


@dataclass(frozen=True)
class Numbers:
    """One run as a tool sees it; None where it does not say. Statuses from 200 to 399 are ok."""

    requests: int
    ok: int
    throughput_rps: float
    """Requests answered well per second."""
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    max_s: float | None
    flags: tuple[Flag, ...] = ()
    """Why the tool itself doubts them."""


def wrk(out: str) -> Numbers:
    """Read `wrk --latency`: numbers with units, and a line for errors if there are any."""
    mean, _, top = _words(r"^\s*Latency\s+(\S+)\s+(\S+)\s+(\S+)", out)
    requests = int(_word(r"(\d+) requests in", out))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    ok = requests - (int(failed[1]) if failed else 0)
    quantiles = {int(p): _with_unit(value) for p, value in re.findall(r"^\s+(\d+)%\s+(\S+)$", out, re.M)}
    return Numbers(
        requests=requests,
        ok=ok,
        throughput_rps=_well(ok, requests, _word(r"Requests/sec:\s+(\S+)", out)),
        mean_s=_with_unit(mean),
        p50_s=quantiles[50],
        p90_s=quantiles[90],
        p99_s=quantiles[99],
        max_s=_with_unit(top),
    )


def hey(out: str) -> Numbers:
    """Read hey's summary: seconds, to a tenth of a millisecond."""
    statuses = {int(s): int(count) for s, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", out)}
    quantiles = {int(p): float(value) for p, value in re.findall(r"(\d+)%+ in ([\d.]+) secs", out)}
    errors = out.partition("Error distribution")[2]
    failed = [int(count) for count in re.findall(r"^\s*\[(\d+)\]\s+\D", errors, re.MULTILINE)]
    ok, requests = _ok(statuses), sum(statuses.values()) + sum(failed)
    return Numbers(
        requests=requests,
        ok=ok,
        throughput_rps=_well(ok, requests, _word(r"Requests/sec:\s+(\S+)", out)),
        mean_s=float(_word(r"Average:\s+(\S+)", out)),
        p50_s=quantiles.get(50),
        p90_s=quantiles.get(90),
        p99_s=quantiles.get(99),
        max_s=float(_word(r"Slowest:\s+(\S+)", out)),
    )


def ab(out: str, percentiles: Iterable[str]) -> Numbers:
    """Read ApacheBench's report, and the file of its option -e: milliseconds for each percent."""
    rows = {row[0]: row[1] for row in csv.reader(percentiles) if len(row) == 2}
    requests = int(_word(r"Complete requests:\s+(\d+)", out))
    other = re.search(r"Non-2xx responses:\s+(\d+)", out)
    ok = requests - (int(other[1]) if other else 0)
    return Numbers(
        requests=requests,
        ok=ok,
        throughput_rps=_well(ok, requests, _word(r"Requests per second:\s+(\S+)", out)),
        mean_s=float(_word(r"Time per request:\s+(\S+) \[ms\] \(mean\)", out)) / 1000,
        p50_s=float(rows["50"]) / 1000,
        p90_s=float(rows["90"]) / 1000,
        p99_s=float(rows["99"]) / 1000,
        max_s=float(rows["100"]) / 1000 if "100" in rows else None,
    )


def autocannon(out: str) -> Numbers:
    """Read `autocannon --json`: whole milliseconds, and a throughput that is a mean of seconds."""
    said = json.loads(out)
    latency = {name: value / 1000 for name, value in said["latency"].items() if name != "totalCount"}
    return Numbers(
        requests=said["requests"]["total"] + said["errors"],
        ok=said["2xx"] + said["3xx"],
        throughput_rps=(said["2xx"] + said["3xx"]) / said["duration"],
        mean_s=latency["mean"],
        p50_s=latency["p50"],
        p90_s=latency["p90"],
        p99_s=latency["p99"],
        max_s=latency["max"],
    )


def loadtest(out: str) -> Numbers:
    """Read the report of npm's loadtest: whole milliseconds."""
    quantiles = {int(p): float(value) / 1000 for p, value in re.findall(r"^\s*(\d+)%\s+(\S+) ms", out, re.M)}
    requests = int(_word(r"Completed requests:\s+(\d+)", out))
    ok = requests - int(_word(r"Total errors:\s+(\d+)", out))
    return Numbers(
        requests=requests,
        ok=ok,
        throughput_rps=_well(ok, requests, _word(r"Effective rps:\s+(\S+)", out)),
        mean_s=float(_word(r"Mean latency:\s+(\S+) ms", out)) / 1000,
        p50_s=quantiles.get(50),
        p90_s=quantiles.get(90),
        p99_s=quantiles.get(99),
        max_s=quantiles.get(100),
    )


def locust(out: str) -> Numbers:
    """Read `locust --json`: a count for each rounded response time, in milliseconds."""
    said = next(entry for entry in json.loads(out) if entry["num_requests"])
    requests, elapsed_s = said["num_requests"], said["last_request_timestamp"] - said["start_time"]
    counts = sorted((float(time_ms) / 1000, count) for time_ms, count in said["response_times"].items())
    return Numbers(
        requests=requests,
        ok=requests - said["num_failures"],
        throughput_rps=(requests - said["num_failures"]) / elapsed_s,
        mean_s=said["total_response_time"] / requests / 1000,
        p50_s=_quantile(counts, 0.5),
        p90_s=_quantile(counts, 0.9),
        p99_s=_quantile(counts, 0.99),
        max_s=said["max_response_time"] / 1000,
    )


def _quantile(counts: list[tuple[float, int]], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed."""
    rest = share * sum(count for _, count in counts)
    for value, count in counts:
        rest -= count
        if rest <= 0:
            return value
    return counts[-1][0]


def _ok(statuses: dict[int, int]) -> int:
    return sum(count for status, count in statuses.items() if 200 <= status < 400)


def _well(ok: int, requests: int, rate_rps: str) -> float:
    """Remove from a rate of answers those that were not ok."""
    return float(rate_rps) * ok / max(requests, 1)


def _words(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ValueError(f"no match of {pattern!r}")
    return tuple(str(group) for group in found.groups())


def _word(pattern: str, text: str) -> str:
    return _words(pattern, text)[0]


def _with_unit(text: str) -> float:
    value, unit = _words(r"^([\d.]+)(us|ms|s|m|h)$", text)
    return float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[unit]
