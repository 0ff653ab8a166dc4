"""The tables of notebook 07: a row for each server, and one for each loop."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from lab import units
from lab.experiments.common import spread
from lab.experiments.dispatch.answer import ratio, told
from lab.experiments.failures.trials import KILL
from lab.experiments.other_servers.actions import RELOAD
from lab.experiments.other_servers.answer import (
    HOW,
    LIMIT,
    MATTERS,
    TAILS,
    Found,
    against,
    speeds,
    tail_name,
)
from lab.experiments.other_servers.servers import PEERS, label
from lab.experiments.other_servers.trials import OVERLOAD, TAIL
from lab.models.statistics import Estimate

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
            "overloaded: share of its own limit": _written(one.limit),
            "random arrivals: own utilisation": _written(one.utilisation, units.percent),
            f"{tail}, in its own loops": _written(one.own_tail),
            f"{tail} over one ideal queue's": _written(one.tail),
        }
        for what, part, column in (("share", OVERLOAD, LIMIT), ("tail", TAIL, TAILS)):
            beside = against(trials, one.server, first.server, part, column)
            row[f"{what}, over {first.name}'s"] = "the reference" if one is first else _beside(beside)
        rows.append(row)
    return pd.DataFrame(rows)


def _beside(beside: Estimate | None) -> str:
    return f"{ratio(beside)}: {told(beside, MATTERS) or 'cannot be told'}" if beside else NONE


def share_table(servers: Sequence[Found]) -> pd.DataFrame:
    """Tabulate the busiest worker's share, by how clients use connections, beside what fair coins give."""
    return pd.DataFrame(
        {
            "server": one.name,
            **{
                f"{name}: busiest worker over its fair share": (
                    f"{_written(getattr(one, how))}; coins up to {one.coins[how]:.2f}"
                    if getattr(one, how)
                    else NONE
                )
                for how, name in HOW.items()
            },
            "delayed by a slow request": _written(one.delayed, units.percent),
        }
        for one in servers
    )


def keep_table(servers: Sequence[Found]) -> pd.DataFrame:
    """Tabulate memory, the time to the first answer, and what reloads and kills cost."""
    return pd.DataFrame(
        {
            "server": one.name,
            "memory for each worker (PSS)": _written(one.pss_bytes, _mib),
            "first answer after": _written(one.ready_s, units.seconds),
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


def _over_after(one: Found, kind: str) -> str:
    never = one.lost.get(kind) and not one.took_s.get(kind)
    return "not in time" if never else _written(one.took_s.get(kind), units.seconds)


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


def speed_table(servers: Sequence[Found], trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what a faster loop buys, and what more workers buy."""
    rows = [
        {
            "loop": speed.loop,
            "one process": _written(speed.one, units.per_second),
            "all workers": _written(speed.all, units.per_second),
            "times, by the loop": _written(speed.by_loop),
            "times, by the workers": _written(speed.by_workers),
            "times, by both": _written(speed.by_both),
        }
        for speed in speeds(servers, trials)
    ]
    return pd.DataFrame(rows or [{"": "No loop was measured by itself."}])


def _written(found: Estimate | None, write: Callable[[float], str] = "{:.2f}".format) -> str:
    return f"{write(found.value)} ({spread(found, write)})" if found else NONE
