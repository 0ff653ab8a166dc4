"""What the trials say of each server, in words: the tables, the answer, estimates and two verdicts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import mainly, worded
from lab.experiments.dispatch import answer as dispatch
from lab.experiments.dispatch.answer import ratio, told
from lab.experiments.failures.trials import KILL
from lab.experiments.other_servers.analysis import (
    EVEN_OR_MORE,
    HOW,
    LIMIT,
    MATTERS,
    NEW,
    TAILS,
    Found,
    against,
    bought,
    estimated,
    finite,
    speeds,
    tail_name,
)
from lab.experiments.other_servers.servers import KEPT, PEERS, SAVES, label
from lab.experiments.other_servers.trials import ALL_OF_NODE, EXPERIMENT, OVERLOAD, RELOAD, TAIL
from lab.models.statistics import Estimate
from lab.study.estimates import Stated, linked, stated
from lab.units import Number


def answer(servers: Sequence[Found], trials: pd.DataFrame) -> str:
    """Say how far all are from the ideal, who is nearer than the first and why, what a faster loop buys."""
    tail, tails = f"Their {tail_name(trials)} is {{}} times one ideal queue's", _tails(trials)
    parts = [
        _span(
            servers,
            "limit",
            _SHARE,
            units.percent,
            "Overloaded, they answer {} of what their own loops allow",
        )
        + _nearer(servers, trials, OVERLOAD, LIMIT, "more"),
        _span(servers, "tail", tails, "{:.2f}".format, tail) + _nearer(servers, trials, TAIL, TAILS, "less"),
        _uneven(servers),
    ]
    if buys := bought(speeds(servers, trials)):
        loop, faster, more = buys
        parts.append(
            f"A loop in {loop} answers {ratio(faster)} times as much as one in plain Python, and"
            f" {int(trials['workers'].max())} workers answer {ratio(more)} times as much as one process"
        )
    return f"**Answer.** {'. '.join(filter(None, parts))}."


_SHARE = "share of the own limit, overloaded"


def _tails(trials: pd.DataFrame) -> str:
    return f"{tail_name(trials)} over one ideal queue's"


def _span(
    servers: Sequence[Found], measure: str, quantity: str, write: Callable[[float], str], text: str
) -> str:
    """Put the least and the most of a measure into a text, each with whose it is; then the first server's.

    Each number is a link to its estimate, of that quantity.
    """
    known = {one.name: found.value for one in servers if (found := getattr(one, measure))}
    if not known:
        return ""
    told = {
        one.name: linked(write(known[one.name]), quantity, server=one.server)
        for one in servers
        if one.name in known
    }
    ends = dict.fromkeys([min(known, key=known.__getitem__), max(known, key=known.__getitem__)])
    said = text.format(" to ".join(f"{told[name]} ({name})" for name in ends))
    first = servers[0].name
    return said if first in ends or first not in known else f"{said}; {first}: {told[first]}"


def _nearer(servers: Sequence[Found], trials: pd.DataFrame, part: str, column: str, word: str) -> str:
    """Name the servers that are nearer to the ideal than the first one, by whole intervals, and say why."""
    first, *others = servers
    told_of, why = [], dict[str, None]()
    for one in others:
        beside = against(trials, one.server, first.server, part, column)
        if beside is None or told(beside, MATTERS) != word:
            continue
        told_of.append(f"{one.name} ({beside.value:.2f} times{_price(one, first, trials, part)})")
        also = SAVES.get(first.server, ())
        why |= dict.fromkeys(reason for reason in SAVES.get(one.server, ()) if reason not in also)
    if not told_of:
        return ""
    reasons = f". Why: {'; '.join(why)}" if why else ""
    return f". By whole intervals, nearer than {first.name}: {'; '.join(told_of)}{reasons}"


def _price(one: Found, first: Found, trials: pd.DataFrame, part: str) -> str:
    """Say what a server that is nearer in overload pays for it: a longer tail, if the whole interval is."""
    tail = against(trials, one.server, first.server, TAIL, TAILS) if part == OVERLOAD else None
    longer = tail is not None and told(tail, MATTERS) == "more"
    return f", at {tail.value:.2f} times the {tail_name(trials)}" if tail and longer else ""


def _uneven(servers: Sequence[Found]) -> str:
    """Name the servers whose busiest worker answers more on kept connections than fair coins would give."""
    shared = [one for one in servers if one.few or one.many]
    if not shared:
        return ""
    above = [one.name for one in shared for how in ("few", "many") if one.exceeds_coins(how)]
    if not above:
        return "On kept connections, no server's busiest worker answers more than fair coins may give it"
    names = "; ".join(dict.fromkeys(above))
    return f"On kept connections, the busiest worker answers more than fair coins may give it in: {names}"


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State each server's share of its own limit, its tail over the ideal queue's, its busiest worker."""
    if trials.empty:
        return []
    measures = (
        (_SHARE, OVERLOAD, LIMIT),
        (_tails(trials), TAIL, TAILS),
        ("busiest worker over its fair share, by server", TAIL, NEW),
    )
    return [
        stated(
            EXPERIMENT, quantity, found, server=server,
            sources=mine.loc[finite(mine.loc[mine["part"] == part, column]).index, "trial_id"],
        )
        for server, mine in trials.groupby("server", sort=False)
        for quantity, part, column in measures
        if (column != NEW or mine["workers"].max() > 1)
        for within in [EVEN_OR_MORE if column == NEW else (0, math.inf)]
        if (found := estimated(mine.loc[mine["part"] == part, column], within=within))
    ]  # fmt: skip


def verdicts(trials: pd.DataFrame) -> list[Verdict]:
    """Judge claim 4 by Node's own two ways, and claim 9 by a process manager and by a balancer."""
    if trials.empty:
        return [Verdict(9)]
    mine = trials[trials["part"] == TAIL]
    nodes = mine[mine["server"].isin(_DISPATCH_OF_NODE)]
    as_ours = nodes.assign(
        topology="cluster", pool="process", dispatch=nodes["server"].map(_DISPATCH_OF_NODE),
        load=nodes["aimed"], over_ideal=nodes["mean_over_ideal"], place=0,
    )  # fmt: skip
    node = replace(dispatch.verdict(as_ours), about="Node's cluster") if len(nodes) else None
    judged = mine[mine["server"].isin([*_MANAGED, *_BALANCED])]
    manager = weighed(judged, _manages) if len(judged) else Verdict(9)
    return [*([node] if node and node.evidence else []), replace(manager, about="on one machine")]


_DISPATCH_OF_NODE = {ALL_OF_NODE: "round-robin", "node-cluster-shared": "shared"}
_MANAGED, _BALANCED = ("pm2", ALL_OF_NODE), ("nginx-round-robin", "round-robin")


def _manages(trials: pd.DataFrame) -> Verdict:
    """The manager does the same, and the balancer no worse, unless requests take longer, over an ideal queue.

    `told` says so by whole intervals. A pair that was not measured leaves its part open.
    """
    pairs = {pair: against(trials, *pair, TAIL, "mean_over_ideal") for pair in (_MANAGED, _BALANCED)}
    if not any(pairs.values()):
        return Verdict(9)
    evidence = "; ".join(
        f"{label(one)} over {label(other)}: {ratio(beside) if beside else 'not measured'}"
        for (one, other), beside in pairs.items()
    )
    words = [told(beside) if beside else None for beside in pairs.values()]
    parts = [None if word is None else word != "more" for word in words]
    return Verdict(9, f"mean latency over an ideal queue's, {evidence}", Word.of(*parts))


NONE = "–"


def servers_table(asked: Iterable[str], looks: pd.DataFrame, failed: Mapping[str, str]) -> pd.DataFrame:
    """Tabulate every server that was asked for: what runs here, who listens, and what went wrong."""
    listeners = looks.groupby("server")["listeners"].max()
    return pd.DataFrame(
        {
            "server": label(server),
            "name": server,
            "version": _version(server),
            "sockets that listen": f"{listeners[server]:.0f}" if server in listeners.index else NONE,
            "what went wrong": failed.get(server) or _missing(server),
        }
        for server in asked
    )


def _version(server: str) -> str:
    if server not in PEERS:
        return "this project's"
    return NONE if PEERS[server].missing else PEERS[server].version


def _missing(server: str) -> str:
    command = PEERS[server].missing if server in PEERS else None
    return f"it is not here; what brings it: {command}" if command else ""


def load_table(servers: Sequence[Found], trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what a server wastes and how long requests wait; ratios to the first server are paired."""
    tail, first, rows = tail_name(trials), servers[0], []
    for one in servers:
        row = {
            "server": one.name,
            "its own loop": _written(one.own_s, units.in_seconds),
            "overloaded: share of its own limit": _written(one.limit),
            "random arrivals: own utilisation": _written(one.utilisation, units.in_percent),
            f"{tail}, in its own loops": _written(one.own_tail),
            f"{tail} over one ideal queue's": _written(one.tail),
        }
        for what, part, column in (("share", OVERLOAD, LIMIT), ("tail", TAIL, TAILS)):
            beside = against(trials, one.server, first.server, part, column)
            row[f"{what}, over {first.name}'s"] = "the reference" if one is first else _beside(beside)
        rows.append(row)
    of_tail = (f"{tail} over one ideal queue's", f"tail, over {first.name}'s")
    return mainly(pd.DataFrame(rows), "server", "overloaded: share of its own limit", *of_tail)


def _beside(beside: Estimate | None) -> str:
    return f"{ratio(beside)}: {told(beside, MATTERS) or 'cannot be told'}" if beside else NONE


def share_table(servers: Sequence[Found]) -> pd.DataFrame:
    """Tabulate the busiest worker's share, by how clients use connections, beside what fair coins give."""
    return pd.DataFrame(
        {
            "server": one.name,
            **{
                f"{name}: busiest worker over its fair share": _beside_coins(one, how)
                for how, name in HOW.items()
            },
            "delayed by a slow request": _written(one.delayed, units.in_percent),
        }
        for one in servers
    )


def _beside_coins(one: Found, how: str) -> str:
    found = getattr(one, how)
    coins = f"; coins up to {one.coins[how]:.2f}" if found else ""
    return f"{_written(found, each='look' if how in KEPT else 'block')}{coins}"


def keep_table(servers: Sequence[Found]) -> pd.DataFrame:
    """Tabulate memory, the time to the first answer, and what reloads and kills cost."""
    first = servers[0].pss_bytes
    rows = pd.DataFrame(
        {
            "server": one.name,
            "memory for each worker (PSS)": _written(one.pss_bytes, _mib, each="look"),
            f"memory, over {servers[0].name}'s": (
                f"{one.pss_bytes.value / first.value:.2f}" if one.pss_bytes and first else NONE
            ),
            "first answer after": _written(one.ready_s, units.in_seconds, each="look"),
            **{
                f"{kind}: {what}": text
                for kind in (RELOAD, KILL)
                for what, text in (
                    ("requests lost", _written(one.lost.get(kind), "{:g}".format)),
                    ("over after", _over_after(one, kind)),
                )
            },
        }
        for one in servers
    )
    lost = (f"{kind}: requests lost" for kind in (RELOAD, KILL))
    return mainly(rows, "server", "memory for each worker (PSS)", "first answer after", *lost)


def _over_after(one: Found, kind: str) -> Number | str:
    never = one.lost.get(kind) and not one.took_s.get(kind)
    return "not in time" if never else _written(one.took_s.get(kind), units.in_seconds)


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


def speed_table(servers: Sequence[Found], trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what a faster loop buys, and what more workers buy."""
    rows = [
        {
            "loop": speed.loop,
            "one process": _written(speed.one, units.in_requests),
            "all workers": _written(speed.all, units.in_requests),
            "times, by the loop": _written(speed.by_loop),
            "times, by the workers": _written(speed.by_workers),
            "times, by both": _written(speed.by_both),
        }
        for speed in speeds(servers, trials)
    ]
    return pd.DataFrame(rows or [{"": "No loop was measured by itself."}])


def _written(
    found: Estimate | None, write: Callable[[float], Number | str] = "{:.2f}".format, each: str = "block"
) -> Number:
    """Return an estimate with where it may lie; `each` is what was measured several times."""
    return worded(found, write, each) if found else Number(NONE)
