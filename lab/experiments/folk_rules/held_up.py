"""Whom a slow request holds up: others while a worker is free, and others that need no computing at all."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import units
from lab.experiments.claims import Word
from lab.experiments.dispatch.answer import tail_name
from lab.experiments.failures import answer as failures_answer
from lab.experiments.failures import trials as failures
from lab.experiments.failures.trials import BLOCK
from lab.experiments.folk_rules import trials as planned
from lab.experiments.folk_rules.rules import (
    EXPERIMENT,
    HELD_UP,
    Parameters,
    Ruling,
    by_trials,
    exceeds,
    lead,
    measured,
    nothing,
    times,
    told,
    verdict,
    with_tail,
    written,
)
from lab.experiments.folk_rules.trials import ALONE, BESIDE, CLUSTER, INLINE, POOL, THREAD
from lab.experiments.other_servers.analysis import against, estimated
from lab.figures import (
    HALO,
    INK,
    QUIET,
    SERVERS,
    SMALL,
    Look,
    canvas,
    plain_log_ticks,
    reference_line,
    server_look,
)
from lab.models.statistics import Estimate
from lab.study.run import Run

_WAITED = failures_answer.MEASURES[BLOCK][0]
"""Of the requests due while a worker was blocked, the share that had to wait for it."""


def events(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Return a row per slow request among quick ones (`failures.events`), and which are notebook 06's, or "".

    Those that it has with new connections are taken; the dispatches that it lacks are measured as it would.
    """
    if not p.asks("slow"):
        return pd.DataFrame(), ""
    known = blocks(run, run.trials(failures.EXPERIMENT))
    taken = [*known.loc[known["kind"] == BLOCK, "dispatch"].unique()] if len(known) else []
    found = [known]
    if missing := tuple(one for one in p.dispatches if one not in taken):
        wanted = planned.slow_ones(p.model_copy(update={"dispatches": missing}))
        trials = run.measure(EXPERIMENT, wanted, blocks=1, seed=p.seed, execute=failures.EXECUTE)
        found.append(blocks(run, trials))
    source = f"The events of {', '.join(taken)} are notebook 06's." if taken else ""
    return measured(*found), source


def blocks(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Return the slow requests that trials with new connections met, and the calm before them."""
    new = trials[~trials["keepalive"].astype(bool)]
    if new.empty:
        return new
    found = failures.events(new, run.requests(new), run.events(new))
    met = (found["kind"] == BLOCK) & (found["due"] > 0)
    return found[met | (found["kind"] == failures.CALM)].reset_index(drop=True)


def slow_ruling(events: pd.DataFrame, source: str = "") -> Ruling:
    """Judge by each dispatch whether a slow request holds up others, as notebook 06 judges its claim 5."""
    if events.empty:
        return nothing("slow")
    judged = [one for one in failures_answer.verdicts(events) if one.number == 5 and one.evidence]
    if not judged:
        return nothing("slow", "no request was due while a slow one ran")
    parts = [{Word.HOLDS: True, Word.NOT_HERE: False}.get(one.word) for one in judged]
    waited = {dispatch: mine for dispatch, _, mine, _ in failures_answer.servers(events, BLOCK)}
    shares = [
        f"{dispatch}: {told(_WAITED.found(mine), _waiting(mine), units.in_percent, **_by(dispatch, mine))}"
        f" in {units.counted(len(mine), 'event')}"
        for dispatch, mine in waited.items()
    ]
    meanwhile = "Of the requests due meanwhile, this share waited for the slow one, in the median event"
    found = verdict("slow", parts, "; ".join(f"{one.about}: {one.evidence}" for one in judged))
    trials, flagged = (sum(getattr(one, name) for one in judged) for name in ("trials", "flagged"))
    found = replace(found, trials=trials, flagged=flagged)
    text = f"{meanwhile}: {'; '.join(shares)}.".replace("block", "event")
    return Ruling("slow", text, found, source, _most(waited))


def _most(waited: Mapping[str, pd.DataFrame]) -> str:
    """Say by which dispatch most waited, and how many."""
    known = [(one.value, dispatch) for dispatch, mine in waited.items() if (one := _WAITED.found(mine))]
    if not known:
        return ""
    dispatch = max(known)[1]
    mine = waited[dispatch]
    share = lead(_WAITED.found(mine), _waiting(mine), units.in_percent, **_by(dispatch, mine))
    return f"up to {share} wait, by {dispatch}"


WAITING = f"slow request: {_WAITED.quantity}"
"""The share that waited, as an estimate of the dispatches that notebook 06 did not measure."""


def _waiting(mine: pd.DataFrame) -> str:
    return f"{BLOCK}: {_WAITED.quantity}" if _are_of_06(mine) else WAITING


def _by(dispatch: str, mine: pd.DataFrame) -> dict[str, str]:
    return {"dispatch": dispatch} | ({"connections": "new"} if _are_of_06(mine) else {})


def _are_of_06(mine: pd.DataFrame) -> bool:
    return str(mine["trial_id"].iloc[0]).startswith(f"{failures.EXPERIMENT}.")


def slow_table(events: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what a slow request cost the others, a column per dispatch."""
    return failures_answer.table(events, BLOCK)


def beside(run: Run, p: Parameters) -> pd.DataFrame:
    """Return the trials of quick requests beside a CPU-heavy one, with their tails (`rules.with_tail`)."""
    if not p.asks("pool"):
        return pd.DataFrame()
    return with_tail(planned.measure(run, p, planned.beside(p), planned.beside_slow))


def pool_ruling(trials: pd.DataFrame) -> Ruling:
    """Judge where a CPU-heavy request holds up the others: their tail, over that beside the pool."""
    if trials.empty:
        return nothing("pool")

    def judge(mine: pd.DataFrame) -> tuple[list[bool | None], str]:
        inline, thread = (against(mine, place, POOL, BESIDE, "tail_s") for place in (INLINE, THREAD))
        if inline is None or thread is None:
            return [], ""
        over = {"over": POOL}
        said = f"in the event loop {times(inline, tail_beside_over(trials), server=INLINE, **over)},"
        said += f" in a thread {times(thread, tail_beside_over(trials), server=THREAD, **over)}"
        return [exceeds(inline, HELD_UP), exceeds(thread, HELD_UP)], said

    found = by_trials("pool", trials, judge)
    if not found.evidence:
        return nothing("pool", "no block has all of the places")
    pool = told(tail_of(trials, POOL), tail_beside(trials), units.in_seconds, server=POOL)
    over = tail_beside_over(trials)
    control = times(against(trials, POOL, ALONE, BESIDE, "tail_s"), over, server=POOL, over=ALONE)
    without = f", {control} what it is without any slow request" if ALONE in set(trials["server"]) else ""
    inline, thread = (
        lead(against(trials, place, POOL, BESIDE, "tail_s"), over, server=place, over=POOL)
        for place in (INLINE, THREAD)
    )
    return Ruling(
        "pool",
        f"Beside the pool, the {tail_name(trials)} of the others is {pool}{without}; with the slow request"
        f" {found.evidence} as long.",
        found,
        number=f"{inline} and {thread} times the {tail_name(trials)}",
    )


def tail_beside(trials: pd.DataFrame) -> str:
    """Name the tail of quick requests, as an estimate."""
    return f"{tail_name(trials)} beside a slow request"


def tail_beside_over(trials: pd.DataFrame) -> str:
    """Name the ratio of such tails, as an estimate."""
    return f"{tail_beside(trials)}, over another place's"


def tail_of(trials: pd.DataFrame, place: str) -> Estimate | None:
    """Return the tail of quick requests while the slow one runs in this place, in seconds."""
    return estimated(trials.loc[trials["server"] == place, "tail_s"])


def pool_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the others' latency by the place where the CPU-heavy request runs."""
    if trials.empty:
        return pd.DataFrame({"": ["not measured"]})
    return pd.DataFrame(
        {
            "the slow request runs in": "(there is none)" if place == ALONE else place,
            "p50 of the others": written(estimated(mine["latency_p50_s"]), units.in_seconds),
            f"{tail_name(trials)} of the others": written(tail_of(trials, place), units.in_seconds),
            "slowest": written(estimated(mine["latency_max_s"]), units.in_seconds),
            "over the pool's": (
                "the reference" if place == POOL else times(against(trials, place, POOL, BESIDE, "tail_s"))
            ),
        }
        for place in (ALONE, INLINE, THREAD, POOL, CLUSTER)
        if len(mine := trials[trials["server"] == place])
    )


def figure(events: pd.DataFrame, trials: pd.DataFrame) -> Figure | None:
    """Draw who waits for a slow request, by dispatch, and the tail beside one, by where it runs."""
    if events.empty and trials.empty:
        return None
    panels = (len(events) > 0) + (len(trials) > 0)
    with canvas(_title(events, trials), rows=panels, height=2.5 * panels) as (figure, axes):
        if len(events):
            _draw_waiting(axes[0], events)
        if len(trials):
            _draw_tails(axes[-1], trials)
        for one in axes:
            one.grid(visible=False, axis="y")
    return figure


def _title(events: pd.DataFrame, trials: pd.DataFrame) -> str:
    word = pool_ruling(trials).verdict.word if len(trials) else Word.UNTOLD
    if word is Word.HOLDS:
        return "In the event loop or in a thread, a slow request holds up the others"
    return "Whom does a slow request hold up?"


def _draw_waiting(axes: Axes, events: pd.DataFrame) -> None:
    """Draw the share that waited, of each event and in the median, least first."""
    found = {name: (mine, _WAITED.found(mine)) for name, _, mine, _ in failures_answer.servers(events, BLOCK)}
    known = {name: (mine, one) for name, (mine, one) in found.items() if one}
    order = sorted(known, key=lambda name: known[name][1].value)
    for height, name in enumerate(order):
        mine, one = known[name]
        axes.plot(
            100 * mine["waited"] / mine["due"],
            [height] * len(mine),
            ".",
            color=server_look(name).color,
            alpha=0.6,
        )
        _dot(axes, height, one, 100.0, server_look(name))
    reference_line(axes, x=100 * failures_answer.MOST_WAITING, text="a tenth")
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(-3, max(40.0, axes.get_xlim()[1]))
    axes.set_title("Other workers are free: who waits?")
    axes.set_xlabel("share of the requests due meanwhile, %")


def _draw_tails(axes: Axes, trials: pd.DataFrame) -> None:
    """Draw the tail of requests that need no loop, by where the slow one runs."""
    places = [place for place in (ALONE, POOL, CLUSTER, THREAD, INLINE) if place in set(trials["server"])]
    for height, place in enumerate(places):
        mine = trials[trials["server"] == place]
        axes.plot(1000 * mine["tail_s"], [height] * len(mine), ".", color=_PLACE.color, alpha=0.5)
        if one := tail_of(trials, place):
            _dot(axes, height, one, 1000.0, _PLACE)
            axes.annotate(
                units.seconds(one.value), (1000 * one.value, height), xytext=(0, 8), ha="center",
                textcoords="offset points", fontsize=SMALL, bbox=HALO,
            )  # fmt: skip
    beside = trials[trials["blocking"] > 0]
    slow_s = float((beside["blocking"] * beside["loop_s"]).median())
    axes.axvline(1000 * slow_s, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(places)), [f"{_ARTICLE[place]}{place}" for place in places])
    axes.set_ylim(len(places) - 0.4, -0.7)
    axes.set_title("A CPU-heavy request runs ...")
    others = f"{tail_name(trials)} of others that compute nothing, ms"
    axes.set_xlabel(f"{others}\n(dashed: what the slow one takes)")


_ARTICLE = {ALONE: "", INLINE: "in the ", THREAD: "in a ", POOL: "in a ", CLUSTER: "in a worker of a "}


_PLACE = SERVERS["round-robin"]


def _dot(axes: Axes, height: float, found: Estimate, scale: float, look: Look) -> None:
    axes.plot([scale * found.low, scale * found.high], [height, height], color=look.color)
    axes.plot(scale * found.value, height, look.marker, color=look.color, markersize=8, markeredgecolor=INK)
