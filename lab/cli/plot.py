"""`lab plot`: an attack's kept records, drawn over time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lab import units
from lab.errors import UsageError, one_line
from lab.files import check_writable, write_whole
from lab.flags import Flag
from lab.load.attack import Result
from lab.streams import write_out

if TYPE_CHECKING:
    import pandas as pd

_MOST_BINS = 60
_SHORTEST_S = 0.1
_FEWEST_PER_BIN = 10
"""With fewer requests in a bar, a constant rate would look like a comb."""
_MOST_SAID_BINS = 1000
_KEEPS_UP = 0.98
"""Below this share of the rate, the rate of good answers is worth mentioning."""
_KINDS = (".svg", ".png", ".pdf")


@click.command("plot", short_help="Draw what `lab attack --out` kept.")
@click.argument("records", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An .svg, .png or .pdf; by default, beside the records.",
)
@click.option("--bin", "bin_text", help="Width of a bar, such as 1s; by default, one that fits.")
def command(records: Path, out: Path | None, bin_text: str | None) -> None:
    """Draw what `lab attack --out` kept: throughput by outcome, latency, requests in flight.

    Few requests are dots, each where it was due; many are a heat map, with a lane for each worker.
    """
    out = out or records.with_suffix(".svg")
    if out.suffix not in _KINDS:
        raise UsageError(f"cannot draw {out.name}: name a file that ends in .svg, .png or .pdf")
    check_writable(out)
    result = Result.load(records)
    from lab.figures import rendered, timeline
    from lab.load.summary import over_time
    from lab.units import parse_duration

    stopped_s = result.summary["stopped_s"]
    requests = _offered(result.requests, stopped_s)
    drawn_s = result.summary["duration_s"] if stopped_s is None else max(stopped_s, _SHORTEST_S)
    bin_s = parse_duration(bin_text) if bin_text else _fitting(drawn_s, len(requests))
    if drawn_s / bin_s > _MOST_SAID_BINS:
        raise UsageError(f"a bin of {bin_text} makes over {_MOST_SAID_BINS:,} bars: use a wider one")
    url = one_line(result.summary["url"])
    rows = over_time(requests, bin_s)
    figure = timeline.over_time(rows, requests, _title(result.summary), stopped_s, subtitle=url)
    write_whole(out, rendered(figure, out.suffix[1:]))
    write_out(str(out))


def _offered(requests: "pd.DataFrame", stopped_s: float | None) -> "pd.DataFrame":
    """Return what had fallen due when an attack was interrupted: the rest of the plan was not measured."""
    if stopped_s is None:
        return requests
    return requests[(requests["due_s"] <= stopped_s) | (requests.index == 0)]


def _title(summary: dict[str, Any]) -> str:
    """The result in a line: what was sent, what became of it, and how long the slowest took."""
    sent_rps, answered_rps, p99_s = summary["sent_rate"], summary["throughput"], summary["latency_s"]["p99"]
    not_sent, unanswered = summary["outcomes"]["dropped"], summary["outcomes"]["unfinished"]
    failed = summary["planned"] - summary["ok"] - not_sent - unanswered
    parts = [f"{units.per_second(sent_rps)} sent"]
    if answered_rps < _KEEPS_UP * sent_rps:
        parts.append(f"{units.per_second(answered_rps)} answered well")
    amiss = {"failed": failed, "unanswered": unanswered, "not sent": not_sent}
    told = [f"{units.counted(count, 'request')} {word}" for word, count in amiss.items() if count]
    parts += told or ["all answered well"]
    if p99_s is not None:
        parts.append(f"p99 {units.seconds(p99_s)}")
    return _caveat(summary) + ", ".join(parts)


def _caveat(summary: dict[str, Any]) -> str:
    """What a reader must know first: that the numbers cover only a part, or cannot be believed."""
    if summary["valid"]:
        return ""
    if summary["stopped_s"] is None:
        return "Not valid: "
    interruption, *others = summary["flags"]
    return f"{str(Flag.from_dict(interruption)).capitalize()}{', not valid' if others else ''}: "


def _fitting(duration_s: float, count: int) -> float:
    """The smallest of 0.1, 0.2, 0.5, 1, 2, ... s that gives at most `_MOST_BINS` bars, each of enough."""
    bars = min(_MOST_BINS, max(1.0, count / _FEWEST_PER_BIN))
    widths_s = (digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5))
    return next(width_s for width_s in widths_s if duration_s / width_s <= bars)
