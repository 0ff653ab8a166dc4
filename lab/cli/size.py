"""`lab size`: how many workers the reader's own server needs, and what limits it."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lab.cli.attack import ended_by_signals, of_requests, request_options, warnings_as_lines
from lab.errors import LabError, UsageError
from lab.experiments import your_server
from lab.streams import tell, write_out
from lab.study.run import Run
from lab.study.runs import open_run
from lab.study.size import Interrupted, Size, size
from lab.study.size_plan import Plan
from lab.units import clock, counted, parse_duration, parse_share

NOTEBOOK = "10-your-server"
_PROFILE = "size"


@click.command(
    "size",
    short_help="Say how many workers your own server needs.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--slo", "slos", multiple=True, metavar="p99=250ms", default=("p99=250ms",), show_default=True,
    help="What every request, or nearly, must get; may be repeated.",
)  # fmt: skip
@click.option("--path", default="/", show_default=True, help="What is requested.")
@click.option("--ready-path", default="", help="What answers once the server is ready, if not the path.")
@click.option("--workers", metavar="1,2,4", help="Numbers to measure; by default 1 to twice the CPUs.")
@click.option("--duration", default="1.5s", show_default=True, help="Of each trial.")
@click.option("--precision", default="10%", show_default=True, help="How far apart the bounds may be.")
@click.option(
    "--start-timeout", default="30s", show_default=True, help="How long the server may take to start."
)
@click.option("--url", default="", help="A running server instead of a command: its sustained rate alone.")
@of_requests
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD...")
def command(
    slos: tuple[str, ...],
    path: str,
    ready_path: str,
    workers: str | None,
    duration: str,
    precision: str,
    start_timeout: str,
    url: str,
    form: str,
    cmd: tuple[str, ...],
    headers: tuple[str, ...],
    body: Path | None,
    **options: Any,
) -> int:
    """Say how many workers the server that CMD starts needs, and what limits it.

    CMD listens where {host} and {port}, or HOST and PORT in its environment, say; {workers} or
    WEB_CONCURRENCY says how many workers to have. It is started anew with each number of workers, and
    measured: its sustained rate, its latency at half and at .8 of that (with random arrivals), CPU time per
    request, memory. With --url, the rate of a server that is already running.

    Everything is kept in a run, with a report. Status 1 if there is no such number, or rate.
    """
    if url and (path != "/" or ready_path):
        raise UsageError("the --url of a running server names the path: leave out --path and --ready-path")
    plan = Plan(
        command=cmd, url=url, path=path, ready_path=ready_path, workers=_counts(workers), slo=slos,
        duration_s=parse_duration(duration), precision=parse_share(precision),
        start_timeout_s=parse_duration(start_timeout), request=options | request_options(headers, body),
    )  # fmt: skip
    kept = your_server.as_parameters(plan)
    run = open_run(profile=_PROFILE, notebooks=[NOTEBOOK], parameters={NOTEBOOK: kept})
    tell(f"run {run.run_id}: {_what(plan)}, about {clock(plan.lasts_s())} in all; {run.manifest.machine}")
    try:
        with warnings_as_lines(), ended_by_signals():
            found = size(plan, run)
    except Interrupted as interrupt:
        _hand_over(interrupt.found, form)
        raise
    except (KeyboardInterrupt, LabError):
        _forget_if_empty(run)
        raise
    status = _hand_over(found, form)
    tell(f"report: {_report(run, kept)}")
    return status


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise UsageError(f"malformed --workers {text!r}: write numbers such as 1,2,4") from None
    if text is not None and min(counts) < 1:
        raise UsageError(f"--workers must be at least 1 each, got {text}")
    return counts


def _report(run: Run, kept: dict[str, Any]) -> Path:
    """Execute the notebook on what was measured; return the report. Raises LabError if that fails."""
    from lab.cli.execute import execute  # takes a second to import, in which a wrong command is told
    from lab.report import write_report

    failure = execute(NOTEBOOK, run.path / "notebooks" / f"{NOTEBOOK}.ipynb", kept | {"run": run.run_id})
    report = write_report(run.run_id, to_come=())
    if failure:
        raise LabError(f"the report is not whole: {failure}")
    run.seal()
    return report


def _forget_if_empty(run: Run) -> None:
    """Delete a run in which nothing was measured: the server did not start, say."""
    if not any(run.path.rglob("*.parquet")):
        shutil.rmtree(run.path, ignore_errors=True)


def _what(plan: Plan) -> str:
    if plan.url:
        return f"the server at {plan.url}"
    *fewer, most = plan.counts()
    counts = f"{', '.join(map(str, fewer))} and {most} workers" if fewer else counted(most or 0, "worker")
    return f"{shlex.join(plan.command)} with {counts}"


def _hand_over(found: Size, form: str) -> int:
    write_out(json.dumps(found.to_dict(), indent=2, allow_nan=False) if form == "json" else _text(found))
    told = found.rows[0].lower_rps if found.plan.url else found.verdict.workers
    return 0 if told else 1


def _text(found: Size) -> str:
    rows = your_server.table(found)
    lines = [list(rows.columns), *rows.astype(str).to_numpy().tolist()]
    notes = your_server.notes(found)
    slo = ", ".join(str(slo) for slo in found.slos)
    return "\n".join([found.why, "", f"SLO: {slo}", "", *_aligned(lines), *([""] if notes else []), *notes])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
