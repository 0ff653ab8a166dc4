"""`lab sustained`: the highest rate that a server sustains under an SLO, as two bounds."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lab.cli.attack import ended_by_signals, of_requests, request_options, warnings_as_lines
from lab.flags import in_words
from lab.progress import display
from lab.streams import tell, write_out
from lab.study.rate_search import BACKLOG, RateTrial
from lab.study.sustained import STEADY, Interrupted, Sustained, sustained
from lab.units import bounds, counted, per_second, percent, seconds

_USUAL_TRIALS = 12
"""Of a search, in the median: what the bar on a terminal counts on."""


@click.command("sustained", short_help="Find the highest rate that a server sustains.")
@click.argument("url")
@click.option(
    "--slo", "slos", multiple=True, metavar="p99=250ms", default=("p99=250ms",), show_default=True,
    help="What every request, or nearly, must get; may be repeated.",
)  # fmt: skip
@click.option("--precision", default="5%", show_default=True, help="How far apart the bounds may be.")
@click.option("--duration", default="3s", show_default=True, help="Of each trial.")
@click.option("--max-rate", metavar="R", help="Stop at this rate, even if it is sustained.")
@of_requests
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
def command(
    url: str,
    slos: tuple[str, ...],
    precision: str,
    form: str,
    headers: tuple[str, ...],
    body: Path | None,
    **options: Any,
) -> int:
    """Find the highest rate that the server at URL sustains.

    A rate is sustained if its trials meet the SLO and their latency does not grow. Status 1 if no rate is.
    """
    line = display()

    def show(trial: RateTrial, trials: Sequence[RateTrial]) -> None:
        verdict = "is not believed" if trial.flags else "held" if trial.good else "is too much"
        line.show(f"trial {len(trials)}: {per_second(trial.rate)} {verdict}", _share(len(trials)))

    try:
        with warnings_as_lines(), ended_by_signals():
            found = sustained(
                url, slo=slos, precision=precision, on_trial=show,  # type: ignore[arg-type]
                **options, **request_options(headers, body),
            )  # fmt: skip
    except Interrupted as interrupt:
        if interrupt.found.trials:
            _hand_over(interrupt.found, form)
        raise
    finally:
        line.close()
    return _hand_over(found, form)


def _hand_over(found: Sustained, form: str) -> int:
    write_out(json.dumps(found.to_dict(), indent=2, allow_nan=False) if form == "json" else _text(found))
    if found.reason:
        tell(f"lab: {found.reason}")
    return 0 if found.held_rps is not None else 1


def _share(trials: int) -> float:
    return trials / (trials + _USUAL_TRIALS / 2)


def _text(found: Sustained) -> str:
    rows = {
        "Sustained": f"{bounds(found.lower_rps, found.upper_rps, per_second)} ({found.arrivals} arrivals)",
        "SLO": ", ".join(map(str, found.slos)),
        "Own limit": _own_limit(found),
        **({"Latency": f"{STEADY} (steady); beside it is what clients got"} if found.steady else {}),
        "Trials": _counts(found),
    }
    if found.requests_wanting:
        lack = f"trials at the lower bound lack {found.requests_wanting} requests to tell their percentiles"
        rows["Beware"] = f"{lack}: use --duration {math.ceil(found.enough_s)}s"
    head = [f"{label:<11}{value}" for label, value in rows.items()]
    return "\n".join([*head, "", *_table(found)])


def _own_limit(found: Sustained) -> str:
    if found.held_rps is not None and found.limit_rps is not None:
        return f"about {per_second(found.limit_rps)}; sustained: {bounds(*found.shares, percent)} of it"
    if found.held_rps is None and any(trial.share_of_limit is not None for trial in found.trials):
        return "no share of it, as no rate was sustained"
    return "unknown: the server does not say its service times and its workers"


def _counts(found: Sustained) -> str:
    flagged = sum(bool(trial.flags) for trial in found.trials)
    text = f"{counted(len(found.trials), 'trial')}, {flagged} flagged"
    if found.consistent:
        return text
    if not found.steady:
        return f"{text}; they contradict each other"
    advice = "" if found.held_rps is None else ": trust the share of the own limit, not the rate"
    return f"{text}; the machine's speed changed{advice}"


def _table(found: Sustained) -> list[str]:
    """Return a line for each trial: what counted of its latency, and beside it, what clients got."""
    names = [slo.name for slo in found.slos if slo.name != "success"] or ["p99"]
    kinds = {"steady_s": "steady ", "latency_s": ""} if found.steady else {"latency_s": ""}
    heads = [f"{kind}{name}" for name in names for kind in kinds.values()]
    rows = [("rate", "answered", "of own limit", *heads, "")]
    for trial in found.trials:
        rows.append(
            (
                per_second(trial.rate),
                per_second(trial.throughput),
                "-" if trial.utilisation is None else percent(trial.utilisation),
                *(_latency(getattr(trial, kind), name) for name in names for kind in kinds),
                f"flagged: {in_words(trial.flags)}" if trial.flags
                else "held" if trial.good else f"missed: {', '.join(map(_missed, trial.missed))}",
            )
        )  # fmt: skip
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]


def _missed(name: str) -> str:
    return "latency grows" if name == BACKLOG else name


def _latency(latency_s: Mapping[str, float | None], name: str) -> str:
    value = latency_s[name]
    return "-" if value is None else seconds(value)
