"""The last seconds of a load: reports in, numbers out."""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace

import numpy as np

from lab.load.live import Report, Row

RATE_OVER_S = 2.0
"""Rates are of so many seconds: shorter would jump, longer would lag."""

LATENCY_OVER_S = 1.0
LEAST_ANSWERS = 100
"""Percentiles are of the last second, or of so many answers if it had fewer: the p99 needs them."""

KEPT_S = 10.0
"""What ended longer ago no longer counts in any case."""

_GOOD = "ok"


@dataclass(frozen=True)
class Numbers:
    """What was measured lately; None where there is nothing to measure.

    offered_rps, throughput_rps, failed_rps: requests due, answered well, and failed, per second of
    `RATE_OVER_S`. answers: how many the rest is about. p50_s, p99_s: their latency, from the due time;
    requests that have waited longer than any of them took count with their age. in_flight: due but not ended.
    service_s, service_cpu_s: the mean time of a loop in the last `KEPT_S`, on the clock and of a CPU.
    lag_p99_s: how late requests left, the generator's own fault. by_worker: answers by pid. failures: how
    many ended in which other way.
    """

    offered_rps: float
    throughput_rps: float
    failed_rps: float
    answers: int
    p50_s: float | None
    p99_s: float | None
    in_flight: int
    service_s: float | None
    service_cpu_s: float | None
    lag_p99_s: float | None
    by_worker: dict[int, int]
    failures: dict[str, int]


class Window:
    """The requests of the last `KEPT_S`, and those that wait.

    due, outcomes, loops_s: since the start, how many fell due, what became of them, and by worker, how long
    the loops took that it answered.
    """

    def __init__(self) -> None:
        self.due = 0
        self.outcomes: Counter[str] = Counter()
        self.loops_s: defaultdict[int, float] = defaultdict(float)
        self._rows: deque[Row] = deque()
        self._dues: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._last = Report(0.0, 0, [], 0, [])

    @property
    def now_s(self) -> float:
        """When it was last added to, in seconds from the start."""
        return self._last.now_s

    def add(self, report: Report) -> None:
        """Take a report in, and forget what is too old."""
        self._last = report
        self.due = report.due
        self.outcomes.update(row.outcome for row in report.rows)
        for row in report.rows:
            self.loops_s[row.worker] += row.service_s or 0.0
        self._rows.extend(report.rows)
        self._dues.append((report.now_s, report.due))
        while self._rows and (self._rows[0].end_s or 0.0) < report.now_s - KEPT_S:
            self._rows.popleft()
        while self._dues[0][0] < report.now_s - KEPT_S:
            self._dues.popleft()

    def numbers(self) -> Numbers:
        """Return what the last seconds show."""
        now_s = self.now_s
        over_s = max(min(RATE_OVER_S, now_s), 1e-9)
        ended = [row for row in self._rows if _ended_s(row) > now_s - over_s]
        ways = Counter(row.outcome for row in ended)
        good = ways.pop(_GOOD, 0)
        answers = self._answers()
        latencies_s = [_ended_s(row) - row.due_s for row in answers]
        longest_s = max(latencies_s, default=0.0)
        latencies_s += [age_s for due_s in self._last.waiting_due_s if (age_s := now_s - due_s) > longest_s]
        return Numbers(
            offered_rps=(self.due - self._due_by(now_s - over_s)) / over_s,
            throughput_rps=good / over_s,
            failed_rps=ways.total() / over_s,
            answers=len(answers),
            p50_s=_percentile(latencies_s, 50),
            p99_s=_percentile(latencies_s, 99),
            in_flight=self._last.waiting,
            service_s=_mean([row.service_s for row in self._rows]),
            service_cpu_s=_mean([row.service_cpu_s for row in self._rows]),
            lag_p99_s=_percentile([row.sent_s - row.due_s for row in answers if row.sent_s is not None], 99),
            by_worker=dict(Counter(row.worker for row in answers if row.worker)),
            failures=dict(ways),
        )

    def recent(self, over_s: float, most: int) -> Report:
        """Return the last report as if it were of `over_s`; it lists at most so many requests in all."""
        ended = [row for row in self._rows if _ended_s(row) > self.now_s - over_s]
        waiting = self._last.waiting_due_s[:most]
        rows = ended[max(0, len(ended) + len(waiting) - most) :]
        return replace(self._last, rows=rows, waiting_due_s=waiting)

    def _answers(self) -> list[Row]:
        found: list[Row] = []
        for row in reversed(self._rows):
            if _ended_s(row) < self.now_s - LATENCY_OVER_S and len(found) >= LEAST_ANSWERS:
                break
            if row.outcome == _GOOD:
                found.append(row)
        return found

    def _due_by(self, at_s: float) -> float:
        times_s, counts = zip(*self._dues, strict=True)
        return float(np.interp(at_s, times_s, counts))


def _ended_s(row: Row) -> float:
    return row.end_s or 0.0


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
