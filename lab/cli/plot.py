"""`lab plot`: an attack's kept records, drawn over time."""

from pathlib import Path

import click

from lab import formats
from lab.errors import UsageError
from lab.load import Result

_MOST_BINS = 60


@click.command("plot")
@click.argument("records", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="An .svg, .png or .pdf; beside the records if not said."
)
@click.option("--bin", "bin_text", help="Width of a bar, as 1s; fitting if not said.")
def command(records: Path, out: Path | None, bin_text: str | None) -> None:
    """Draw what `lab attack --out` kept: throughput by outcome, latency quantiles, requests in flight."""
    out = out or records.with_suffix(".svg")
    if out.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"cannot draw {out.name}: name a file that ends in .svg, .png or .pdf")
    result = Result.load(records)
    from lab.durations import seconds
    from lab.figures.over_time import over_time as draw
    from lab.load.over_time import over_time

    bin_s = seconds(bin_text) if bin_text else _fitting(result.summary["duration_s"])
    summary = result.summary
    answered = formats.percent(summary["success"])
    title = f"{summary['url']}: {summary['rate']:g}/s {summary['arrivals']}, {answered} answered"
    draw(over_time(result.requests, bin_s), title).savefig(out)
    click.echo(out)


def _fitting(duration_s: float) -> float:
    """The smallest of 0.1, 0.2, 0.5, 1, 2, ... seconds that gives at most `_MOST_BINS` bars."""
    widths_s = (digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5))
    return next(width_s for width_s in widths_s if duration_s / width_s <= _MOST_BINS)
