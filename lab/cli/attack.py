"""`lab attack`: one open-loop attack, and what became of each of its requests."""

import json
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lab import processes
from lab.errors import UsageError
from lab.files import check_writable
from lab.load.attack import Interrupted, Progress, Result, attack
from lab.load.generators import AboveCeilingWarning
from lab.load.report import Slo
from lab.progress import display
from lab.streams import tell, write_out
from lab.units import seconds

_PLAIN_EVERY_S = 10.0
"""The log of an attack does not need a line each second."""

_FILE = click.Path(path_type=Path, dir_okay=False)
_FORMATS = ("text", "json", "csv", "hist")
_OF_REPORTS = ("source", "out", "form", "slos")
"""The options that also apply to kept records; all others set up an attack."""


_SENT = click.Path(exists=True, path_type=Path, dir_okay=False)
_OF_REQUESTS = (
    click.option("--arrivals", default="constant", show_default=True, help="constant or poisson."),
    click.option("--timeout", default="30s", show_default=True, help="Counted from when a request is due."),
    click.option("--generators", default=1, show_default=True, help="Processes that share the schedule."),
    click.option("--seed", default=0, show_default=True, help="Seed of poisson arrivals."),
    click.option("--remote", is_flag=True, help="Allow a target that is not on loopback."),
    click.option("--method", default="GET", show_default=True),
    click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="May be repeated."),
    click.option("--body", type=_SENT, help="A file to send."),
    click.option("--keepalive", is_flag=True, help="Reuse connections; else each request has its own."),
    click.option("--connections", default=10_000, show_default=True, help="Most idle ones to keep."),
    click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
)


def of_requests(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is sent, how, and to whom: those of `lab.attack`."""
    for option in reversed(_OF_REQUESTS):
        command = option(command)
    return command


def request_options(headers: tuple[str, ...], body: Path | None) -> dict[str, Any]:
    """Return headers and body as `lab.attack` takes them. Raises UsageError for a malformed header."""
    return {"headers": _headers(headers), "body": body.read_bytes() if body else b""}


@click.command("attack", short_help="Send requests to a URL when they are due; report on them.")
@click.argument("url", required=False)
@click.option("--rate", help="Requests per second, such as 50, 50/s or 30/m.")
@click.option("--duration", help="How long to send, such as 30s or 1m30s.")
@of_requests
@click.option("--stages", help='Rates over time instead: "10/s for 10s, ramp to 50/s over 30s".')
@click.option("--warmup", default="0", help="Sent first at the same rate, recorded, and kept apart.")
@click.option("--in-flight", type=int, help="Most unanswered requests; waiting counts as latency.")
@click.option("--out", type=_FILE, help="Keep the records as Parquet.")
@click.option("--from", "source", type=_FILE, help="Report on kept records instead.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option(
    "--slo", "slos", multiple=True, metavar="p99=250ms", help="May be repeated; status 1 if missed."
)
def command(
    url: str | None,
    source: Path | None,
    out: Path | None,
    form: str,
    slos: tuple[str, ...],
    headers: tuple[str, ...],
    body: Path | None,
    **options: Any,
) -> int:
    """Send requests to URL when they are due, whether or not earlier ones were answered.

    The generator takes real-time priority where the system allows it, so that a busy server does not delay
    it; several take it only if there are fewer of them than CPUs. The report says whether.
    """
    objectives = Slo.parse_all(slos)
    if out:
        check_writable(out)
    if (url is None) == (source is None):
        raise UsageError("name a URL to attack, or records with --from")
    if source:
        _refuse_options_of_attacks()
        return _hand_over(Result.load(source), form, out, objectives)
    options |= request_options(headers, body)
    line = display(_PLAIN_EVERY_S)

    def show(now: Progress) -> None:
        line.show(_line(now), min(max(now.elapsed_s / now.duration_s, 0.0), 1.0))

    try:
        with warnings_as_lines(), ended_by_signals():
            result = attack(str(url), **options, on_progress=show)
    except Interrupted as interrupt:
        _hand_over(interrupt.result, form, out, [])
        raise
    finally:
        line.close()
    return _hand_over(result, form, out, objectives)


def _hand_over(result: Result, form: str, out: Path | None, objectives: list[Slo]) -> int:
    """Write what was asked for, the report even if writing the file fails; return the exit status."""
    try:
        if out:
            result.save(out)
    finally:
        write_out(_written(result, form, objectives))
    missed = [text for slo in objectives if (text := slo.missed(result.summary))]
    for text in missed:
        tell(f"lab: SLO missed: {text}")
    if not result.summary["valid"] and form != "text":
        errors = [f"{count} {text}" for text, count in list(result.summary["errors"].items())[:3]]
        tell(f"lab: do not trust this: {'; '.join([*result.summary['invalid_because'], *errors])}")
    return 1 if missed else 0


def _written(result: Result, form: str, slos: list[Slo]) -> str:
    if form == "json":
        verdicts = [slo.to_dict(result.summary) for slo in slos]
        return json.dumps(result.summary | {"slo": verdicts}, indent=2, allow_nan=False)
    if form == "csv":
        from lab.load.records import WHOLE

        return result.requests.astype(dict.fromkeys(WHOLE, "Int64")).to_csv(index=False).rstrip("\n")
    from lab.load import report as text

    return text.histogram(result.requests) if form == "hist" else text.report(result.summary, slos)


def _refuse_options_of_attacks() -> None:
    """Refuse options that set up an attack: for kept records, they would be ignored."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and option.name not in _OF_REPORTS:
            raise UsageError(f"{option.opts[0]} sets up an attack, --from reads kept records: leave one out")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print the attack's warnings as this command prints everything: in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", AboveCeilingWarning)
        warnings.showwarning = lambda message, *_: tell(f"lab: {message}")
        yield


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End an attack at these signals as at Ctrl-C, where SIGINT is ignored too (`lab attack &`)."""
    before = {number: signal.getsignal(number) for number in processes.ending_signals()}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _headers(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [text.partition(":") for text in texts]
    if bad := next((text for text, (_, colon, _) in zip(texts, pairs, strict=True) if not colon), None):
        raise UsageError(f"malformed header {bad!r}: write NAME:VALUE")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _line(now: Progress) -> str:
    ok, left_s = now.outcomes["ok"], max(0.0, now.duration_s - now.elapsed_s)
    quantiles = {"p50": now.p50_s, "p99": now.p99_s}
    parts = [
        f"{left_s:.0f} s left",
        f"{now.rate_rps:.0f}/s",
        *(f"{name} {seconds(value)}" for name, value in quantiles.items() if value is not None),
        f"ok {ok}",
        f"failed {sum(now.outcomes.values()) - ok}",
        f"in flight {now.in_flight}",
    ]
    return ", ".join(parts)
