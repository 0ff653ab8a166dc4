"""The advice on workers in words: two sentences from the numbers that `lab.models.sizing` judged."""

from collections.abc import Sequence

from lab.models.sizing import FULL, Limit, Sized, Verdict
from lab.units import bounds, counted, digits, per_second, percent, seconds

_MIB = 2**20


def in_words(found: Verdict, rows: Sequence[Sized], cpus: float, memory_bytes: float) -> str:
    """Return two sentences: how many workers and why so many, and what limits the server with them."""
    if rows[0].workers is None:
        return (
            f"{_sustains('The running server', rows[0])}. {_limit(found, rows[0], rows, cpus, memory_bytes)}."
        )
    chosen = next((row for row in rows if row.workers == found.workers), None)
    if chosen is None:
        return f"No number of workers can be recommended. {_none(found, rows, cpus, memory_bytes)}."
    return f"{_chosen(chosen, rows, cpus)}. {_limit(found, chosen, rows, cpus, memory_bytes)}."


def memory(value_bytes: float) -> str:
    """Write an amount of memory: 38.2 MiB, 2.10 GiB."""
    if value_bytes >= 1024 * _MIB:
        return f"{digits(value_bytes / _MIB / 1024)} GiB"
    return f"{digits(value_bytes / _MIB)} MiB" if value_bytes >= _MIB else f"{digits(value_bytes / 1024)} KiB"


def _sustains(who: str, row: Sized) -> str:
    if not row.lower_rps and not row.upper_rps:
        return f"{who} sustains no rate that could be told"
    return f"{who} sustains {bounds(row.lower_rps, row.upper_rps, per_second)}"


def _chosen(chosen: Sized, rows: Sequence[Sized], cpus: float) -> str:
    size = counted(chosen.workers or 0, "worker")
    verb = "sustains" if chosen.workers == 1 else "sustain"
    pronoun = "it" if chosen.workers == 1 else "they"
    rate = bounds(chosen.lower_rps, chosen.upper_rps, per_second)
    head = f"Take {size}: {pronoun} {verb} {rate}"
    fewer = [row for row in rows if (row.workers or 0) < (chosen.workers or 0)]
    larger = [row for row in rows if (row.workers or 0) > (chosen.workers or 0)]
    more = [row for row in larger if row.lower_rps]
    more_than = ", more than fewer do" if fewer else ""
    if more:
        beside = _beside([chosen, *more], cpus)
        return f"{head}{more_than}; {_counts(more)} sustain no more, as far as can be told{beside}"
    if larger:
        return f"{head}{more_than}; what {_counts(larger)} sustain was not found"
    return f"{head}{more_than}; {'more were not' if fewer else 'no other number was'} measured"


def _beside(rows: Sequence[Sized], cpus: float) -> str:
    """Say what others used if it lowered one of these rates."""
    most = max((row.others_cpu or 0.0 for row in rows if row.crowded(cpus)), default=None)
    return f" beside others that used up to {percent(most)} of the CPU time" if most else ""


def _counts(rows: Sequence[Sized]) -> str:
    *first, last = [str(row.workers) for row in rows]
    return f"{', '.join(first)} or {last}" if first else last


def _none(found: Verdict, rows: Sequence[Sized], cpus: float, memory_bytes: float) -> str:
    if found.limit == Limit.ERRORS:
        return _failing([row for row in rows if row.low_failures])
    if found.limit == Limit.MEMORY:
        leaking = [row for row in rows if row.leaks(memory_bytes)]
        return _leaking(leaking[0]) if leaking else _too_big(min(rows, key=Sized.memory_bytes), memory_bytes)
    if beside := _beside(rows, cpus):
        return f"Whether more workers sustain more could not be told{beside}"
    reason = next((row.reason for row in rows if row.reason), "no rate was found")
    return f"With {counted(rows[0].workers or 0, 'worker')}, {reason}"


def _limit(found: Verdict, row: Sized, rows: Sequence[Sized], cpus: float, memory_bytes: float) -> str:
    if found.limit == Limit.ERRORS:
        return _failing([one for one in rows if (one.workers or 0) <= (row.workers or 0)])
    if found.limit == Limit.MEMORY:
        return _leaking(row) if row.leaks(memory_bytes) else _too_big(rows[-1], memory_bytes)
    if found.limit == Limit.GENERATOR:
        return f"The load generator limits it, not the server: {row.reason or 'it uses more CPU time'}"
    if found.ignores_workers:
        return (
            f"However many workers it is told to have, it has as many processes ({row.processes}), so it may "
            "ignore WEB_CONCURRENCY, and its command lack {workers}"
        )
    if found.limit in _WORDS:
        return _WORDS[found.limit](found, row, rows, cpus)
    return f"What limits it could not be told{': ' + row.reason if row.reason else _unused(row, cpus)}"


def _cpu(found: Verdict, row: Sized, rows: Sequence[Sized], cpus: float) -> str:
    cost = seconds(row.cpu_s_per_request or 0.0)
    if (row.busy(cpus) or 0.0) < FULL:
        return (
            f"The CPU limits it: each request takes {cost} of CPU, so {counted(row.workers or 0, 'worker')} "
            f"cannot do more, though there are {_cpus(cpus)}"
        )
    if row.crowded(cpus):
        others = percent(row.others_cpu or 0.0)
        return (
            f"The CPUs limit it: each request takes {cost} of CPU, and others used {others} of {_cpus(cpus)}"
        )
    return (
        f"The CPUs limit it: each request takes {cost} of CPU, which with the load generator's fills "
        f"{percent(row.used(cpus) or 0.0)} of {_cpus(cpus)}"
    )


def _waiting(found: Verdict, row: Sized, rows: Sequence[Sized], cpus: float) -> str:
    head = (
        f"Waiting limits it: a request takes {seconds(row.alone_s or 0.0)}, but only "
        f"{seconds(row.cpu_s_per_request or 0.0)} of CPU"
    )
    if found.beyond is None:
        return f"{head}, so more workers or threads than CPUs help"
    return f"{head}, so workers or threads help until about {found.beyond:,} requests run at once"


def _uneven(found: Verdict, row: Sized, rows: Sequence[Sized], cpus: float) -> str:
    worst = max(
        (one for one in rows if one.busiest_share and (one.workers or 0) > 1),
        key=lambda one: (one.busiest_share or 0.0) * (one.workers or 0),
    )
    return (
        f"An uneven share limits it: with {worst.workers} workers, the busiest one does "
        f"{percent(worst.busiest_share or 0.0)} of the work, where {percent(1 / (worst.workers or 1))} "
        "would be its share"
    )


def _lock(found: Verdict, row: Sized, rows: Sequence[Sized], cpus: float) -> str:
    workers = rows[-1].workers or 0
    return (
        "Something that all workers wait for limits it, such as a lock or another server: of "
        f"{workers} workers, about {(rows[-1].occupied() or 0.0) * workers:.1f} have a request at a time"
    )


_WORDS = {Limit.CPU: _cpu, Limit.WAITING: _waiting, Limit.UNEVEN: _uneven, Limit.LOCK: _lock}


def _failing(rows: Sequence[Sized]) -> str:
    requests = sum(row.low_requests for row in rows)
    share = percent(sum(row.low_failures for row in rows) / max(1, requests))
    return (
        f"Errors limit it: {share} of {counted(requests, 'request')} failed at rates well below "
        "the highest throughput"
    )


def _leaking(row: Sized) -> str:
    grows = memory(1000 * (row.leak_bytes_per_request or 0.0))
    return f"Memory limits it: 1,000 requests leave {grows} behind"


def _too_big(row: Sized, memory_bytes: float) -> str:
    return (
        f"Memory limits it: {counted(row.workers or 0, 'worker')} of "
        f"{memory(row.pss_bytes_per_worker or 0.0)} each do not fit into the free {memory(memory_bytes)}"
    )


def _unused(row: Sized, cpus: float) -> str:
    busy = row.busy(cpus)
    return "" if busy is None else f", though {percent(max(0.0, 1 - busy))} of the CPU time is left"


def _cpus(cpus: float) -> str:
    return counted(cpus, "CPU")
